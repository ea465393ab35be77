//! The last steps, when every unit has stopped: what disks hold is written and let go, then the machine ends.
//!
//! ```text
//!  kill what is left ─▶ rounds of { unmount, remove mapped devices, detach loops } until nothing moves ─▶ sync ─▶ off
//! ```

use std::path::Path;
use std::time::Duration;

use zos_host::kmsg::Level;
use zos_host::mount::{self, MountFlags, UnmountFlags};
use zos_host::power::{self, End};
use zos_host::{SysRoot, dm, loopdev, process};

use crate::{emergency, log};

/// Devices may hold file systems that hold devices: so many rounds take the deepest stack apart.
const ROUNDS: usize = 8;

/// Ends the machine. Never returns.
pub(crate) fn finish(end: End) -> ! {
    log::line(Level::Notice, "all units have stopped");
    // Only strays can be left: processes outside of every unit's cgroup.
    process::kill_everything();
    power::sync();
    let mut left = usize::MAX;
    for _ in 0..ROUNDS {
        let now = release();
        if now == 0 || now >= left {
            // One more moment for what was killed just now.
            if now == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        left = now;
    }
    for target in disk_mounts() {
        log::line(Level::Warning, &format!("{target} is still in use; it becomes read-only"));
        let _ = mount::remount(&target, MountFlags::RDONLY, "");
    }
    power::sync();
    let word = match end {
        End::Poweroff => "power off",
        End::Reboot => "reboot",
        End::Halt => "halt",
        End::Kexec => "the loaded kernel",
    };
    log::line(Level::Notice, &format!("disks are synced; {word}"));
    if let Err(error) = power::end(end) {
        emergency::reboot(&error.line());
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// One round; how many things are still held.
fn release() -> usize {
    let root = SysRoot::host();
    for target in disk_mounts() {
        let _ = mount::unmount(&target, UnmountFlags::empty());
    }
    let mut held = disk_mounts().len();
    if let Ok(mapper) = dm::Dm::open() {
        for name in mapper.list().unwrap_or_default() {
            held += usize::from(mapper.remove(&name, false).is_err());
        }
    }
    for device in loopdev::list(&root).unwrap_or_default() {
        let _ = loopdev::detach(device.path());
    }
    held + loopdev::list(&root).map_or(0, |loops| loops.len())
}

/// Mount points of file systems that lie on devices (or under /state), the last mounted first.
fn disk_mounts() -> Vec<String> {
    let mounts = mount::list(&SysRoot::host()).unwrap_or_default();
    mounts
        .into_iter()
        .rev()
        .filter(|mount| mount.target != Path::new("/"))
        .filter(|mount| mount.source.starts_with("/dev/") || mount.target.starts_with("/state"))
        .map(|mount| mount.target.to_string_lossy().into_owned())
        .collect()
}
