//! Who was refused first is served first, among the threads of a device.
//!
//! ```text
//!  refused: A (wants 1 MiB, until 12.5) ◀ first    B (wants 4 KiB)    C ...
//!           only A may draw; B and C are told to come back when A's time has come
//! ```
//!
//! Without it a queue with small requests would take every token before a large one of another queue
//! could be paid. Between processes that share a twin's file there is no such order.
//!
//! Nobody has to say that it gives up: who doesn't come back in time loses its place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// How much later than told one may come, in nanoseconds.
const LATE: u64 = 20_000_000;
/// How soon one who isn't the first asks again at the earliest.
const SOON: u64 = 50_000;

/// The line of those who were refused.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Whether somebody may wait, so that nobody has to take the lock to see that nobody does.
    occupied: AtomicBool,
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    who: u64,
    until: u64,
}

impl Line {
    /// Draws in `who`'s turn; or tells when to come back.
    pub(super) fn draw(
        &self,
        who: u64,
        now: u64,
        draw: impl Fn() -> Result<(), u64>,
    ) -> Result<(), u64> {
        if !self.occupied.load(Ordering::Acquire) && draw().is_ok() {
            return Ok(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.front().is_some_and(|first| first.until.saturating_add(LATE) < now) {
            waiting.pop_front();
        }
        let answer = match waiting.front() {
            Some(first) if first.who != who => Err(first.until.max(now.saturating_add(SOON))),
            _ => draw(),
        };
        let place = waiting.iter().position(|other| other.who == who);
        match (answer, place) {
            (Ok(()), Some(place)) => {
                waiting.remove(place);
            }
            (Ok(()), None) => {}
            (Err(until), Some(place)) => waiting[place].until = until,
            (Err(until), None) => waiting.push_back(Waiting { who, until }),
        }
        self.occupied.store(!waiting.is_empty(), Ordering::Release);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_who_was_refused_is_the_first_who_draws() {
        let line = Line::default();
        let there = Cell::new(0u64);
        let draw = |wanted: u64, until: u64| {
            let there = &there;
            move || {
                let left = there.get().checked_sub(wanted).ok_or(until)?;
                there.set(left);
                Ok(())
            }
        };
        let second = 1_000_000_000;
        assert_eq!(line.draw(1, 0, draw(100, second)), Err(second));
        // There is enough for the small one, but it isn't its turn.
        there.set(10);
        assert_eq!(line.draw(2, 5, draw(1, 6)), Err(second));
        assert_eq!(line.draw(3, second, draw(1, 6)), Err(second + SOON));
        assert_eq!(there.get(), 10);
        there.set(105);
        assert_eq!(line.draw(1, second, draw(100, 2 * second)), Ok(()));
        assert_eq!(line.draw(3, second, draw(1, 6)), Err(second + SOON));
        assert_eq!(line.draw(2, second, draw(1, 6)), Ok(()));
        assert_eq!(line.draw(3, second, draw(1, 6)), Ok(()));
        // Nobody waits: anyone draws.
        assert_eq!(line.draw(4, second, draw(1, 6)), Ok(()));
        assert_eq!(there.get(), 2);
    }

    #[test]
    fn who_does_not_come_back_blocks_nobody() {
        let line = Line::default();
        assert_eq!(line.draw(1, 0, || Err(1000)), Err(1000));
        assert_eq!(line.draw(2, 1000 + LATE, || Ok(())), Err(1000 + LATE + SOON));
        assert_eq!(line.draw(2, 1001 + LATE, || Ok(())), Ok(()));
        assert_eq!(line.draw(3, 1001 + LATE, || Ok(())), Ok(()));
    }
}
