//! What a daemon tells PID 1: that it is ready, and then, if it is watched, that it is alive.
//!
//! ```text
//!  ready ── newline ──▶ ZOS_READY_FD          the first one: readiness
//!    └─ every third of ZOS_WATCHDOG_MS ─▶ …   each more: the runtime still turns
//! ```
//! The pings come from the runtime's own thread, so a daemon that blocks it stops pinging.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;

/// The pipe to PID 1, and how often it wants to hear.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// Kept open also without a watchdog: its end is PID 1's to see when this process has gone.
    pipe: Arc<File>,
    every: Option<Duration>,
}

impl Ready {
    /// Takes what PID 1 passed; none if it passed nothing.
    pub(crate) fn from_env() -> io::Result<Option<Self>> {
        let number = |key| std::env::var(key).ok().and_then(|text| text.parse::<u32>().ok());
        let Some(fd) = number("ZOS_READY_FD") else { return Ok(None) };
        let every = number("ZOS_WATCHDOG_MS").map(|ms| Duration::from_millis(ms.into()) / 3);
        Self::open(fd, every).map(Some)
    }

    /// A description of our own, closed on exec and never waited for: PID 1 may be slow, and a
    /// full pipe already says that we live.
    fn open(fd: u32, every: Option<Duration>) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let path = format!("/proc/self/fd/{fd}");
        let pipe = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        let every = every.filter(|every| !every.is_zero());
        // The one that was passed would go on to each child of ours, and keep the pipe open there.
        if let Ok(fd) = i32::try_from(fd) {
            nix::unistd::close(fd)?;
        }
        Ok(Self { pipe: Arc::new(pipe), every })
    }

    /// Says that the daemon is ready, and from then on that it is alive.
    pub(crate) fn tell(&self) {
        self.ping("tell readiness");
        let Some(every) = self.every else { return };
        let ready = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                ready.ping("feed PID 1's watchdog");
            }
        });
    }

    fn ping(&self, what: &str) {
        match self.pipe.as_ref().write(b"\n") {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                tracing::warn!("{what}: {error}");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;

    /// A pipe whose writing end is passed by number, as PID 1 does it.
    fn passed(every: Option<Duration>) -> (std::io::PipeReader, Ready) {
        let (reader, writer) = std::io::pipe().unwrap();
        let fd = OwnedFd::from(writer);
        let number = u32::try_from(fd.as_raw_fd()).unwrap();
        // Not dropped: `open` closes it by its number.
        std::mem::forget(fd);
        (reader, Ready::open(number, every).unwrap())
    }

    #[tokio::test]
    async fn readiness_is_one_newline_and_the_watchdog_is_fed_while_the_runtime_turns() {
        let (mut reader, ready) = passed(Some(Duration::from_millis(20)));
        ready.tell();
        // Blocked, as a daemon that hangs is: readiness is all that comes.
        std::thread::sleep(Duration::from_millis(100));
        let waiting = || rustix::io::ioctl_fionread(&reader).unwrap();
        assert_eq!(waiting(), 1);
        for _ in 0..500 {
            if waiting() >= 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut told = [0; 4];
        reader.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"\n\n\n\n");
    }

    #[tokio::test]
    async fn a_full_pipe_stops_nobody_and_without_a_watchdog_nothing_more_comes() {
        let (mut reader, ready) = passed(None);
        for _ in 0..70_000 {
            ready.ping("test");
        }
        let mut buffer = vec![0; 1 << 17];
        assert_eq!(reader.read(&mut buffer).unwrap(), 65_536);
        ready.tell();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
    }
}
