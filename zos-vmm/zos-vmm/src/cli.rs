//! The command line. In the jail there is nothing on it: the spec is a passed descriptor.

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Parser, ValueEnum};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use zos_vmm::jail::Seccomp;
use zos_vmm::resources::Passed;
use zos_vmm_spec::{Balloon, Bytes, Disk, IoEngine, Mac, Net, Share, Source, Spec};

/// Longest spec that is read, in bytes.
const LONGEST_SPEC: u64 = 1 << 20;

/// The serial port's name in Linux.
#[cfg(target_arch = "x86_64")]
const CMDLINE: &str = "console=ttyS0";
#[cfg(target_arch = "aarch64")]
const CMDLINE: &str = "console=ttyAMA0";

const EXAMPLES: &str = "\
Examples:
  zos-vmm --spec vm.json
  zos-vmm --kernel vmlinuz --initramfs hello.img --cmdline 'console=ttyS0 quiet' --memory 256MiB
  zos-vmm --kernel vmlinuz --cmdline 'console=ttyS0 root=/dev/vda ro' --cpus 2 \\
          --disk path=root.img,readonly=on --disk path=data.img --net tap=tap0

The guest's serial port is written to stdout. SIGTERM and Ctrl-C press its power button, a second
Ctrl-C ends it at once. A last line on stderr counts exits and times.

Exit codes: 0 the guest powered off, 1 error, 2 wrong arguments, 3 the guest asked for a reboot.

In the jail: LISTEN_FDS and LISTEN_FDNAMES (from descriptor 3 on) pass `spec`, `kvm` and what the
spec names as {\"fd\": NAME}; no path is accepted then.";

/// Runs one virtual machine.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").args(["spec", "kernel"]))]
pub(crate) struct Cli {
    /// The VM as JSON.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Linux kernel: bzImage or ELF.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initramfs.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initramfs: Option<PathBuf>,
    /// Kernel command line.
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = CMDLINE)]
    cmdline: String,
    /// Memory: bytes, or with KiB, MiB, GiB.
    #[arg(long, value_name = "SIZE", requires = "kernel", default_value = "256MiB")]
    memory: Bytes,
    /// Virtual CPUs.
    #[arg(long, value_name = "COUNT", requires = "kernel", default_value_t = 1)]
    cpus: u16,
    /// A disk: path=FILE[,readonly=on][,serial=TEXT]. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel")]
    disk: Vec<DiskArgument>,
    /// A network interface: tap=NAME[,mac=ADDRESS]. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel")]
    net: Vec<NetArgument>,
    /// A balloon: size=SIZE[,deflate_on_oom=on][,free_page_reporting=on].
    #[arg(long, value_name = "KEYS", requires = "kernel")]
    balloon: Option<BalloonArgument>,
    /// A shared folder: tag=NAME,socket=PATH of its back-end[,num_queues=COUNT]. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel")]
    fs: Vec<FsArgument>,
    /// No random number device.
    #[arg(long, requires = "kernel")]
    no_rng: bool,
    /// Counters at the end as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// System call filters; off is for tracing the process.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    seccomp: Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct DiskArgument {
    path: PathBuf,
    readonly: bool,
    serial: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NetArgument {
    tap: String,
    mac: Option<Mac>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BalloonArgument(Balloon);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FsArgument(Share);

impl Cli {
    /// Whether the threads enter filters.
    pub(crate) fn seccomp(&self) -> Seccomp {
        match self.seccomp {
            Switch::On => Seccomp::On,
            Switch::Off => Seccomp::Off,
        }
    }

    /// The spec: from arguments, from a file, or from the passed descriptor.
    pub(crate) fn spec(&self, passed: &mut Passed) -> Result<Spec> {
        if let Some(kernel) = &self.kernel {
            return Ok(self.spec_of_arguments(kernel.clone()));
        }
        let (name, file) = match (&self.spec, passed.remove("spec")) {
            (Some(path), _) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("open the spec {name}"))?;
                (name, file)
            }
            (None, Some(fd)) => ("descriptor `spec`".to_owned(), File::from(fd)),
            (None, None) => bail!(
                "what shall run? give --spec FILE or --kernel FILE (see --help), or pass a \
                 descriptor named `spec`"
            ),
        };
        let text = read(&file).with_context(|| format!("read the spec {name}"))?;
        serde_json::from_str(&text).with_context(|| format!("understand the spec {name}"))
    }

    fn spec_of_arguments(&self, kernel: PathBuf) -> Spec {
        let disks = self.disk.iter().enumerate().map(|(index, disk)| Disk {
            id: format!("disk{index}"),
            source: Source::Path(disk.path.clone()),
            readonly: disk.readonly,
            serial: disk.serial.clone(),
            queues: 1,
            rate: None,
        });
        let nets = self.net.iter().enumerate().map(|(index, net)| Net {
            id: format!("net{index}"),
            source: Source::Tap(net.tap.clone()),
            mac: net.mac,
            queues: 1,
            addresses: None,
            receive_rate: None,
            transmit_rate: None,
        });
        Spec {
            cpus: self.cpus,
            memory: self.memory,
            cmdline: self.cmdline.clone(),
            kernel: Source::Path(kernel),
            initramfs: self.initramfs.clone().map(Source::Path),
            disks: disks.collect(),
            nets: nets.collect(),
            rng: !self.no_rng,
            serial: None,
            console: None,
            vsock: None,
            balloon: self.balloon.map(|balloon| balloon.0),
            shares: self.fs.iter().map(|share| share.0.clone()).collect(),
            io: IoEngine::Auto,
            twin_rates: None,
        }
    }
}

/// Reads from the start whatever the offset is: a memfd's is where its writer left it.
fn read(mut file: &File) -> std::io::Result<String> {
    use std::io::Seek;
    // A pipe can't be rewound and needn't be.
    let _ = file.rewind();
    let mut text = String::new();
    file.take(LONGEST_SPEC).read_to_string(&mut text)?;
    Ok(text)
}

/// Splits `key=value,key=value`.
fn keys(text: &str) -> Result<Vec<(&str, &str)>> {
    let pair = |part| -> Result<(&str, &str)> {
        str::split_once(part, '=').with_context(|| format!("`{part}` is no KEY=VALUE"))
    };
    text.split(',').map(pair).collect()
}

impl FromStr for DiskArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut path, mut readonly, mut serial) = (None, false, None);
        for (key, value) in keys(text)? {
            match (key, value) {
                ("path", _) => path = Some(PathBuf::from(value)),
                ("readonly", "on" | "true") => readonly = true,
                ("readonly", "off" | "false") => readonly = false,
                ("serial", _) => serial = Some(value.to_owned()),
                _ => bail!("`{key}={value}`: a disk has path=FILE, readonly=on|off, serial=TEXT"),
            }
        }
        Ok(Self { path: path.context("a disk needs path=FILE")?, readonly, serial })
    }
}

impl FromStr for NetArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut tap, mut mac) = (None, None);
        for (key, value) in keys(text)? {
            match key {
                "tap" => tap = Some(value.to_owned()),
                "mac" => mac = Some(value.parse()?),
                _ => bail!("`{key}={value}`: a net has tap=NAME, mac=ADDRESS"),
            }
        }
        Ok(Self { tap: tap.context("a net needs tap=NAME")?, mac })
    }
}

impl FromStr for BalloonArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut balloon = Balloon::default();
        for (key, value) in keys(text)? {
            match (key, value) {
                ("size", _) => balloon.size = value.parse()?,
                ("deflate_on_oom", "on" | "true") => balloon.deflate_on_oom = true,
                ("deflate_on_oom", "off" | "false") => balloon.deflate_on_oom = false,
                ("free_page_reporting", "on" | "true") => balloon.free_page_reporting = true,
                ("free_page_reporting", "off" | "false") => balloon.free_page_reporting = false,
                _ => bail!(
                    "`{key}={value}`: a balloon has size=SIZE, deflate_on_oom=on|off, \
                     free_page_reporting=on|off"
                ),
            }
        }
        Ok(Self(balloon))
    }
}

impl FromStr for FsArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut tag, mut socket, mut queues) = (None, None, 1);
        for (key, value) in keys(text)? {
            match key {
                "tag" => tag = Some(value.to_owned()),
                "socket" => socket = Some(PathBuf::from(value)),
                "num_queues" => queues = value.parse()?,
                _ => bail!("`{key}={value}`: a share has tag=NAME, socket=PATH, num_queues=COUNT"),
            }
        }
        let tag = tag.context("a share needs tag=NAME")?;
        let source = Source::Path(socket.context("a share needs socket=PATH")?);
        Ok(Self(Share { tag, source, queues }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_become_a_spec() {
        let cli = Cli::try_parse_from([
            "zos-vmm",
            "--kernel",
            "k",
            "--memory",
            "128MiB",
            "--cpus",
            "2",
            "--disk",
            "path=a.img,readonly=on",
            "--net",
            "tap=t0,mac=52:54:00:00:00:01",
            "--fs",
            "tag=home,socket=/tmp/s,num_queues=2",
            "--balloon",
            "size=32MiB,free_page_reporting=on",
        ])
        .unwrap();
        let spec = cli.spec(&mut Passed::default()).unwrap();
        spec.validate().unwrap();
        assert_eq!((spec.cpus, spec.memory), (2, Bytes(128 << 20)));
        let balloon =
            Balloon { size: Bytes(32 << 20), deflate_on_oom: false, free_page_reporting: true };
        assert_eq!(spec.balloon, Some(balloon));
        let source = Source::Path("/tmp/s".into());
        assert_eq!(spec.shares, [Share { tag: "home".into(), source, queues: 2 }]);
        assert!(spec.disks[0].readonly && spec.rng);
        assert_eq!(spec.nets[0].source, Source::Tap("t0".into()));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for arguments in [
            &["--spec", "a", "--kernel", "b"][..],
            &["--cpus", "2"],
            &["--kernel", "k", "--disk", "readonly=on"],
            &["--kernel", "k", "--disk", "path=a,format=qcow2"],
            &["--kernel", "k", "--net", "mac=52:54:00:00:00:01"],
            &["--kernel", "k", "--net", "tap=a,mac=zz"],
            &["--kernel", "k", "--balloon", "size=1MiB,statistics=on"],
            &["--kernel", "k", "--fs", "tag=home"],
            &["--kernel", "k", "--memory", "lots"],
        ] {
            let all = std::iter::once(&"zos-vmm").chain(arguments);
            assert!(Cli::try_parse_from(all).is_err(), "{arguments:?}");
        }
    }
}
