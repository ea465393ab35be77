//! The two clocks: what time it is said to be, and how long the machine has run.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Clocks {
    /// Seconds since 1970 by the clock on the wall, which may be wrong and may jump.
    pub(crate) wall: i64,
    /// Milliseconds since the kernel's start (`CLOCK_BOOTTIME`), which never jump.
    pub(crate) boot_millis: u64,
}

impl Clocks {
    /// Whole seconds since the kernel's start.
    pub(crate) fn boot(self) -> i64 {
        i64::try_from(self.boot_millis / 1000).unwrap_or(i64::MAX)
    }
}

/// Reads both.
pub(crate) fn now() -> Clocks {
    let boot = clock_gettime(ClockId::Boottime);
    let millis = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    Clocks {
        wall: Timestamp::now().as_second(),
        boot_millis: u64::try_from(millis).unwrap_or_default(),
    }
}
