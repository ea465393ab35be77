//! Waiting without a runtime: epoll, and signals and a timer as descriptors.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{Context, Result};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Bytes, connections or an end to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Only to read.
    pub const READ: Self = Self { read: true, write: false };
    /// Both.
    pub const READ_WRITE: Self = Self { read: true, write: true };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        flags
    }
}

/// What happened, level-triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// The number given to [`Poll::add`].
    pub token: u64,
    /// Something to read, or an end or error that a read will tell.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Poll {
    epoll: Epoll,
}

impl Poll {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).during("create", "epoll")? })
    }

    /// Waits for `fd` from now on; events carry `token`. Closing the descriptor ends it.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        self.epoll.add(fd, EpollEvent::new(interest.flags(), token)).during("add to epoll", token)
    }

    /// Changes what is waited for.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        self.epoll
            .modify(fd, &mut EpollEvent::new(interest.flags(), token))
            .during("change in epoll", token)
    }

    /// Stops waiting for `fd`.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        self.epoll.delete(fd).during("remove from epoll", "descriptor")
    }

    /// Sleeps until something happens.
    pub fn wait(&self) -> Result<Vec<Happened>> {
        let mut events = [EpollEvent::empty(); 64];
        let count = loop {
            match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                done => break done.during("wait for", "events")?,
            }
        };
        let happened = events[..count].iter().map(|event| {
            let flags = event.events();
            let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
            Happened {
                token: event.data(),
                readable: flags.intersects(EpollFlags::EPOLLIN | ended),
                writable: flags.intersects(EpollFlags::EPOLLOUT | ended),
            }
        });
        Ok(happened.collect())
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Signals of this process, to be read instead of handled.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks these signals (numbers) in this thread and collects them. Call it before threads exist.
    pub fn take(signals: &[i32]) -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(Signal::try_from(*signal).during("take signal", signal)?);
        }
        set.thread_block().during("block", "signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { fd: SignalFd::with_flags(&set, flags).during("create", "signalfd")? })
    }

    /// The next signal's number that came, if any.
    pub fn signal(&self) -> Result<Option<i32>> {
        let info = self.fd.read_signal().during("read", "signalfd")?;
        Ok(info.map(|info| info.ssi_signo.cast_signed()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One alarm on `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
}

impl Timer {
    /// Not set.
    pub fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self { fd: TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).during("create", "timer")? })
    }

    /// Rings at this time (milliseconds of `CLOCK_BOOTTIME`, see [`crate::clock`]); a past time rings at once;
    /// `None`: never.
    pub fn set(&self, at: Option<u64>) -> Result<()> {
        match at {
            None => self.fd.unset().during("unset", "timer"),
            Some(millis) => {
                // A time of zero would unset it.
                let at = std::time::Duration::from_millis(millis.max(1));
                let at = Expiration::OneShot(TimeSpec::from_duration(at));
                self.fd.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).during("set", "timer")
            }
        }
    }

    /// Takes the ring, so that the descriptor isn't readable any more.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read means that it didn't ring, which is as well.
        let _ = rustix::io::read(&self.fd, &mut count);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
