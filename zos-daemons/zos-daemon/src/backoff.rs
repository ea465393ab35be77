//! How long to wait after a failure: twice as long each time, up to a longest pause.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pauses between tries that fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for Backoff {
    /// What suits a call to a daemon that is being started again.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after so many failures in a row, of which there is at least one.
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }

    /// The same, up to a quarter shorter by chance, so that those who failed together don't come
    /// back together.
    pub fn jittered(&self, failures: u32) -> Duration {
        let pause = self.pause(failures);
        // Each RandomState has keys of its own: enough chance for this, and no dependency.
        let chance = RandomState::new().hash_one(failures) % 256;
        let quarter = pause / 4;
        pause - quarter * u32::try_from(chance).unwrap_or(0) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        let pauses = [1, 2, 3, 6, 7, 32, 33, u32::MAX].map(|n| backoff.pause(n).as_secs());
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn chance_shortens_by_a_quarter_at_most() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.jittered(3)).collect();
        assert!(
            pauses.iter().all(|p| (Duration::from_secs(3)..=Duration::from_secs(4)).contains(p))
        );
        assert!(pauses.iter().any(|p| *p != pauses[0]));
    }
}
