//! The command line. In the jail there is nothing on it: the spec is a passed descriptor.
//!
//! ```text
//!  --spec FILE, descriptor `spec` ──────────────────────────────────▶ Spec
//!  --kernel ... --disk ... ─ keys ─▶ api::VmConfig ─ translate ─────▶ Spec
//!  --api-socket, descriptor `api` ─▶ Door
//! ```

mod keys;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Parser, ValueEnum};
use rustix::fs::Mode;
use rustix::process::umask;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use zos_vmm::api::{
    Balloon, Console, ConsoleMode, Cpus, Disk, Fs, Memory, Net, Payload, Rng, VmConfig, Vsock,
    translate,
};
use zos_vmm::jail::Seccomp;
use zos_vmm::keeper::{Keeper, Remains};
use zos_vmm::resources::Passed;
use zos_vmm::sockets;
use zos_vmm_spec::{Source, Spec};

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
  zos-vmm --kernel vmlinuz --cmdline 'console=ttyS0 root=/dev/vda ro' --cpus boot=2 \\
          --memory size=1G --disk path=root.img,readonly=on --disk path=data.img --net tap=tap0
  zos-vmm --api-socket /tmp/vmm.sock
  curl --unix-socket /tmp/vmm.sock http://localhost/api/v1/vmm.ping

Keys:
  --cpus     COUNT, or boot=COUNT
  --memory   SIZE, or size=SIZE
  --disk     path=FILE readonly=on|off num_queues=N serial=TEXT id=NAME, and rates
  --net      tap=NAME mac=ADDRESS num_queues=N (two for each pair) id=NAME, and rates;
             addresses=[IP,IP]: what the guest may send from, nothing else
  --fs       tag=TEXT socket=PATH num_queues=N
  --vsock    cid=NUMBER socket=PATH
  --balloon  size=SIZE deflate_on_oom=on|off free_page_reporting=on|off
  --rng      src=/dev/urandom, or off
  --serial, --console   off, null, tty, file=PATH, socket=PATH, ring=PATH
  rates      bw_size=SIZE bw_refill_time=MS for bytes, ops_size=N ops_refill_time=MS for requests
Sizes are bytes, or end with K, M, G, T or KiB, MiB, GiB, TiB.

The guest's serial port is written to stdout if nothing else is said. SIGTERM and Ctrl-C press its
power button, a second Ctrl-C ends it at once. A last line on stderr counts exits and times.

With --api-socket it speaks Cloud Hypervisor's REST interface; a VM may be named here or created
there, and a reboot starts it anew in the same process.

Exit codes: 0 the guest powered off, 1 error, 2 wrong arguments, 3 the guest asked for a reboot.

In the jail: LISTEN_FDS and LISTEN_FDNAMES (from descriptor 3 on) pass `spec`, `kvm`, perhaps `api`,
and what the spec names as {\"fd\": NAME}; no path is accepted then.";

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
    /// Memory.
    #[arg(long, value_name = "SIZE", requires = "kernel", default_value = "256MiB", value_parser = told(memory))]
    memory: Memory,
    /// Virtual CPUs.
    #[arg(long, value_name = "COUNT", requires = "kernel", default_value = "1", value_parser = told(cpus))]
    cpus: Cpus,
    /// Disks. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel", num_args = 1.., value_parser = told(keys::object::<Disk>))]
    disk: Vec<Disk>,
    /// Network interfaces. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel", num_args = 1.., value_parser = told(keys::object::<Net>))]
    net: Vec<Net>,
    /// Folders of the host, each served by a virtiofsd. May be given again.
    #[arg(long, value_name = "KEYS", requires = "kernel", num_args = 1.., value_parser = told(keys::object::<Fs>))]
    fs: Vec<Fs>,
    /// Sockets between host and guest.
    #[arg(long, value_name = "KEYS", requires = "kernel", value_parser = told(keys::object::<Vsock>))]
    vsock: Option<Vsock>,
    /// A balloon.
    #[arg(long, value_name = "KEYS", requires = "kernel", value_parser = told(keys::object::<Balloon>))]
    balloon: Option<Balloon>,
    /// The random number device, there by default.
    #[arg(long, value_name = "KEYS", requires = "kernel", value_parser = told(rng))]
    rng: Option<Random>,
    /// No random number device.
    #[arg(long, requires = "kernel", conflicts_with = "rng")]
    no_rng: bool,
    /// Where the serial port goes: stdout by default.
    #[arg(long, value_name = "WHERE", requires = "kernel", value_parser = told(place))]
    serial: Option<Place>,
    /// Where the virtio console goes: there is none by default.
    #[arg(long, value_name = "WHERE", requires = "kernel", value_parser = told(place))]
    console: Option<Place>,
    /// Serve the REST interface there: PATH, path=PATH, or fd=NUMBER.
    #[arg(long, value_name = "WHERE")]
    api_socket: Option<String>,
    /// Counters at the end as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// System call filters; off is for tracing the process.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    seccomp: Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    #[value(alias = "true")]
    On,
    #[value(alias = "false")]
    Off,
}

/// The random number device.
#[derive(Clone, Debug)]
enum Random {
    On(Rng),
    Off,
}

/// Where a console goes.
#[derive(Clone, Debug)]
struct Place {
    console: Console,
    /// A console ring, which Cloud Hypervisor doesn't know.
    ring: Option<PathBuf>,
}

/// Arguments that name a VM that can't be had, each with its field.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n         "))]
pub(crate) struct WrongArguments(Vec<String>);

/// Where clients come in.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: OwnedFd,
    /// It was passed along with a VM.
    pub(crate) jailed: bool,
    /// Removes its file at the end.
    pub(crate) keeper: Option<Keeper>,
}

impl Cli {
    /// Whether the threads enter filters.
    pub(crate) fn seccomp(&self) -> Seccomp {
        match self.seccomp {
            Switch::On => Seccomp::On,
            Switch::Off => Seccomp::Off,
        }
    }

    /// The valid spec: from arguments, from a file, or from the passed descriptor, if any.
    pub(crate) fn spec(&self, passed: &mut Passed) -> Result<Option<Spec>> {
        if let Some(kernel) = &self.kernel {
            return Ok(Some(self.spec_of_arguments(kernel.clone())?));
        }
        let (name, file) = match (&self.spec, passed.remove("spec")) {
            (Some(path), _) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("open the spec {name}"))?;
                (name, file)
            }
            (None, Some(fd)) => ("descriptor `spec`".to_owned(), File::from(fd)),
            (None, None) => return Ok(None),
        };
        let text = read(&file).with_context(|| format!("read the spec {name}"))?;
        let spec: Spec =
            serde_json::from_str(&text).with_context(|| format!("understand the spec {name}"))?;
        spec.validate().context("the VM's spec")?;
        Ok(Some(spec))
    }

    /// Opens where clients come in, if they do.
    pub(crate) fn door(&self, passed: &mut Passed) -> Result<Option<Door>> {
        let jailed = !passed.is_empty();
        match (&self.api_socket, passed.remove("api")) {
            (None, None) => Ok(None),
            (Some(_), _) if jailed => bail!("--api-socket: in the jail pass a descriptor `api`"),
            (_, Some(fd)) => {
                let listener = sockets::adopt(fd).context("descriptor `api`")?;
                Ok(Some(Door { listener, jailed, keeper: None }))
            }
            (Some(place), None) => {
                let door = open_door(place).with_context(|| format!("--api-socket {place}"))?;
                Ok(Some(door))
            }
        }
    }

    fn spec_of_arguments(&self, kernel: PathBuf) -> Result<Spec, WrongArguments> {
        let mut spec = translate::spec(&self.config(kernel)).map_err(WrongArguments)?;
        spec.rng = !self.no_rng && !matches!(self.rng, Some(Random::Off));
        if self.serial.is_none() {
            spec.serial = None;
        }
        for (console, place) in
            [(&mut spec.serial, &self.serial), (&mut spec.console, &self.console)]
        {
            if let Some(Place { ring: Some(path), .. }) = place {
                console.get_or_insert_default().ring = Some(Source::Path(path.clone()));
            }
        }
        Ok(spec)
    }

    fn config(&self, kernel: PathBuf) -> VmConfig {
        let payload = Payload {
            kernel: Some(kernel),
            cmdline: Some(self.cmdline.clone()),
            initramfs: self.initramfs.clone(),
            ..Payload::default()
        };
        let console = |place: &Option<Place>| {
            place.as_ref().map_or(Console::of(ConsoleMode::Off), |place| place.console.clone())
        };
        VmConfig {
            cpus: self.cpus.clone(),
            memory: self.memory.clone(),
            payload: Some(payload),
            disks: Some(self.disk.clone()),
            net: Some(self.net.clone()),
            rng: match &self.rng {
                Some(Random::On(rng)) => rng.clone(),
                Some(Random::Off) | None => Rng::default(),
            },
            serial: console(&self.serial),
            console: console(&self.console),
            balloon: self.balloon.clone(),
            fs: Some(self.fs.clone()),
            vsock: self.vsock.clone(),
            others: serde_json::Map::new(),
        }
    }
}

/// A parser whose errors are told with their causes.
fn told<T>(parse: fn(&str) -> Result<T>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).map_err(|error| format!("{error:#}"))
}

fn cpus(text: &str) -> Result<Cpus> {
    if let Ok(count) = text.parse() {
        return Ok(Cpus { boot_vcpus: count, max_vcpus: count, ..Cpus::default() });
    }
    let mut map = keys::map(text)?;
    if let (Some(count), None) = (map.get("boot_vcpus"), map.get("max_vcpus")) {
        map.insert("max_vcpus".to_owned(), count.clone());
    }
    keys::from(map)
}

fn memory(text: &str) -> Result<Memory> {
    if text.contains('=') {
        return keys::object(text);
    }
    let size = keys::size(text);
    let size = size.with_context(|| format!("`{text}` is no size: write one like 256MiB"))?;
    Ok(Memory { size, ..Memory::default() })
}

fn rng(text: &str) -> Result<Random> {
    if text == "off" { Ok(Random::Off) } else { keys::object(text).map(Random::On) }
}

fn place(text: &str) -> Result<Place> {
    let (word, path) = text.split_once('=').unwrap_or((text, ""));
    let mut console = Console::of(match word {
        "off" => ConsoleMode::Off,
        "null" | "ring" => ConsoleMode::Null,
        "tty" => ConsoleMode::Tty,
        "pty" => ConsoleMode::Pty,
        "file" => ConsoleMode::File,
        "socket" => ConsoleMode::Socket,
        _ => bail!("write off, null, tty, file=PATH, socket=PATH or ring=PATH"),
    });
    let path = Some(path).filter(|path| !path.is_empty()).map(PathBuf::from);
    let takes = matches!(word, "file" | "socket" | "ring");
    if takes != path.is_some() {
        bail!("`{word}` {}", if takes { "needs a path behind a =" } else { "takes no path" });
    }
    let mut ring = None;
    match word {
        "file" => console.file = path,
        "socket" => console.socket = path,
        _ => ring = path,
    }
    Ok(Place { console, ring })
}

fn open_door(place: &str) -> Result<Door> {
    if let Some(number) = place.strip_prefix("fd=") {
        let number = number.parse().context("fd: no number")?;
        let fd = Passed::inherited(number).context("fd: not open")?;
        let listener = sockets::adopt(fd)?;
        return Ok(Door { listener, jailed: false, keeper: None });
    }
    let path = Path::new(place.strip_prefix("path=").unwrap_or(place));
    // Who may connect may do with the VM what it likes. No other thread makes files yet.
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = sockets::bind(path);
    umask(before);
    let (listener, bound) = bound?;
    let mut remains = Remains::default();
    remains.sockets.push(bound);
    Ok(Door { listener, jailed: false, keeper: Keeper::start(&mut remains)? })
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

#[cfg(test)]
mod tests;
