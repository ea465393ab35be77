//! Calls that are answered again and again: what each has told already, and what is new since.

use serde_json::{Map, Value, json};
use zos_host::varlink::{Reply, object};

use crate::journal::{Journal, Page};
use crate::run::Node;
use crate::supervise::UnitId;

/// JSON of the lines in one reply, bytes.
pub(super) const PAGE: usize = 64 << 10;

/// What a caller follows, and how far it has been told.
#[derive(Debug)]
pub(crate) enum Stream {
    /// `WatchUnits`: the count of changes at its last snapshot; none: before the first.
    Units { seen: Option<u64> },
    /// `ReadLog` of a unit with this name and number.
    Log { name: String, unit: UnitId, cursor: Cursor },
    /// `WatchEvents`.
    Events { cursor: Cursor },
}

/// A place in a numbered row: lines of a log, events.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The last one that was told.
    after: u64,
    /// Something was told, were it that there is nothing yet.
    begun: bool,
}

impl Cursor {
    /// Everything after this number.
    pub(super) fn after(after: u64) -> Self {
        Self { after, begun: false }
    }

    /// At first what there is, later only what is new. `read` gives what comes after a number, and the number of the
    /// last of it.
    fn next<T>(&mut self, newest: u64, read: impl FnOnce(u64) -> (T, u64)) -> Option<T> {
        // A number of another boot stands beyond what there is: from here on, then.
        self.after = self.after.min(newest);
        if self.begun && self.after == newest {
            return None;
        }
        let (told, last) = read(self.after);
        (self.after, self.begun) = (last, true);
        Some(told)
    }

    fn page(&mut self, journal: &Journal, unit: UnitId) -> Option<Page> {
        let newest = journal.newest(unit);
        self.next(newest, |after| {
            let page = journal.after(unit, after, PAGE);
            let last = page.entries.last().map_or(newest, |entry| entry.cursor);
            (page, last)
        })
    }
}

/// What `ListUnits` and `WatchUnits` tell.
pub(super) fn units(node: &Node) -> Map<String, Value> {
    object(&json!({ "units": node.status() }))
}

/// What is new; a reply without `continues` is the last.
pub(super) fn news(node: &Node, stream: &mut Stream) -> Option<Reply> {
    match stream {
        Stream::Units { seen } => {
            let now = node.changes;
            (seen.replace(now) != Some(now)).then(|| Reply::continuing(units(node)))
        }
        // It was forgotten, and its log with it.
        Stream::Log { name, unit, .. } if node.supervisor.find(name) != Some(*unit) => {
            Some(Reply::ok(object(&Page::default())))
        }
        Stream::Log { unit, cursor, .. } => {
            let page = cursor.page(&node.journal, *unit)?;
            Some(Reply::continuing(object(&page)))
        }
        Stream::Events { cursor } => {
            let events = &node.journal.events;
            let newest = events.newest();
            let happened = cursor.next(newest, |after| (events.after(after), newest))?;
            Some(Reply::continuing(object(&happened)))
        }
    }
}

#[cfg(test)]
mod tests {
    use zos_host::kmsg::Level;

    use super::*;
    use crate::journal::{Lines, Rules};

    #[test]
    fn a_reader_at_any_pace_gets_each_line_once_or_knows_that_it_missed_it() {
        const UNIT: UnitId = UnitId(3);
        for (lines_between, ring, room_for_all) in
            [(1, 32 << 10, true), (5_000, 32 << 10, false), (40, 500, false)]
        {
            let mut journal = Journal::new(false);
            let rules = Rules { ring, ..Rules::SERVICE };
            let mut cursor = Cursor::after(0);
            // That there is nothing yet is told once.
            assert_eq!(cursor.page(&journal, UNIT), Some(Page::default()));
            assert_eq!(cursor.page(&journal, UNIT), None);
            let (mut told, mut missed) = (0, 0);
            for round in 0..20 {
                // Each round is a new process of the unit.
                journal.open(0, UNIT, "x".to_owned(), &rules);
                let mut lines = Lines::default();
                let text = format!("line {round}\n").repeat(lines_between);
                let kernel = &mut |_: Level, _: &str, _: &str| {};
                journal.take(0, UNIT, &mut lines, text.as_bytes(), kernel);
                while let Some(page) = cursor.page(&journal, UNIT) {
                    missed += page.missed;
                    told += page.missed;
                    for entry in page.entries {
                        told += 1;
                        assert_eq!(entry.cursor, told);
                    }
                }
            }
            assert_eq!(told, 20 * lines_between as u64);
            assert_eq!(missed == 0, room_for_all, "{missed} of {told} lines were missed");
        }
    }

    #[test]
    fn a_number_of_another_boot_means_from_here_on() {
        const UNIT: UnitId = UnitId(3);
        let mut journal = Journal::new(false);
        journal.open(0, UNIT, "x".to_owned(), &Rules::SERVICE);
        let print = |journal: &mut Journal, text: &str| {
            journal.take(0, UNIT, &mut Lines::default(), text.as_bytes(), &mut |_, _, _| {});
        };
        print(&mut journal, "one\ntwo\n");
        let mut cursor = Cursor::after(1_000);
        assert_eq!(cursor.page(&journal, UNIT), Some(Page::default()));
        print(&mut journal, "three\n");
        let page = cursor.page(&journal, UNIT).unwrap();
        assert_eq!((page.missed, page.entries.len(), page.entries[0].cursor), (0, 1, 3));
    }
}
