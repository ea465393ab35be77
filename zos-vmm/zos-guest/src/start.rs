//! The first milliseconds: file systems, console, the word to the hypervisor.

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::os::unix::fs::FileExt;

/// The debug port of the hypervisor, and the value that says "init runs".
const DEBUG_PORT: u64 = 0x80;
const INIT_RUNS: u8 = 0x60;

/// Mounts /proc, /sys, /dev and /run; what can't be mounted is missing in the report.
pub(crate) fn mount_all() {
    let locked = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (source, target, kind, flags) in [
        ("proc", "/proc", "proc", locked),
        ("sysfs", "/sys", "sysfs", locked),
        ("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV),
    ] {
        let _ = fs::create_dir_all(target);
        let _ = mount(source, target, kind, flags, None);
    }
    let _ = fs::create_dir_all("/etc");
}

/// Makes /dev/console our stdin, stdout and stderr: an initramfs need not have the node.
pub(crate) fn open_console() {
    let Ok(console) = open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()) else {
        return;
    };
    let _ = rustix::stdio::dup2_stdin(&console);
    let _ = rustix::stdio::dup2_stdout(&console);
    let _ = rustix::stdio::dup2_stderr(&console);
}

/// Tells the hypervisor that init runs; one that doesn't listen doesn't mind.
pub(crate) fn tell_hypervisor() {
    // The file's offset is the port's number. No iopl is needed, which our guest kernel lacks.
    if let Ok(ports) = fs::File::options().write(true).open("/dev/port") {
        let _ = ports.write_at(&[INIT_RUNS], DEBUG_PORT);
    }
}
