//! What of a unit's log goes on to the kernel log: warnings and worse, and no flood of them.

use zos_host::kmsg::Level;

use super::Rules;
use crate::supervise::Millis;

/// Milliseconds between two lines that tell how many were left out.
const TOLD: Millis = 5_000;

/// The way of one unit's lines to the kernel log.
#[derive(Debug)]
pub(super) struct Mirror {
    all: bool,
    burst: u64,
    rate: u64,
    /// Thousandths of lines that may still go now.
    allowance: u64,
    last: Millis,
    dropped: u64,
    /// When the number of those left out was told the last time.
    told: Millis,
}

impl Mirror {
    pub(super) fn new(now: Millis, burst: u64) -> Self {
        let allowance = burst.saturating_mul(1000);
        Self { all: false, burst, rate: 0, allowance, last: now, dropped: 0, told: now }
    }

    /// Goes by these rules from now on; a unit that is started again has no new burst.
    pub(super) fn follow(&mut self, rules: &Rules) {
        (self.all, self.burst, self.rate) = (rules.console, rules.burst, rules.rate);
    }

    /// Hands a line on, if it is urgent enough and not too many came before it.
    pub(super) fn line(
        &mut self,
        now: Millis,
        level: Level,
        text: &str,
        kernel: &mut dyn FnMut(Level, &str),
    ) {
        if level > Level::Warning && !self.all {
            return;
        }
        let gained = now.saturating_sub(self.last).saturating_mul(self.rate);
        let most = self.burst.saturating_mul(1000);
        self.allowance = self.allowance.saturating_add(gained).min(most);
        self.last = now;
        if self.allowance < 1000 {
            self.dropped += 1;
            return;
        }
        self.allowance -= 1000;
        if now >= self.told + TOLD {
            self.tell(now, kernel);
        }
        // A service can't shout over the kernel's own emergencies.
        kernel(level.max(Level::Critical), text);
    }

    /// Says how many lines were left out.
    pub(super) fn tell(&mut self, now: Millis, kernel: &mut dyn FnMut(Level, &str)) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.told = now;
            kernel(Level::Warning, &format!("({dropped} lines came too fast for the kernel log)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mirror: &mut Mirror, now: Millis, level: Level, lines: usize) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        for _ in 0..lines {
            mirror.line(now, level, "x", &mut |level, text| out.push((level, text.to_owned())));
        }
        out
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let mut mirror = Mirror::new(0, 200);
        mirror.follow(&Rules::SERVICE);
        assert_eq!(count(&mut mirror, 0, Level::Info, 1000), []);
        assert_eq!(count(&mut mirror, 0, Level::Warning, 1000).len(), 200);
        assert_eq!(count(&mut mirror, 100, Level::Error, 100).len(), 2);
        let later = count(&mut mirror, 5_000, Level::Warning, 100);
        assert_eq!(later[0].1, "(898 lines came too fast for the kernel log)");
        assert_eq!(later.len(), 1 + 98);
        let mut last = Vec::new();
        mirror.tell(5_001, &mut |level, text| last.push((level, text.to_owned())));
        let expect = "(2 lines came too fast for the kernel log)".to_owned();
        assert_eq!(last, [(Level::Warning, expect)]);
    }

    #[test]
    fn all_lines_where_the_unit_says_so_and_no_emergencies() {
        let mut mirror = Mirror::new(0, 10);
        mirror.follow(&Rules { console: true, ..Rules::SERVICE });
        assert_eq!(count(&mut mirror, 0, Level::Debug, 2).len(), 2);
        assert_eq!(count(&mut mirror, 0, Level::Emergency, 1)[0].0, Level::Critical);
        mirror.follow(&Rules { burst: 0, rate: 0, ..Rules::SERVICE });
        assert_eq!(count(&mut mirror, 1000, Level::Error, 5), []);
    }
}
