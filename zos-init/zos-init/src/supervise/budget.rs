//! How long to wait before a unit is started again, and when to give it up.

use std::collections::VecDeque;

use super::Millis;
use crate::unit::{Backoff, Budget};

/// Delay before the next start after `streak` quick ends (1 for the first): doubled each time, up to a
/// quarter longer by chance, so that units that fell together don't rise together.
pub(super) fn delay(backoff: Backoff, streak: u32, jitter: u16) -> Millis {
    let doubled = backoff.first.saturating_mul(1 << streak.saturating_sub(1).min(32));
    let delay = doubled.min(backoff.longest);
    delay + delay / 4 * u64::from(jitter.min(999)) / 1000
}

/// When a unit ended unasked: as many as its budget must remember, no more.
#[derive(Debug, Default)]
pub(super) struct Crashes(VecDeque<Millis>);

impl Crashes {
    /// Counts one; true: the budget is spent, and a new one begins.
    pub(super) fn add(&mut self, now: Millis, budget: Budget) -> bool {
        while self.0.front().is_some_and(|at| *at + budget.within <= now) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        let spent = self.0.len() >= budget.crashes as usize;
        if spent {
            self.0.clear();
        }
        spent
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
