//! What units print and what happens to them, as far as PID 1 remembers it. No I/O.
//!
//! ```text
//!  pipe ─▶ Lines   bytes to lines ─▶ Ring    the newest of a unit, bounded in bytes ─▶ ReadLog
//!                                 └▶ Mirror  warnings, 200 at once, 20 a second ─▶ kernel log as `name: line`
//!  core ─▶ Events  the newest 256 ─▶ WatchEvents
//! ```
//! Of a line only its level is read, the `<0>`..`<7>` of sd-daemon(3). A unit's log is kept over its restarts and after
//! its end, until it is forgotten.

use std::collections::HashMap;

use zos_host::kmsg::Level;

use crate::supervise::{Millis, UnitId};

mod events;
mod lines;
mod mirror;
mod ring;

pub(crate) use events::Events;
pub(crate) use lines::Lines;
use mirror::Mirror;
pub(crate) use ring::Page;
use ring::Ring;

/// How much of a unit's log is kept, and what of it goes on to the kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Bytes that are kept.
    pub(crate) ring: usize,
    /// The kernel log gets all lines, not only warnings and worse.
    pub(crate) console: bool,
    /// Lines that go to the kernel log at once.
    pub(crate) burst: u64,
    /// Lines a second that go there after that.
    pub(crate) rate: u64,
}

impl Rules {
    /// For transient units.
    pub(crate) const TRANSIENT: Self = Self { ring: 16 << 10, ..Self::SERVICE };
    /// For services.
    pub(crate) const SERVICE: Self = Self { ring: 32 << 10, console: false, burst: 200, rate: 20 };
}

impl Default for Rules {
    fn default() -> Self {
        Self::SERVICE
    }
}

/// One unit's log.
#[derive(Debug)]
struct Log {
    /// What stands before its lines in the kernel log.
    tag: String,
    ring: Ring,
    mirror: Mirror,
}

/// Every unit's log, and the events.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    logs: HashMap<UnitId, Log>,
    /// What happened to units.
    pub(crate) events: Events,
    /// Every line goes on to the kernel log: for who looks for a fault.
    verbose: bool,
}

impl Journal {
    /// An empty one; `verbose`: the kernel log gets every line.
    pub(crate) fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// A unit starts (again): its log goes on, by these rules.
    pub(crate) fn open(&mut self, now: Millis, unit: UnitId, tag: String, rules: &Rules) {
        let rules = Rules { console: rules.console || self.verbose, ..*rules };
        let log = self.logs.entry(unit).or_insert_with(|| Log {
            tag,
            ring: Ring::default(),
            mirror: Mirror::new(now, rules.burst),
        });
        log.ring.bound(rules.ring);
        log.mirror.follow(&rules);
    }

    /// Takes bytes that a process of the unit printed; lines for the kernel log go to `kernel`.
    pub(crate) fn take(
        &mut self,
        now: Millis,
        unit: UnitId,
        lines: &mut Lines,
        bytes: &[u8],
        kernel: &mut dyn FnMut(Level, &str, &str),
    ) {
        let Some(Log { tag, ring, mirror }) = self.logs.get_mut(&unit) else { return };
        lines.push(bytes, &mut |level, text| {
            ring.push(now, level, text);
            mirror.line(now, level, text, &mut |level, text| kernel(level, tag, text));
        });
    }

    /// A process's output has ended: what was left without a newline, and what the kernel log was spared.
    pub(crate) fn end(
        &mut self,
        now: Millis,
        unit: UnitId,
        lines: &mut Lines,
        kernel: &mut dyn FnMut(Level, &str, &str),
    ) {
        let Some(Log { tag, ring, mirror }) = self.logs.get_mut(&unit) else { return };
        let kernel = &mut |level: Level, text: &str| kernel(level, tag, text);
        lines.end(&mut |level, text| {
            ring.push(now, level, text);
            mirror.line(now, level, text, kernel);
        });
        mirror.tell(now, kernel);
    }

    /// Whether a unit was ever started.
    pub(crate) fn knows(&self, unit: UnitId) -> bool {
        self.logs.contains_key(&unit)
    }

    /// The number of a unit's newest line; 0 before the first.
    pub(crate) fn newest(&self, unit: UnitId) -> u64 {
        self.logs.get(&unit).map_or(0, |log| log.ring.newest())
    }

    /// Bytes that are kept of a unit.
    pub(crate) fn bytes(&self, unit: UnitId) -> usize {
        self.logs.get(&unit).map_or(0, |log| log.ring.bytes())
    }

    /// The oldest lines after a cursor that fit into `room` bytes of JSON.
    pub(crate) fn after(&self, unit: UnitId, after: u64, room: usize) -> Page {
        self.logs.get(&unit).map(|log| log.ring.after(after, room)).unwrap_or_default()
    }

    /// The newest lines after a cursor that fit into `room` bytes of JSON.
    pub(crate) fn latest(&self, unit: UnitId, after: u64, room: usize) -> Page {
        self.logs.get(&unit).map(|log| log.ring.latest(after, room)).unwrap_or_default()
    }

    /// A unit is forgotten, and its log with it.
    pub(crate) fn forget(&mut self, unit: UnitId) {
        self.logs.remove(&unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_kept_in_the_ring_and_kept_from_the_kernel_log() {
        let mut journal = Journal::new(false);
        let unit = UnitId(1);
        journal.open(0, unit, "noisy".to_owned(), &Rules::SERVICE);
        let mut lines = Lines::default();
        let mut kernel = 0;
        for _ in 0..1000 {
            let bytes = "<4>flood\nall is well\n".repeat(200);
            journal.take(0, unit, &mut lines, bytes.as_bytes(), &mut |_, tag, text| {
                assert_eq!((tag, text), ("noisy", "flood"));
                kernel += 1;
            });
        }
        assert_eq!(kernel, Rules::SERVICE.burst);
        assert_eq!(journal.newest(unit), 400_000);
        assert!(journal.bytes(unit) <= 32 << 10);
        let mut last = String::new();
        journal.end(0, unit, &mut lines, &mut |_, _, text| last = text.to_owned());
        assert_eq!(last, "(199800 lines came too fast for the kernel log)");
    }

    #[test]
    fn a_log_outlives_starts_and_obeys_new_rules() {
        let mut journal = Journal::new(false);
        let unit = UnitId(1);
        let print = |journal: &mut Journal, text: &str| {
            let mut mirrored = 0;
            let mut lines = Lines::default();
            let kernel = &mut |_, _: &str, _: &str| mirrored += 1;
            journal.take(7, unit, &mut lines, text.as_bytes(), kernel);
            journal.end(7, unit, &mut lines, kernel);
            mirrored
        };
        assert_eq!(print(&mut journal, "nobody listens\n"), 0);
        journal.open(0, unit, "x".to_owned(), &Rules::SERVICE);
        assert_eq!(print(&mut journal, "one\n<3>two\n"), 1);
        journal.open(0, unit, "x".to_owned(), &Rules { console: true, ..Rules::SERVICE });
        assert_eq!(print(&mut journal, "three"), 1);
        let page = journal.after(unit, 1, 1000);
        let texts: Vec<_> = page.entries.iter().map(|e| (e.cursor, e.text.as_str())).collect();
        assert_eq!(texts, [(2, "two"), (3, "three")]);
        journal.forget(unit);
        assert_eq!((journal.newest(unit), journal.bytes(unit)), (0, 0));
    }
}
