//! How a unit that is ready is watched, for as long as it runs.
//!
//! ```text
//!  pings    ──▶ by: each ping moves it on ── silence ─▶ Silent
//!
//!  check    Resting ── every ─▶ Checking ── ended ──────────────────────────▶ Resting (well: no failures)
//!              ▲                   │ timeout: killed, a failure                  │ failures in a row
//!              └──── ended ──── Overdue ── every: one more failure ─▶ ...        └▶ Sick
//! ```

use super::{Millis, words};
use crate::unit::{Liveness, Rules};

/// When PID 1 itself is so late, the whole machine stood still, and nobody is to blame.
const LATE: Millis = 2_000;

/// What was promised when it started, and how that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pings: Option<Pings>,
    check: Option<Check>,
}

/// A ping is due by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pings {
    every: Millis,
    by: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    rules: Liveness,
    /// In a row.
    failures: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next begins at this time.
    Resting(Millis),
    /// One runs, and has until this time.
    Checking(Millis),
    /// It took too long and was killed; if it hasn't ended by this time, that is the next failure.
    Overdue(Millis),
}

/// What is to be done about a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Run the check.
    Check,
    /// Kill the check.
    EndCheck,
    /// It says nothing any more.
    Silent(String),
    /// Its check fails.
    Sick(String),
}

impl Watch {
    /// From its readiness on.
    pub(super) fn new(now: Millis, rules: &Rules) -> Self {
        Self {
            pings: rules.watchdog.map(|every| Pings { every, by: now + every }),
            check: rules.liveness.map(|rules| Check {
                rules,
                failures: 0,
                phase: Phase::Resting(now + rules.every),
            }),
        }
    }

    /// It lives.
    pub(super) fn pinged(&mut self, now: Millis) {
        if let Some(pings) = &mut self.pings {
            pings.by = now + pings.every;
        }
    }

    /// A check has ended; `failed`: why it has failed, if so. Gives a cause to stop the unit.
    pub(super) fn checked(&mut self, now: Millis, failed: Option<String>) -> Option<String> {
        let check = self.check.as_mut()?;
        let rested = Phase::Resting(now + check.rules.every);
        match std::mem::replace(&mut check.phase, rested) {
            // Nobody asked.
            phase @ Phase::Resting(_) => {
                check.phase = phase;
                None
            }
            // Its failure was counted when its time was over.
            Phase::Overdue(_) => None,
            Phase::Checking(_) => match failed {
                Some(why) => check.fail(&why),
                None => {
                    check.failures = 0;
                    None
                }
            },
        }
    }

    /// When [`Watch::on_time`] has something to do.
    pub(super) fn due(&self) -> Option<Millis> {
        let ping = self.pings.map(|pings| pings.by);
        let check = self.check.as_ref().map(|check| match check.phase {
            Phase::Resting(at) | Phase::Checking(at) | Phase::Overdue(at) => at,
        });
        [ping, check].into_iter().flatten().min()
    }

    /// One thing that is due, if any.
    pub(super) fn on_time(&mut self, now: Millis) -> Option<Verdict> {
        if let Some(pings) = self.pings.as_mut().filter(|pings| pings.by <= now) {
            if now < pings.by + LATE {
                return Some(Verdict::Silent(format!("silent for {}", words::span(pings.every))));
            }
            pings.by = now + pings.every;
        }
        let check = self.check.as_mut()?;
        match check.phase {
            Phase::Resting(at) if at <= now => {
                check.phase = Phase::Checking(now + check.rules.timeout);
                Some(Verdict::Check)
            }
            Phase::Checking(at) if at <= now => {
                check.phase = Phase::Overdue(now + check.rules.every);
                let why = format!("no answer in {}", words::span(check.rules.timeout));
                Some(check.fail(&why).map_or(Verdict::EndCheck, Verdict::Sick))
            }
            Phase::Overdue(at) if at <= now => {
                check.phase = Phase::Overdue(now + check.rules.every);
                check.fail("it hangs").map(Verdict::Sick)
            }
            _ => None,
        }
    }
}

impl Check {
    fn fail(&mut self, why: &str) -> Option<String> {
        self.failures += 1;
        let spent = self.failures >= self.rules.failures;
        spent.then(|| format!("its check failed {} times in a row: {why}", self.failures))
    }
}
