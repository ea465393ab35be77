//! The machine: runs the VMM as a developer would, and tells how each VM ended.

use crate::{ANSWER, ANSWER_AT, QUESTION, told};
use anyhow::{Context as _, Result, bail};
use rustix::system::RebootCommand;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

const DISK: &str = "/disk.img";
const DISK_BYTES: u64 = 16 << 20;

pub(crate) fn run() -> Result<RebootCommand> {
    let console = told("console")?;
    for vm in told("inside")?.split(',') {
        let parts: Vec<&str> = vm.split(':').collect();
        let [kernel, cpus, end] = parts[..] else { bail!("a VM is told as KERNEL:CPUS:END") };
        let disk = File::options().read(true).write(true).create(true).truncate(true).open(DISK);
        let disk = disk.context("make the disk")?;
        disk.set_len(DISK_BYTES).context("size the disk")?;
        disk.write_all_at(QUESTION, 0).context("write the disk")?;
        let status = Command::new("/zos-vmm")
            .args([
                "--kernel",
                &format!("/kernels/{kernel}"),
                "--initramfs",
                "/inner.img",
                "--memory",
                "256MiB",
            ])
            .args(["--cpus", cpus, "--disk", &format!("path={DISK},serial=inner")])
            .args(["--cmdline", &format!("console={console} panic=-1 quiet inside={end}")])
            .status()
            .context("start zos-vmm")?;
        let mut found = [0; ANSWER.len()];
        disk.read_exact_at(&mut found, ANSWER_AT).context("read the disk")?;
        let answered = found == *ANSWER;
        println!(
            "inside: vm kernel={kernel} told={end} exit={:?} answered={answered}",
            status.code()
        );
    }
    println!("inside: done");
    Ok(RebootCommand::PowerOff)
}
