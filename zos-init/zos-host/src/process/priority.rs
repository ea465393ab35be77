//! A thread's priority at disks (ioprio_set(2)).

use std::io;

use nix::libc;

const WHO_PROCESS: libc::c_long = 1;
const CLASS_IDLE: libc::c_long = 3 << 13;

/// From now on what the calling thread asks of disks waits for everybody else's, where the disk's scheduler
/// knows such a thing.
pub fn idle_at_disks() -> io::Result<()> {
    // SAFETY: the call takes three integers; 0 stands for the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0_i64, CLASS_IDLE) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_alone_becomes_idle() {
        // SAFETY: the call takes two integers.
        let class = || unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0_i64) } >> 13;
        let before = class();
        let inside = std::thread::spawn(move || {
            idle_at_disks().unwrap();
            class()
        });
        assert_eq!(inside.join().unwrap(), 3);
        assert_eq!(class(), before);
    }
}
