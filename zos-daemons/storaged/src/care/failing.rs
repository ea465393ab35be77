//! When a disk counts as failing: the rule alone.
//!
//! ```text
//!             10 points within a day, or the disk says so twice, or the kernel gave it up
//!   Good ──────────────────────────────────────────────────────────────────────▶ Failing
//!     ▲   a week without a point, or a whole scrub without a new error, and the disk says no more of it
//!     └───────────────────────────────────────────────────────────────────────────┘
//! ```
//! A cable that was touched gives a burst and then nothing: that is why a day's errors count together, and why
//! what counted once is not forgotten the next hour. A failed write weighs most: the file system lost it.

use std::collections::VecDeque;
use std::time::Duration;

use zos_types::disk::{Health, Verdict};

use super::look::Errors;

/// How long an error counts.
pub const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// A disk that counted as failing is well again after so long without an error.
pub const HEALED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Points within the window that make a disk a failing one.
pub const LIMIT: u64 = 10;

/// What speaks against a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// Errors that the file system counted since the last look.
    Errors(Errors),
    /// Commands that the kernel gave up since then.
    Timeouts(u64),
    /// Whether the kernel stopped to use it.
    Offline(bool),
    /// What it says of itself.
    Says(Health),
    /// It does not answer when it is asked how it is; why.
    Silent(String),
}

/// What is known against one disk.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Points and what they are for, with when they were given.
    points: VecDeque<(Duration, u64, String)>,
    last: Option<Duration>,
    offline: bool,
    /// How often in a row it said that it fails.
    confessed: u32,
    said: Option<Health>,
    failing: bool,
    /// Why it counts as failing, kept for as long as it does.
    reasons: Vec<String>,
}

impl History {
    /// The history of a disk that counted as failing in an earlier run, for these reasons.
    pub fn failing_since_before(now: Duration, reasons: Vec<String>) -> Self {
        Self { failing: true, last: Some(now), reasons, ..Self::default() }
    }

    /// Takes in what happened; true: whether it counts as failing has changed.
    pub fn take(&mut self, now: Duration, evidence: Evidence) -> bool {
        match evidence {
            Evidence::Errors(errors) => {
                let rows = [
                    (errors.write, 5, "writes failed"),
                    (errors.flush, 5, "flushes failed"),
                    (errors.read, 2, "reads failed"),
                    (errors.corruption, 1, "blocks came back changed"),
                ];
                for (count, weight, what) in rows.into_iter().filter(|(count, ..)| *count > 0) {
                    self.give(now, count.saturating_mul(weight), format!("{count} {what}"));
                }
            }
            Evidence::Timeouts(0) => {}
            Evidence::Timeouts(count) => {
                self.give(now, count.saturating_mul(3), format!("{count} commands timed out"));
            }
            Evidence::Offline(offline) => {
                self.offline = offline;
                if offline {
                    self.last = Some(now);
                }
            }
            Evidence::Says(health) => self.hear(now, health),
            // One that never said anything may have nothing to say it with.
            Evidence::Silent(why) => {
                if self.said.as_ref().is_some_and(|said| said.verdict != Verdict::Unknown) {
                    self.give(now, 1, why);
                }
            }
        }
        self.judge(now)
    }

    /// Time passed, or nothing new was found: an old error may count no more.
    pub fn judge(&mut self, now: Duration) -> bool {
        while self.points.front().is_some_and(|(at, ..)| now.saturating_sub(*at) > WINDOW) {
            self.points.pop_front();
        }
        let reasons = self.grave();
        let before = self.failing;
        if !reasons.is_empty() {
            (self.failing, self.reasons) = (true, reasons);
        } else if self.failing && self.confessed == 0 {
            let quiet = self.last.is_none_or(|last| now.saturating_sub(last) >= HEALED);
            self.failing = !quiet;
        }
        before != self.failing
    }

    /// All that has checksums was read, from then on, without a new error.
    pub fn scrubbed_well(&mut self, now: Duration, since: Duration) -> bool {
        if self.last.is_none_or(|last| last < since) {
            self.points.clear();
            self.last = None;
        }
        self.judge(now)
    }

    /// Whether it counts as failing.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Whether it should be asked again soon.
    pub fn is_doubtful(&self) -> bool {
        !self.failing && self.confessed > 0
    }

    /// The disk's health: what it says, and what was seen.
    pub fn health(&self) -> Option<Health> {
        let seen = match (self.failing, self.points.is_empty()) {
            (true, _) => Verdict::Failing,
            (false, false) => Verdict::Warning,
            (false, true) => Verdict::Unknown,
        };
        let mut health =
            self.said.clone().or((seen != Verdict::Unknown).then(super::smart::unknown))?;
        if seen != Verdict::Unknown {
            health.verdict = health.verdict.max(seen);
            let seen = if self.failing { self.reasons.clone() } else { self.counted() };
            for reason in seen {
                if !health.reasons.contains(&reason) {
                    health.reasons.push(reason);
                }
            }
        }
        Some(health)
    }

    fn give(&mut self, now: Duration, points: u64, what: String) {
        self.last = Some(now);
        self.points.push_back((now, points, what));
        // A disk that dies slowly is known by fewer.
        if self.points.len() > 64 {
            self.points.pop_front();
        }
    }

    fn hear(&mut self, now: Duration, health: Health) {
        if health.standby {
            // It sleeps, and is what it was.
            let said = self.said.get_or_insert_with(super::smart::unknown);
            said.standby = true;
            return;
        }
        let lost = |health: &Health| health.media_errors;
        if let (Some(before), Some(after)) = (self.said.as_ref().and_then(lost), lost(&health))
            && after > before
        {
            let more = after - before;
            self.give(now, more.saturating_mul(2), format!("{more} more blocks were lost"));
        }
        if health.verdict == Verdict::Failing {
            self.confessed = self.confessed.saturating_add(1);
            self.last = Some(now);
        } else {
            self.confessed = 0;
        }
        self.said = Some(health);
    }

    /// The motor runs again.
    pub fn woke(&mut self) {
        if let Some(said) = &mut self.said {
            said.standby = false;
        }
    }

    /// The motor was stopped.
    pub fn rests(&mut self) {
        self.said.get_or_insert_with(super::smart::unknown).standby = true;
    }

    /// Why the disk fails, for what is known now; empty when it doesn't.
    fn grave(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.offline {
            reasons.push("the kernel stopped to use it".to_owned());
        }
        if self.confessed >= 2 {
            let said = self.said.as_ref().map(|said| said.reasons.clone());
            reasons.extend(said.unwrap_or_default());
        }
        let points = self.points.iter().map(|(_, points, _)| *points);
        if points.fold(0, u64::saturating_add) >= LIMIT {
            reasons.extend(self.counted());
        }
        reasons
    }

    /// What was counted within the window, the newest few.
    fn counted(&self) -> Vec<String> {
        let mut counted: Vec<String> =
            self.points.iter().rev().take(4).map(|(_, _, what)| what.clone()).collect();
        counted.reverse();
        counted.dedup();
        counted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn at(hours: u64) -> Duration {
        Duration::from_secs(hours * HOUR)
    }

    fn says(verdict: Verdict, media_errors: Option<u64>) -> Evidence {
        let reasons =
            if verdict == Verdict::Failing { vec!["it fails".to_owned()] } else { vec![] };
        Evidence::Says(Health { verdict, reasons, media_errors, ..super::super::smart::unknown() })
    }

    fn errors(read: u64, write: u64, corruption: u64) -> Evidence {
        Evidence::Errors(Errors { read, write, corruption, ..Errors::default() })
    }

    #[test]
    fn what_makes_a_disk_a_failing_one_and_a_good_one_again() {
        use Verdict::{Failing, Good};
        // hour and what happened; whether it fails then
        type Row = (&'static str, Vec<(u64, Evidence, bool)>);
        let rows: Vec<Row> = vec![
            (
                "one bad read in a while",
                (0..50).map(|i| (i * 25, errors(4, 0, 0), false)).collect(),
            ),
            ("many in a day", vec![(0, errors(3, 0, 0), false), (20, errors(2, 0, 0), true)]),
            ("two writes", vec![(0, errors(0, 1, 0), false), (1, errors(0, 1, 0), true)]),
            (
                "bit rot weighs little",
                vec![(0, errors(0, 0, 9), false), (1, errors(0, 0, 1), true)],
            ),
            (
                "timeouts",
                vec![
                    (0, Evidence::Timeouts(3), false),
                    (1, Evidence::Timeouts(0), false),
                    (2, Evidence::Timeouts(1), true),
                ],
            ),
            (
                "it says so once",
                vec![(0, says(Failing, None), false), (1, says(Good, None), false)],
            ),
            (
                "it says so twice, and is good a week after the last time",
                vec![
                    (0, says(Failing, None), false),
                    (1, says(Failing, None), true),
                    (2, says(Good, None), true),
                    (168, says(Good, None), true),
                    (169, says(Good, None), false),
                ],
            ),
            (
                "what it counted before we came is not held against it",
                vec![
                    (0, says(Good, Some(500)), false),
                    (1, says(Good, Some(504)), false),
                    (2, says(Good, Some(505)), true),
                ],
            ),
            (
                "the kernel gave it up, and took it back",
                vec![
                    (0, Evidence::Offline(true), true),
                    (1, Evidence::Offline(false), true),
                    (168, Evidence::Offline(false), false),
                ],
            ),
            (
                "it answers no more",
                [(0, says(Good, None), false)]
                    .into_iter()
                    .chain((1..12).map(|i| (i, Evidence::Silent("no answer".into()), i >= 10)))
                    .collect(),
            ),
            (
                "it never answered",
                (0..99).map(|i| (i, Evidence::Silent("no answer".into()), false)).collect(),
            ),
        ];
        for (name, steps) in rows {
            let mut history = History::default();
            for (hour, evidence, expected) in steps {
                let before = history.is_failing();
                let changed = history.take(at(hour), evidence.clone());
                assert_eq!(history.is_failing(), expected, "{name}: {evidence:?} at {hour}");
                assert_eq!(changed, before != expected, "{name}: told of the change");
                let health = history.health();
                let fails = health.as_ref().is_some_and(|health| health.verdict == Failing);
                assert!(fails || !expected, "{name}: {health:?}");
                assert!(!expected || !health.unwrap().reasons.is_empty(), "{name}: a reason");
            }
        }
    }

    #[test]
    fn a_whole_scrub_without_an_error_clears_what_was_counted_but_not_what_the_disk_says() {
        let mut history = History::default();
        history.take(at(0), errors(0, 9, 0));
        assert!(history.is_failing());
        // An error came while it ran.
        assert!(!history.scrubbed_well(at(2), at(0)) && history.is_failing());
        assert!(history.scrubbed_well(at(3), at(1)) && !history.is_failing());
        history.take(at(4), says(Verdict::Failing, None));
        history.take(at(5), says(Verdict::Failing, None));
        assert!(!history.scrubbed_well(at(9), at(8)) && history.is_failing());
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut history = History::failing_since_before(at(0), vec!["2 writes failed".into()]);
        assert!(history.is_failing() && !history.judge(at(167)));
        assert_eq!(history.health().unwrap().reasons, ["2 writes failed"]);
        assert!(history.judge(at(168)) && !history.is_failing());
    }

    fn any_evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            (0..4u64, 0..2u64, 0..3u64).prop_map(|(r, w, c)| errors(r, w, c)),
            (0..2u64).prop_map(Evidence::Timeouts),
            any::<bool>().prop_map(Evidence::Offline),
            Just(says(Verdict::Good, Some(1))),
            Just(says(Verdict::Failing, None)),
        ]
    }

    proptest! {
        /// No flapping: once failing, always so for at least a week after the last sign of it.
        #[test]
        fn it_takes_a_week_to_be_trusted_again(
            steps in prop::collection::vec((0..60u64, any_evidence()), 1..60),
        ) {
            let (mut history, mut now, mut last_bad) = (History::default(), 0, 0);
            for (pause, evidence) in steps {
                now += pause;
                let bad = match &evidence {
                    Evidence::Errors(errors) => *errors != Errors::default(),
                    Evidence::Timeouts(count) => *count > 0,
                    Evidence::Offline(offline) => *offline,
                    Evidence::Says(health) => health.verdict == Verdict::Failing,
                    Evidence::Silent(_) => true,
                };
                let before = history.is_failing();
                history.take(at(now), evidence);
                if before && !history.is_failing() {
                    prop_assert!(now - last_bad >= 168, "{} after {}", now, last_bad);
                }
                if bad {
                    last_bad = now;
                }
            }
        }
    }
}
