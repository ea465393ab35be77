//! The newest events, numbered without gaps.

use std::collections::VecDeque;

use serde::Serialize;

use crate::supervise::{ExitStatus, Millis};

/// Events that are remembered.
const HELD: usize = 256;
/// Bytes of an event's words.
const DETAIL: usize = 400;

/// Something that happened to a unit, as `WatchEvents` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// From 1, without gaps.
    pub(crate) sequence: u64,
    /// When.
    pub(crate) time_ms: Millis,
    /// The unit's name.
    pub(crate) unit: String,
    /// The state that it came to.
    pub(crate) state: &'static str,
    /// How its process ended, when it did just now.
    pub(crate) exit: Option<ExitStatus>,
    /// In words.
    pub(crate) detail: String,
}

/// Events as `WatchEvents` tells them.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Happened<'a> {
    /// Oldest first.
    pub(crate) events: Vec<&'a Event>,
    /// Events between the asked number and the first one that are not remembered.
    pub(crate) missed: u64,
}

/// The newest events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    held: VecDeque<Event>,
    newest: u64,
}

impl Events {
    /// Remembers that a unit came to a state.
    pub(crate) fn push(
        &mut self,
        time_ms: Millis,
        unit: &str,
        state: &'static str,
        exit: Option<ExitStatus>,
        detail: &str,
    ) {
        self.newest += 1;
        if self.held.len() == HELD {
            self.held.pop_front();
        }
        let detail = detail[..detail.floor_char_boundary(DETAIL)].to_owned();
        let unit = unit.to_owned();
        self.held.push_back(Event { sequence: self.newest, time_ms, unit, state, exit, detail });
    }

    /// The newest event's number; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// What came after a number.
    pub(crate) fn after(&self, after: u64) -> Happened<'_> {
        let events: Vec<_> = self.held.iter().filter(|event| event.sequence > after).collect();
        let first = events.first().map_or(self.newest + 1, |event| event.sequence);
        Happened { missed: first.saturating_sub(after.saturating_add(1)), events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let mut events = Events::default();
        for _ in 0..HELD + 10 {
            events.push(5, "storaged", "backoff", None, &"ü".repeat(DETAIL));
        }
        let check = |after, count, missed| {
            let happened = events.after(after);
            assert_eq!((happened.events.len(), happened.missed), (count, missed), "{after}");
        };
        check(0, HELD, 10);
        check(9, HELD, 1);
        check(10, HELD, 0);
        check(HELD as u64 + 9, 1, 0);
        check(HELD as u64 + 10, 0, 0);
        check(u64::MAX, 0, 0);
        assert_eq!(events.newest(), HELD as u64 + 10);
        assert_eq!(events.after(10).events[0].detail.len(), DETAIL);
    }
}
