//! The VM: looks at CPUs, disk, interrupts and clock, and ends as its command line says.

use crate::{ANSWER, ANSWER_AT, QUESTION, told};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::system::{RebootCommand, finit_module};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn run() -> Result<RebootCommand> {
    let read = |path: &str| -> Result<String> {
        Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
    };
    let end = told("inside")?;

    // A distribution's kernel has it as a module; PCI's virtio is built in.
    // A kernel without modules has it built in, and refuses.
    let module = File::open("/virtio_blk.ko").context("open the module")?;
    let loaded = finit_module(&module, c"", 0);
    ensure!(matches!(loaded, Ok(()) | Err(Errno::NOSYS)), "load virtio_blk: {loaded:?}");
    let cpus = std::thread::available_parallelism().context("count the CPUs")?;
    let bytes: u64 = read("/sys/block/vda/size")?.parse().context("read the disk's size")?;
    let serial = read("/sys/block/vda/serial")?;
    let disk = File::options().read(true).write(true).open("/dev/vda").context("open the disk")?;
    let mut question = [0; QUESTION.len()];
    disk.read_exact_at(&mut question, 0).context("read the disk")?;
    ensure!(question == *QUESTION, "the disk holds something else: {question:?}");
    disk.write_all_at(ANSWER, ANSWER_AT).context("write the disk")?;
    disk.sync_all().context("flush the disk")?;

    let interrupts = read("/proc/interrupts")?;
    let disk_line = interrupts.lines().find(|line| line.contains("virtio") && line.contains("req"));
    let controller = disk_line.and_then(|line| line.split_whitespace().find(|w| w.contains("MSI")));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).context("ask the clock")?.as_secs();
    complaints()?;
    println!(
        "inside: guest cpus={cpus} disk={} serial={serial} interrupts={} clock={clock}",
        bytes * 512,
        controller.unwrap_or("none"),
    );
    match end.as_str() {
        "poweroff" => Ok(RebootCommand::PowerOff),
        "reboot" => Ok(RebootCommand::Restart),
        other => bail!("no end is called {other}"),
    }
}

/// What the kernel said at level "warning" or above: `priority,number,time,..;text`, a record a read.
fn complaints() -> Result<()> {
    const WARNING: u32 = 4;
    const LEVEL: u32 = 7;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let log = File::options().read(true).custom_flags(nonblocking).open("/dev/kmsg");
    let mut log = log.context("open the kernel's log")?;
    let mut record = [0; 8192];
    loop {
        let length = match log.read(&mut record) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A record was overwritten before it was read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
            Err(error) => return Err(error).context("read the kernel's log"),
        };
        let text = String::from_utf8_lossy(&record[..length]);
        let Some((head, said)) = text.split_once(';') else { continue };
        let priority: u32 = head.split(',').next().and_then(|p| p.parse().ok()).unwrap_or(0);
        if priority & LEVEL <= WARNING {
            println!("inside: complaint: {}", said.lines().next().unwrap_or_default());
        }
    }
}
