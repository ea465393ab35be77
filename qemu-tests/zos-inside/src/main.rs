//! zos-inside: PID 1 of a bare machine, and of the VM that zos-vmm runs in it.
//!
//! ```text
//!  /zos-vmm is there ─▶ outer: a disk for each VM of `inside=KERNEL:CPUS:END,..`; what it did ─▶ off
//!  it isn't          ─▶ inner: the disk's driver, a look around, a mark on the disk ─▶ `inside=END`
//! ```
//!
//! Each line for the test begins with `inside:`. No daemon of ours runs: this is the VMM alone.
#![forbid(unsafe_code)]

mod inner;
mod outer;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::path::Path;

/// What the outer one writes to the disk's start, and the inner one answers.
pub(crate) const QUESTION: &[u8; 16] = b"zos-inside asks?";
pub(crate) const ANSWER: &[u8; 16] = b"zos-inside knows";
/// Where the answer stands.
pub(crate) const ANSWER_AT: u64 = 8192;

fn main() {
    let is_outer = Path::new("/zos-vmm").exists();
    let done = prepare().and_then(|()| if is_outer { outer::run() } else { inner::run() });
    let end = done.unwrap_or_else(|error| {
        println!("inside: failed: {error:#}");
        RebootCommand::PowerOff
    });
    // The kernel's own last words shall not stand amid ours.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    let Err(error) = reboot(end) else { return };
    println!("inside: failed: {end:?}: {error}");
}

/// The value of a word `name=value` on the kernel's command line.
pub(crate) fn told(name: &str) -> Result<String> {
    let line = std::fs::read_to_string("/proc/cmdline").context("read the command line")?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(value.with_context(|| format!("the command line tells no {name}"))?.to_owned())
}

fn prepare() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        std::fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {target}"))?;
    }
    Ok(())
}
