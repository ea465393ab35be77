//! A stock Debian runs on our VMM: its own kernel and systemd, with the programs that people test machines with.
//!
//! ```text
//!  node ── /dev/vda (Debian's root), /dev/vdb (ext4 to write on): foreign disks, which the node leaves alone
//!   └ lab: iperf3 -s, tap0 ── zos-vmm ── guest: systemd ─▶ multi-user ─▶ script (a read-only disk)
//!                                └ SIGTERM: power button ─▶ logind ─▶ off, code 0; both disks are clean
//! ```
//!
//! The guest's steps stand in `script.sh`; what they find is told on its serial port, and judged here.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::cpio::Mode;
use image_builder::debian;
use image_builder::fetch::Fetcher;
use image_builder::project::Project;
use qemu_tests::disk::{Interface, copy_sparse, create};
use qemu_tests::nested::{Lab, ZOS_VMM, words};
use qemu_tests::peers::Peers;
use qemu_tests::probe::Probe;
use qemu_tests::{Disk, MIB, Node, image, programs, scene};

/// The folder that the guest shares; its socket lies beside it.
const SHARE: &str = "/run/share";
/// A server for each direction: one that has had its client takes a while until it takes the next, or ends.
const IPERF3_PORTS: [u16; 2] = [5201, 5202];
const SCRIPT: &str = include_str!("script.sh");
/// A stock system under emulation under emulation, on busy cores.
const SLOW: Duration = Duration::from_secs(600);
/// The steps that the script takes.
const STEPS: [&str; 15] = [
    "multi-user",
    "root",
    "network",
    "iperf3",
    "iperf3-back",
    "mount",
    "fio-libaio",
    "fio-io_uring",
    "virtiofs",
    "interrupts",
    "entropy",
    "stress-ng",
    "fstrim",
    "unmount",
    "log",
];

#[test]
fn a_stock_debian_works_and_switches_itself_off() {
    scene("debian", |scene| {
        let project = Project::around(image::project())?;
        let fetcher = Fetcher::open(&project, Cache::of_user()?, false)?;
        let debian = debian::build(&fetcher, Arch::X86_64).context("build Debian")?;
        let (root, data) = (scene.dir().join("root.ext4"), scene.dir().join("data.ext4"));
        copy_sparse(&debian.root, &root)?;
        create(&data, 64 * MIB)?;
        tool("mke2fs", &["-q", "-t", "ext4", "-L", "data"], &data)?;

        let peers = Peers::pinned(&["ip", "iperf3"])?;
        let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
        let mut script = SCRIPT.as_bytes().to_vec();
        script.resize(script.len().next_multiple_of(4096), b' ');
        let mut files = peers.files()?;
        files.extend([
            ("guest".to_owned(), Mode::Dir, Vec::new()),
            ("guest/vmlinuz".to_owned(), Mode::File, read(&debian.kernel)?),
            ("guest/initrd.img".to_owned(), Mode::File, read(&debian.initrd)?),
            ("guest/script".to_owned(), Mode::File, script),
            ("guest/zos-virtiofsd".to_owned(), Mode::Program, read(programs::virtiofsd()?)?),
        ]);
        let disks = [("root", &root), ("data", &data)];
        let disks = disks.map(|(id, path)| Disk::new(id, path.clone()).by(Interface::Virtio));
        let node = Node { memory: 2560, files, ..Node::with_disks(disks).with_probe() };
        let mut machine = scene.start(&node)?;
        machine.wait_ready()?;
        let probe = machine.probe()?;
        let lab = Lab::make(probe, &peers, 1)?;
        for port in IPERF3_PORTS {
            let server = peers.command("iperf3").into_iter().chain(words(&format!("-s -p {port}")));
            probe.start(&format!("iperf3-{port}"), &lab.inside(server.collect()))?;
        }

        serve_folder(probe)?;

        let before = now()?;
        let mut vmm = words(&format!(
            "{ZOS_VMM} --memory 512MiB --cpus 2 --kernel /guest/vmlinuz --initramfs /guest/initrd.img --net tap=tap0 --json"
        ));
        for name in ["root", "data"] {
            let place = probe.disk(name)?;
            vmm.extend(["--disk".into(), format!("path={place},serial={name}")]);
        }
        vmm.extend(words("--disk path=/guest/script,serial=script,readonly=on"));
        vmm.extend(words(&format!("--fs tag=share,socket={SHARE}.sock --cmdline")));
        vmm.push("console=ttyS0 root=/dev/vda rw quiet panic=-1".into());
        probe.start("debian", &lab.inside(vmm))?;
        probe.until("debian", "TEST ok multi-user", SLOW)?;
        let clock = probe.until("debian", "TEST clock", SLOW)?;
        let after = now()?;
        probe.until("debian", "TEST end", SLOW)?;
        let said = probe.tail("debian", 64 << 10)?;
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("TEST ")).collect();
        println!("{}", told.join("\n"));
        for step in STEPS {
            let good = format!("TEST ok {step}");
            if !told.iter().any(|line| line.starts_with(&good)) {
                let servers = IPERF3_PORTS.map(|port| probe.tail(&format!("iperf3-{port}"), 4096));
                bail!("no {good}:\n{said}\nthe node's servers: {servers:?}");
            }
        }
        let clock: u64 = clock.rsplit(' ').next().unwrap_or_default().parse()?;
        // The node's own clock has whole seconds from its RTC.
        ensure!(
            (before - 2..=after + 2).contains(&clock),
            "the guest's clock says {clock}, the node was started at {before}, now it is {after}"
        );

        let written = probe.read(&format!("{SHARE}/from-guest"))?;
        ensure!(written == "hello from the guest\n", "the guest wrote {written:?}");
        ensure!(probe.signal("zos-vmm", "TERM")? == 1, "not one zos-vmm runs");
        let code = probe.ended("debian", SLOW)?;
        let last = probe.tail("debian", 4096)?;
        println!("{}", last.lines().last().unwrap_or_default());
        ensure!(code == Some(0), "the VMM ended with {code:?}:\n{last}");
        ensure!(last.contains("\"ending\":\"poweroff\""), "no power-off:\n{last}");
        machine.power_off()?;
        drop(machine);
        // Nothing was left half done: neither file system needs its journal, or a repair.
        for disk in [&root, &data] {
            tool("e2fsck", &["-f", "-n"], disk)?;
        }
        Ok(())
    });
}

/// A folder of the node with a file in it, and who serves it.
fn serve_folder(probe: &mut Probe) -> Result<()> {
    probe.make_dir(SHARE)?;
    probe.write(&format!("{SHARE}/from-node"), "hello from the node")?;
    let daemon = format!("/guest/zos-virtiofsd --socket-path {SHARE}.sock --shared-dir {SHARE}");
    probe.start("virtiofsd", &words(&daemon))?;
    while !probe.list("/run")?.iter().any(|name| name == "share.sock") {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs())
}

/// Runs a program of e2fsprogs on a file.
fn tool(name: &str, arguments: &[&str], file: &Path) -> Result<()> {
    let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).env("PATH", path).args(arguments).arg(file).output();
    let output = output.with_context(|| format!("run {name}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "{name} {}: {said}", file.display());
    Ok(())
}
