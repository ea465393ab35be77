//! Which steps are under way, which failed, and when they are due again. Time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zos_daemon::Backoff;

use crate::plan::{Key, Step};

/// Milliseconds on a clock that only goes forward.
pub type Millis = u64;

/// The most steps at once.
const AT_ONCE: usize = 8;
/// Between two tries of the same step.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// A step that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// How often in a row.
    failures: u32,
    /// When it is tried again.
    pub at: Millis,
    /// What went wrong.
    pub detail: String,
}

/// The steps under way and the failed ones, by workload: of one workload one step at a time.
#[derive(Clone, Default, Debug)]
pub struct Attempts {
    running: BTreeSet<Key>,
    trouble: BTreeMap<Key, Trouble>,
}

impl Attempts {
    /// Picks what may be begun now, and counts it as begun.
    pub fn begin(&mut self, now: Millis, steps: Vec<Step>) -> Vec<Step> {
        let mut begun = Vec::new();
        for step in steps {
            let key = step.key();
            let waits = self.trouble.get(key).is_some_and(|trouble| trouble.at > now);
            if !waits && self.running.len() < AT_ONCE && self.running.insert(key.clone()) {
                begun.push(step);
            }
        }
        begun
    }

    /// A step came to its end.
    pub fn end(&mut self, now: Millis, key: &Key, result: Result<(), String>) {
        self.running.remove(key);
        match result {
            Ok(()) => drop(self.trouble.remove(key)),
            Err(detail) => {
                let failures = self.trouble.get(key).map_or(0, |trouble| trouble.failures);
                let failures = failures.saturating_add(1);
                let pause = Millis::try_from(BACKOFF.pause(failures).as_millis());
                let pause = pause.unwrap_or(Millis::MAX);
                self.trouble.insert(
                    key.clone(),
                    Trouble { failures, at: now.saturating_add(pause), detail },
                );
            }
        }
    }

    /// Forgets failures of workloads that are wanted otherwise now.
    pub fn forgive(&mut self, which: impl Fn(&Key) -> bool) {
        self.trouble.retain(|key, _| !which(key));
    }

    /// What went wrong with a workload's last step.
    pub fn trouble(&self, key: &Key) -> Option<&Trouble> {
        self.trouble.get(key)
    }

    /// Whether something is being done for a workload.
    pub fn is_running(&self, key: &Key) -> bool {
        self.running.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::twin;

    fn step(name: &str) -> Step {
        Step::RemoveVm((twin(), format!("web/{name}").parse().unwrap()))
    }

    #[test]
    fn of_one_workload_one_step_at_a_time() {
        let mut attempts = Attempts::default();
        assert_eq!(
            attempts.begin(0, vec![step("a"), step("a"), step("b")]),
            [step("a"), step("b")]
        );
        assert_eq!(attempts.begin(0, vec![step("a")]), []);
        attempts.end(0, step("a").key(), Ok(()));
        assert_eq!(attempts.begin(0, vec![step("a")]), [step("a")]);
        let many = (0..20).map(|i| step(&format!("x{i}"))).collect();
        assert_eq!(attempts.begin(0, many).len(), AT_ONCE - 2);
    }

    #[test]
    fn a_failed_step_waits_longer_each_time_and_is_forgiven_by_success() {
        let (mut attempts, mut now, mut pauses) = (Attempts::default(), 0, Vec::new());
        let key = step("a").key().clone();
        for _ in 0..8 {
            assert_eq!(attempts.begin(now, vec![step("a")]).len(), 1);
            attempts.end(now, &key, Err("full".into()));
            let at = attempts.trouble(&key).unwrap().at;
            assert_eq!(attempts.begin(at - 1, vec![step("a")]), []);
            pauses.push((at - now) / 1000);
            now = at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(attempts.begin(now, vec![step("a")]).len(), 1);
        attempts.end(now, &key, Ok(()));
        assert_eq!(attempts.trouble(&key), None);
        attempts.end(now, &key, Err("full".into()));
        attempts.forgive(|_| true);
        assert_eq!(attempts.begin(now, vec![step("a")]).len(), 1);
    }
}
