//! The two clocks: what time it is said to be, and how long the machine has run; and which boot this is.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Clocks {
    /// Milliseconds since 1970 by the clock on the wall, which may be wrong and may jump.
    pub(crate) wall_millis: i64,
    /// Milliseconds since the kernel's start (`CLOCK_BOOTTIME`), which never jump.
    pub(crate) boot_millis: u64,
}

impl Clocks {
    /// Whole seconds since 1970.
    pub(crate) fn wall(self) -> i64 {
        self.wall_millis.div_euclid(1000)
    }

    /// Whole seconds since the kernel's start.
    pub(crate) fn boot(self) -> i64 {
        i64::try_from(self.boot_millis / 1000).unwrap_or(i64::MAX)
    }

    /// What time it was so many milliseconds after the kernel's start, by the clock as it stands now.
    pub(crate) fn date(self, boot_millis: u64) -> Timestamp {
        let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let ago = signed(self.boot_millis).saturating_sub(signed(boot_millis));
        Timestamp::from_millisecond(self.wall_millis.saturating_sub(ago)).unwrap_or_default()
    }
}

/// Reads both.
pub(crate) fn now() -> Clocks {
    let boot = clock_gettime(ClockId::Boottime);
    let millis = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    Clocks {
        wall_millis: Timestamp::now().as_millisecond(),
        boot_millis: u64::try_from(millis).unwrap_or_default(),
    }
}

/// A word that each boot of a machine has for itself (random(4)). Without it this run of the API stands for the
/// boot.
pub(crate) fn boot_word() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let word: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    if word.is_empty() { crate::epoch::word() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_dated_by_the_clock_of_now() {
        let now = Clocks { wall_millis: 1_000_000, boot_millis: 5_000 };
        let check = |boot: u64, date: &str| assert_eq!(now.date(boot).to_string(), date);
        check(5_000, "1970-01-01T00:16:40Z");
        check(1_500, "1970-01-01T00:16:36.5Z");
        check(0, "1970-01-01T00:16:35Z");
        check(u64::MAX, "1970-01-01T00:00:00Z"); // no date: what PID 1 says is not trusted to be one
    }

    #[test]
    fn a_boot_has_one_word() {
        assert_eq!(boot_word().len(), 12);
        assert_eq!(boot_word(), boot_word());
    }
}
