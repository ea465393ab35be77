//! Clocks: `CLOCK_BOOTTIME` for windows and bills, the wall clock for people.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::error::{Context, Result};

/// Milliseconds since the kernel started, sleep included; never goes back.
#[must_use]
pub fn boottime_millis() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Seconds of the wall clock since 1970.
#[must_use]
pub fn wall_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// Sets the wall clock. Needs CAP_SYS_TIME.
pub fn set_wall_seconds(seconds: i64) -> Result<()> {
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 })
        .during("set", "wall clock")
}
