//! zos-inside: PID 1 of a bare machine, and of the VM that zos-vmm runs in it.
//!
//! ```text
//!  /zos-vmm is there ─▶ outer: a disk; a VM that powers off, one that reboots; what each did ─▶ off
//!  it isn't          ─▶ inner: the disk's driver, a look around, a mark on the disk, the end it was told
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
    let Err(error) = reboot(end) else { return };
    println!("inside: failed: {end:?}: {error}");
}

fn prepare() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        std::fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {target}"))?;
    }
    Ok(())
}
