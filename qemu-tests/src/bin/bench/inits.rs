//! PID 1 beside s6 and runit: the same services, each with its log, in the same machine with the same kernel.
//!
//! ```text
//!  zos-init ─┐                          ┌─ handover until the last has started
//!  s6       ─┼─▶ 100 services that ─────┼─ memory of all that supervises and logs
//!  runit    ─┘   sleep, 1 that shouts   ├─ kill one: until it runs again
//!                                       ├─ wake-ups in 10 s in which nothing happens
//!                                       └─ 32 MiB of lines through its log
//! ```
//!
//! runit has a supervisor and a logger for each service, s6 as well; PID 1 is one process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use image_builder::arch::Arch;
use image_builder::cpio::{Archive, Mode};
use image_builder::elf;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{Boot, Node, Scene, image, peers, programs};

use crate::figures::{Figures, float, median, mib};

const SERVICES: usize = 100;
/// How often a service is killed.
const KILLS: usize = 9;
const SHOUT_MIB: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

/// A way to supervise.
struct Way {
    name: &'static str,
    /// Processes that are part of it.
    processes: &'static [&'static str],
    initramfs: PathBuf,
}

/// What it costs.
struct Cost {
    up_ms: f64,
    memory: u64,
    restart_ms: f64,
    wakeups: f64,
    log_mib_s: f64,
}

pub(crate) fn measure(scene: &mut Scene, figures: &mut Figures) -> Result<()> {
    let dir = scene.dir().to_owned();
    let ours = Way { name: "zos-init", processes: &["init"], initramfs: dir.join("zos-init.img") };
    pack_ours(&ours.initramfs)?;
    let s6 = Way {
        name: "s6",
        processes: &["s6-svscan", "s6-supervise", "s6-log"],
        initramfs: dir.join("s6.img"),
    };
    pack_peer(&s6, "/usr/bin/s6-svscan /service", "/usr/bin/s6-log n3 s100000 /run/log/")?;
    let runit = Way {
        name: "runit",
        processes: &["runsvdir", "runsv", "svlogd"],
        initramfs: dir.join("runit.img"),
    };
    pack_peer(&runit, "/usr/bin/runsvdir /service", "/usr/bin/svlogd /run/log/")?;
    let own = cost(scene, &ours).context("measure zos-init")?;
    for way in [s6, runit] {
        let peer = cost(scene, &way).with_context(|| format!("measure {}", way.name))?;
        let mut row = |name: &str, value: f64, other: f64, unit| {
            figures.add(&format!("init: {name}"), value, unit).peer = Some((way.name, other));
        };
        row(&format!("{SERVICES} services up"), own.up_ms, peer.up_ms, "ms");
        row("memory of supervision, PSS", mib(own.memory), mib(peer.memory), "MiB");
        row("a killed service runs again", own.restart_ms, peer.restart_ms, "ms");
        row("lines through a log", own.log_mib_s, peer.log_mib_s, "MiB/s");
        row("wake-ups in 10 s idle", own.wakeups, peer.wakeups, "");
    }
    Ok(())
}

fn cost(scene: &mut Scene, way: &Way) -> Result<Cost> {
    eprintln!("bench: {SERVICES} services under {}", way.name);
    let node = Node {
        boot: Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(way.initramfs.clone()) },
        nics: Vec::new(),
        settings: Vec::new(),
        ..Node::default().with_probe()
    };
    let mut machine = scene.start(&node)?;
    let handover = machine.wait_for_serial("Run /init as init process", SOON)?;
    let handover = kernel_time(&handover).context("the kernel's line has a time")?;
    machine.probe()?;
    let mut last = 0;
    for number in 0..SERVICES {
        last = last.max(started(&mut machine, &name(number))?);
    }
    let up_ms = float(last) / 1e6 - handover * 1000.0;
    // What starting left behind settles.
    std::thread::sleep(Duration::from_secs(3));
    let part = |process: &serde_json::Value| {
        process["name"].as_str().is_some_and(|name| way.processes.contains(&name))
    };
    let processes = machine.probe()?.processes()?;
    let memory =
        processes.iter().filter(|p| part(p)).filter_map(|p| p["pss"].as_u64()).sum::<u64>();
    ensure!(memory > 0, "{} has no process", way.name);
    let pids: Vec<u64> =
        processes.iter().filter(|p| part(p)).filter_map(|p| p["pid"].as_u64()).collect();
    let before = switches(&mut machine, &pids)?;
    std::thread::sleep(IDLE);
    let wakeups = float(switches(&mut machine, &pids)?.saturating_sub(before));
    let mut restarts = Vec::new();
    for number in 0..KILLS {
        let micros = machine.probe()?.relive(&name(number))?;
        restarts.push(float(micros) / 1000.0);
    }
    machine.probe()?.run(&["/bin/zos-probe".into(), "go".into()])?;
    let millis = note(&mut machine, "shout")?.trim().parse::<u64>().context("read its note")?;
    let log_mib_s = float(SHOUT_MIB as u64) * 1000.0 / float(millis.max(1));
    machine.cut_power()?;
    Ok(Cost { up_ms, memory: memory << 10, restart_ms: median(restarts), wakeups, log_mib_s })
}

/// Seconds of a line of the kernel: `[    2.034567] Run ...`.
fn kernel_time(line: &str) -> Option<f64> {
    line.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()
}

/// When a service started, nanoseconds of `CLOCK_BOOTTIME`.
fn started(machine: &mut Machine, name: &str) -> Result<u64> {
    let note = note(machine, name)?;
    let time = note.split(' ').nth(1).with_context(|| format!("{name} notes no time: {note}"))?;
    time.trim().parse().context("read its time")
}

/// A service's note, once it is there.
fn note(machine: &mut Machine, name: &str) -> Result<String> {
    let end = std::time::Instant::now() + SOON;
    loop {
        match machine.probe()?.read(&format!("/run/bench/{name}")) {
            Ok(text) if !text.is_empty() => return Ok(text),
            Err(error) if std::time::Instant::now() > end => return Err(error),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// How often these processes went to sleep and woke, or were made to wait.
fn switches(machine: &mut Machine, pids: &[u64]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = machine.probe()?.read(&format!("/proc/{pid}/status"))?;
        let fields = status.lines().filter(|line| line.contains("_ctxt_switches:"));
        let counts = fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        sum += counts.sum::<u64>();
    }
    Ok(sum)
}

fn name(number: usize) -> String {
    format!("s{number:03}")
}

/// Every service with its words.
fn services() -> impl Iterator<Item = (String, String)> {
    let sleepers = (0..SERVICES).map(name).map(|name| {
        let words = format!("/bin/zos-probe stamp {name}");
        (name, words)
    });
    sleepers.chain([("shout".to_owned(), format!("/bin/zos-probe shout {SHOUT_MIB}"))])
}

fn pack_ours(target: &Path) -> Result<()> {
    let mut archive = base();
    let init = std::fs::read(programs::init()?).context("read zos-init")?;
    archive.add("init", Mode::Program, &init);
    archive.add("etc/zos", Mode::Dir, &[]);
    archive.add("etc/zos/units", Mode::Dir, &[]);
    for (name, words) in services() {
        let exec: Vec<String> = words.split(' ').map(|word| format!("{word:?}")).collect();
        // The peers have no delay for a service that ran for a second.
        let unit = format!(
            "exec = [{}]\nuser = \"root\"\nbackoff = {{ first = \"1ms\", longest = \"1s\" }}\n",
            exec.join(", ")
        );
        archive.add(&format!("etc/zos/units/{name}.toml"), Mode::File, unit.as_bytes());
    }
    write(target, archive)
}

fn pack_peer(way: &Way, init: &str, logger: &str) -> Result<()> {
    let tree = peers::tree()?;
    let mut archive = base();
    let own = std::fs::read(programs::probe()?).context("read the probe")?;
    archive.add("init", Mode::Program, &own);
    archive.add("usr", Mode::Dir, &[]);
    archive.add("usr/bin", Mode::Dir, &[]);
    archive.add("lib64", Mode::Dir, &[]);
    archive.add("lib", Mode::Dir, &[]);
    let programs: Vec<PathBuf> =
        way.processes.iter().map(|name| tree.join("usr/bin").join(name)).collect();
    for program in &programs {
        let bytes =
            std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
        let name = program.file_name().and_then(|n| n.to_str()).context("a file has a name")?;
        archive.add(&format!("usr/bin/{name}"), Mode::Program, &bytes);
    }
    for library in elf::closure(&programs, std::slice::from_ref(&tree), Arch::X86_64)? {
        let bytes = std::fs::read(&library.source).context("read a library")?;
        archive.add(library.target.trim_start_matches('/'), Mode::Program, &bytes);
    }
    archive.add("bench", Mode::Dir, &[]);
    archive.add("bench/init", Mode::File, init.as_bytes());
    archive.add("service", Mode::Dir, &[]);
    for (name, words) in services().chain([("probe".into(), "/bin/zos-probe".into())]) {
        archive.add(&format!("service/{name}"), Mode::Dir, &[]);
        archive.add(&format!("service/{name}/exec"), Mode::File, words.as_bytes());
        archive.add(&format!("service/{name}/log"), Mode::Dir, &[]);
        let logger = format!("{logger}{name}");
        archive.add(&format!("service/{name}/log/exec"), Mode::File, logger.as_bytes());
    }
    write(&way.initramfs, archive)
}

/// Mount points and folders.
fn base() -> Archive {
    let mut archive = Archive::new();
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "state"] {
        archive.add(dir, Mode::Dir, &[]);
    }
    archive
}

fn write(target: &Path, archive: Archive) -> Result<()> {
    std::fs::write(target, archive.finish()).with_context(|| format!("write {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_is_read() {
        assert_eq!(kernel_time("[    2.034567] Run /init as init process"), Some(2.034_567));
        assert_eq!(kernel_time("Run /init"), None);
    }
}
