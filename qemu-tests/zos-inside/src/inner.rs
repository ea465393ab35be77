//! The VM: looks at CPUs, disk, interrupts and clock, and ends as its command line says.

use crate::{ANSWER, ANSWER_AT, QUESTION};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::system::{RebootCommand, finit_module};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

pub(crate) fn run() -> Result<RebootCommand> {
    let read = |path: &str| -> Result<String> {
        Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
    };
    let told = read("/proc/cmdline")?;
    let told = told.split(' ').find_map(|word| word.strip_prefix("inside="));
    let told = told.context("the command line tells no end")?.to_owned();

    // A distribution's kernel has it as a module; PCI's virtio is built in.
    if let Ok(module) = File::open("/virtio_blk.ko") {
        finit_module(&module, c"", 0).context("load virtio_blk")?;
    }
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
    let clock = if Path::new("/sys/class/rtc/rtc0").exists() {
        read("/sys/class/rtc/rtc0/since_epoch")?
    } else {
        "none".to_owned()
    };
    println!(
        "inside: guest cpus={cpus} disk={} serial={serial} interrupts={} clock={clock}",
        bytes * 512,
        controller.unwrap_or("none"),
    );
    match told.as_str() {
        "poweroff" => Ok(RebootCommand::PowerOff),
        "reboot" => Ok(RebootCommand::Restart),
        other => bail!("no end is called {other}"),
    }
}
