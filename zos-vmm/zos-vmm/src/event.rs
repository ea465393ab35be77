//! An eventfd: how threads, KVM and devices wake each other.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A counter that wakes whoever waits for it to be above zero.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// One at zero.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Self)
    }

    /// Wakes.
    pub fn signal(&self) {
        // Only a counter at its end refuses, and then nobody sleeps.
        let _ = self.0.write(1);
    }

    /// Back to zero; tells whether it was above.
    pub fn clear(&self) -> bool {
        self.0.read().is_ok()
    }

    /// As KVM's calls want it.
    #[must_use]
    pub fn as_eventfd(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self`, whose lifetime the result has.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
