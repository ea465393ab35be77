//! The last steps, when every unit has stopped: what disks hold is written and let go, then the machine ends.
//!
//! ```text
//!             ┌ a thread of its own, 30 s ─────────────────────────────────────────────────────┐
//!  finish ──▶ │ kill what is left ─▶ rounds of { unmount, remove mapped devices, detach loops } │
//!             │                      until nothing moves ─▶ sync                               │
//!             └──┬──────────────────────────────────────────────────────────────────┬─────────┘
//!           done │                                                         time over │
//!                ▼                                                                   ▼
//!       mark `end`, reboot(2) ◀──────────────── mark `hung`: mounts, devices, processes
//! ```
//! The kernel may hang in any of these steps, on a disk that is gone. The one thread of PID 1 waits for them only so
//! long, and the watchdog stays armed for what hangs after it.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zos_host::kmsg::Level;
use zos_host::mount::{self, MountFlags, UnmountFlags};
use zos_host::power::{self, End};
use zos_host::{SysRoot, dm, loopdev, process};

use crate::evidence::{self, mark};
use crate::run::Ending;
use crate::watchdog::Guard;
use crate::{emergency, log};

/// Devices may hold file systems that hold devices: so many rounds take the deepest stack apart.
const ROUNDS: usize = 8;
/// For letting go of all disks.
const DEADLINE: Duration = Duration::from_secs(30);
/// For finding out what hangs; that may hang as well.
const LOOK: Duration = Duration::from_secs(2);
/// Names of one kind that are told.
const NAMES: usize = 16;

/// Ends the machine. Never returns.
pub(crate) fn finish(ending: Ending) -> ! {
    let Ending { end, mut hung, mut guard } = ending;
    let word =
        if hung.is_empty() { "all units have stopped" } else { "not all units have stopped" };
    log::line(Level::Notice, word);
    if let Some(guard) = &mut guard {
        guard.lengthen();
    }
    let synced = within(DEADLINE, guard.as_ref(), let_go).is_some();
    if !synced {
        let text = format!("disks did not let go within {} s; going on", DEADLINE.as_secs());
        log::line(Level::Error, &text);
        let found = within(LOOK, guard.as_ref(), || stuck(&SysRoot::host()));
        hung.extend(found.unwrap_or_else(|| vec!["what is not known".to_owned()]));
    }
    if !hung.is_empty() {
        let names = hung.join(", ");
        log::line(Level::Error, &format!("hung on the way down: {names}"));
        mark(&format!("hung {names}"));
    }
    mark(&format!("end {}", evidence::name(end)));
    let word = match end {
        End::Poweroff => "power off",
        End::Reboot => "reboot",
        End::Halt => "halt",
        End::Kexec => "the loaded kernel",
    };
    let synced = if synced { "disks are synced" } else { "disks are not synced" };
    log::line(Level::Notice, &format!("{synced}; {word}"));
    match (end, guard) {
        // Nobody would feed it, and it would switch the machine on again.
        (End::Poweroff | End::Halt, Some(guard)) => guard.disarm(),
        (End::Reboot | End::Kexec, Some(guard)) => {
            guard.feed();
            // Open for ever: the kernel would complain of a close that doesn't stop it.
            std::mem::forget(guard);
        }
        (_, None) => {}
    }
    if let Err(error) = power::end(end) {
        emergency::reboot(&error.line());
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Does a work in a thread and waits for it so long, and feeds the watchdog meanwhile. None: it isn't done yet, and its
/// thread is left behind.
fn within<T: Send + 'static>(limit: Duration, guard: Option<&Guard>, work: fn() -> T) -> Option<T> {
    let (done, waited) = mpsc::channel();
    let thread = std::thread::Builder::new().name("way-down".to_owned());
    if let Err(error) = thread.spawn(move || done.send(work())) {
        log::line(Level::Error, &format!("start a thread: {error}"));
        return Some(work());
    }
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let nap = guard.map_or(left, |guard| left.min(guard.period()));
        match waited.recv_timeout(nap) {
            Ok(result) => return Some(result),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) if nap == left => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(guard) = guard {
                    guard.feed();
                }
            }
        }
    }
}

/// Takes every disk from those who use it, and writes what is left.
fn let_go() {
    // Only strays can be left: processes outside of every unit's cgroup.
    process::kill_everything();
    power::sync();
    let mut left = usize::MAX;
    for _ in 0..ROUNDS {
        let now = release();
        if now == 0 {
            break;
        }
        if now >= left {
            // One more moment for what was killed just now.
            std::thread::sleep(Duration::from_millis(100));
        }
        left = now;
    }
    for target in disk_mounts(&SysRoot::host()) {
        log::line(Level::Warning, &format!("{target} is still in use; it becomes read-only"));
        let _ = mount::remount(&target, MountFlags::RDONLY, "");
    }
    power::sync();
}

/// One round; how many things are still held.
fn release() -> usize {
    let root = SysRoot::host();
    for target in disk_mounts(&root) {
        let _ = mount::unmount(&target, UnmountFlags::empty());
    }
    let mut held = disk_mounts(&root).len();
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
fn disk_mounts(root: &SysRoot) -> Vec<String> {
    let mounts = mount::list(root).unwrap_or_default();
    mounts
        .into_iter()
        .rev()
        .filter(|mount| mount.target != Path::new("/"))
        .filter(|mount| mount.source.starts_with("/dev/") || mount.target.starts_with("/state"))
        .map(|mount| mount.target.to_string_lossy().into_owned())
        .collect()
}

/// What is still held, and who waits for the kernel. Reads only what the kernel has in memory: a question to a disk would
/// hang as well.
fn stuck(root: &SysRoot) -> Vec<String> {
    let mut found = disk_mounts(root);
    for device in root.list("/sys/block").unwrap_or_default() {
        let name = root.attribute(format!("/sys/block/{device}/dm/name"));
        let file = root.attribute(format!("/sys/block/{device}/loop/backing_file"));
        found.extend(name.map(|name| format!("{device} ({name})")));
        found.extend(file.map(|file| format!("{device} ({file})")));
    }
    found.truncate(NAMES);
    let pids = root.list("/proc").unwrap_or_default();
    let numbers = pids.iter().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let waiting = numbers.filter_map(|pid| {
        let stat = root.read(format!("/proc/{pid}/stat")).ok()?;
        // 123 (a name) D 1 ...
        let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
        rest.starts_with('D').then(|| format!("process {pid} ({name})"))
    });
    found.extend(waiting.take(NAMES));
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_work_is_waited_for_only_so_long() {
        let limit = Duration::from_millis(50);
        assert_eq!(within(Duration::from_secs(10), None, || 7), Some(7));
        assert_eq!(within(limit, None, || std::thread::sleep(Duration::from_secs(5))), None);
    }

    #[test]
    fn what_is_stuck_has_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/self/mountinfo",
            "1 1 0:2 / / rw - rootfs none rw\n\
             36 1 98:0 /@state /state rw - btrfs /dev/vda1 rw\n\
             37 1 0:9 / /run rw - tmpfs run rw\n\
             38 1 98:0 / /run/zos/pools/a rw - btrfs /dev/vda1 rw\n",
        );
        write("proc/12/stat", "12 (kworker/0:1 (x)) D 2 0");
        write("proc/13/stat", "13 (zosd) S 1 0");
        write("sys/block/dm-0/dm/name", "zos-volume\n");
        write("sys/block/loop0/loop/backing_file", "/run/zos/pools/a/v\n");
        write("sys/block/vda/size", "1\n");
        assert_eq!(
            stuck(&SysRoot::at(dir.path())),
            [
                "/run/zos/pools/a",
                "/state",
                "dm-0 (zos-volume)",
                "loop0 (/run/zos/pools/a/v)",
                "process 12 (kworker/0:1 (x))",
            ]
        );
    }
}
