//! Flushes wait for the changes that came before them.
//!
//! ```text
//!  arrivals:   W1 W2 F1 W3 F2 W4          turn 0: W1 W2 | F1    turn 1: W3 | F2    turn 2: W4
//!              F1 goes when W1 and W2 are done, F2 when W3 is too; nothing waits for a flush
//! ```
//!
//! virtio wants less (a flush covers what was completed before it was made available); so a driver
//! that takes a queue for ordered loses nothing either.

use super::request::Request;
use std::collections::VecDeque;

/// Counts the changes under way, and holds the flushes that wait for them.
#[derive(Debug)]
pub(super) struct Barrier {
    /// The turn of the first count.
    first: u64,
    /// Changes under way of each turn; the last is the turn at hand.
    under_way: VecDeque<u32>,
    /// The flushes that end the turns, but for the last turn.
    flushes: VecDeque<Box<Request>>,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { first: 0, under_way: VecDeque::from([0]), flushes: VecDeque::new() }
    }
}

impl Barrier {
    /// A change begins; tells its turn.
    pub(super) fn begin(&mut self) -> u64 {
        if let Some(count) = self.under_way.back_mut() {
            *count += 1;
        }
        self.first + self.flushes.len() as u64
    }

    /// A change of this turn is done.
    pub(super) fn end(&mut self, turn: u64) {
        let index = usize::try_from(turn.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(count) = self.under_way.get_mut(index) {
            *count = count.saturating_sub(1);
        }
    }

    /// A flush comes; it is given back if it needn't wait.
    pub(super) fn hold(&mut self, flush: Box<Request>) -> Option<Box<Request>> {
        if self.under_way.iter().all(|count| *count == 0) {
            return Some(flush);
        }
        self.flushes.push_back(flush);
        self.under_way.push_back(0);
        None
    }

    /// A flush that needn't wait any longer.
    pub(super) fn release(&mut self) -> Option<Box<Request>> {
        if self.under_way.front() != Some(&0) {
            return None;
        }
        let flush = self.flushes.pop_front()?;
        self.under_way.pop_front();
        self.first += 1;
        Some(flush)
    }
}
