//! SIGTERM and SIGINT as a descriptor.

use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// A signal that means something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// Both, blocked in this thread and those that it makes, and readable here.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks them; before any thread is made.
    pub(crate) fn block() -> nix::Result<Self> {
        let set = SigSet::from_iter([Number::SIGTERM, Number::SIGINT]);
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// The next one that came, if any.
    pub(crate) fn take(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        let is = |number: Number| u32::try_from(number as i32) == Ok(info.ssi_signo);
        if is(Number::SIGTERM) {
            Some(Signal::Terminate)
        } else {
            is(Number::SIGINT).then_some(Signal::Interrupt)
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
