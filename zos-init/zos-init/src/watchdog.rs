//! The machine's watchdog in PID 1's hands.
//!
//! ```text
//!  loop turns, nobody missed ─▶ fed every third of its time
//!  loop hangs ────────────────▶ silence ─▶ the machine is reset
//!  a unit that it watches has failed ─▶ not fed, said once ─▶ the same
//!  way down ─▶ more time, still armed ─▶ disarmed right before power-off; armed into a reboot
//! ```
//! Food comes from the loop's own timer, so a loop that hangs can't go on feeding.

use serde::Serialize;
use zos_host::kmsg::Level;
use zos_host::watchdog::{self, Watchdog};
use zos_host::{Result, SysRoot};

use crate::log;
use crate::supervise::Millis;

/// Seconds until it fires, unless `zos.watchdog` says otherwise.
pub(crate) const TIMEOUT: u32 = 30;
/// The same for the kernel's own way down, which waits for disks to write their caches.
const TIMEOUT_DOWN: u32 = 120;
/// What a farmer may say, seconds: a busy machine must be able to keep it, and a hung one should not stay so.
const BOUNDS: std::ops::RangeInclusive<u32> = 10..=600;

/// What `zos.watchdog` says: the seconds until it fires; none: it isn't used.
pub(crate) fn setting(text: Option<&str>) -> Result<Option<u32>, String> {
    match text {
        None => Ok(Some(TIMEOUT)),
        Some("off") => Ok(None),
        Some(text) => match text.parse() {
            Ok(seconds) if BOUNDS.contains(&seconds) => Ok(Some(seconds)),
            _ => Err(format!(
                "zos.watchdog={text} is neither `off` nor {} to {} seconds; it is {TIMEOUT} s",
                BOUNDS.start(),
                BOUNDS.end()
            )),
        },
    }
}

/// When to feed. Pure: the clock comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meals {
    every: Millis,
    next: Millis,
    starving: bool,
}

/// What a look at the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    Feed,
    /// It will fire unless this unit heals; said once.
    Starve,
    /// It is fed, and all is well again.
    Resume,
}

impl Meals {
    fn new(now: Millis, timeout: u32) -> Self {
        // A third: two meals may be late.
        Self { every: Millis::from(timeout.max(3)) * 1000 / 3, next: now, starving: false }
    }

    fn look(&mut self, now: Millis, well: bool) -> Step {
        if now < self.next {
            return Step::Nothing;
        }
        self.next = now + self.every;
        match (well, std::mem::replace(&mut self.starving, !well)) {
            (true, false) => Step::Feed,
            (true, true) => Step::Resume,
            (false, false) => Step::Starve,
            (false, true) => Step::Nothing,
        }
    }
}

/// What `Describe` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    identity: String,
    timeout: u32,
    hardware: bool,
}

/// An armed watchdog.
#[derive(Debug)]
pub(crate) struct Guard {
    device: Watchdog,
    shown: Shown,
    meals: Meals,
}

impl Guard {
    /// Arms the best watchdog of the machine; none where it has none.
    pub(crate) fn arm(now: Millis, seconds: u32) -> Result<Option<Self>> {
        let found = watchdog::list(&SysRoot::host());
        let Some(best) = watchdog::best(&found) else { return Ok(None) };
        let device = Watchdog::open(best)?;
        // One that has a fixed time is still better than none.
        let timeout = device.set_timeout(seconds).or_else(|_| device.timeout()).unwrap_or(seconds);
        device.feed()?;
        let shown = Shown { identity: best.identity.clone(), timeout, hardware: best.hardware() };
        let what = if shown.hardware { "" } else { " (the kernel's own)" };
        log::line(Level::Notice, &format!("watchdog {}{what}: {timeout} s", shown.identity));
        Ok(Some(Self { device, meals: Meals::new(now, timeout), shown }))
    }

    /// Feeds it when that is due, unless somebody is missed.
    pub(crate) fn tend(&mut self, now: Millis, missed: Option<&str>) {
        let step = self.meals.look(now, missed.is_none());
        let unit = missed.unwrap_or_default();
        match step {
            Step::Nothing => return,
            Step::Feed => {}
            Step::Resume => log::line(Level::Notice, "the watchdog is fed again"),
            Step::Starve => {
                let text = format!(
                    "{unit} has failed: the watchdog is fed no more, and resets the machine in {} s",
                    self.shown.timeout
                );
                log::line(Level::Critical, &text);
                return;
            }
        }
        self.feed();
    }

    /// When [`Guard::tend`] is due.
    pub(crate) fn next_time(&self) -> Millis {
        self.meals.next
    }

    /// Feeds it now.
    pub(crate) fn feed(&self) {
        if let Err(error) = self.device.feed() {
            log::line(Level::Warning, &error.line());
        }
    }

    /// How often it must be fed.
    pub(crate) fn period(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.meals.every)
    }

    /// The machine goes down: the kernel's part of it gets more time, and no more than that.
    pub(crate) fn lengthen(&mut self) {
        if let Ok(seconds) = self.device.set_timeout(self.shown.timeout.max(TIMEOUT_DOWN)) {
            self.shown.timeout = seconds;
        }
        self.feed();
    }

    /// Stops it: the machine will be off, or stand still.
    pub(crate) fn disarm(self) {
        if let Err(error) = self.device.disarm() {
            log::line(Level::Warning, &error.line());
        }
    }

    /// What `Describe` shows.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        for (text, expect) in [
            (None, Ok(Some(30))),
            (Some("off"), Ok(None)),
            (Some("60"), Ok(Some(60))),
            (Some("5"), Err(())),
            (Some("601"), Err(())),
            (Some("soon"), Err(())),
        ] {
            assert_eq!(setting(text).map_err(|_| ()), expect, "{text:?}");
        }
    }

    #[test]
    fn fed_by_thirds_and_never_while_somebody_is_missed() {
        let mut meals = Meals::new(1000, 30);
        for (now, well, expect) in [
            (1000, true, Step::Feed),
            (5000, true, Step::Nothing),
            (11_000, true, Step::Feed),
            (12_000, false, Step::Nothing),
            (21_000, false, Step::Starve),
            (31_000, false, Step::Nothing),
            // Healed in time.
            (41_000, true, Step::Resume),
            (51_000, true, Step::Feed),
        ] {
            assert_eq!(meals.look(now, well), expect, "at {now}");
        }
        assert_eq!(meals.next, 61_000);
    }
}
