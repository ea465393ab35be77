//! The newest lines of one unit, bounded in bytes.
//!
//! ```text
//!  first                                       next
//!    ▼                                           ▼
//!  [length level time text][length level time text]        one buffer; the oldest go when a new one needs room
//! ```

use std::collections::VecDeque;

use serde::Serialize;
use zos_host::kmsg::Level;

use crate::supervise::Millis;

/// Bytes before each text: length (2), level (1), time (8).
const HEAD: usize = 11;
/// The buffer's first size; it doubles up to the limit.
const FIRST_SIZE: usize = 1024;
/// JSON of an entry beside its text, bytes at most.
const JSON_HEAD: usize = 96;

/// Lines as `ReadLog` tells them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Page {
    /// Oldest first.
    pub(crate) entries: Vec<Entry>,
    /// Lines between the asked cursor and the first entry that are not here.
    pub(crate) missed: u64,
}

/// A line.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Its number in the unit's log, from 1.
    pub(crate) cursor: u64,
    /// When it came.
    pub(crate) time_ms: Millis,
    /// 0 to 7.
    pub(crate) level: u8,
    /// What was printed.
    pub(crate) text: String,
}

/// One unit's lines.
#[derive(Debug, Default)]
pub(super) struct Ring {
    buffer: VecDeque<u8>,
    limit: usize,
    /// Lines that were dropped, from the first one on.
    dropped: u64,
    held: u64,
}

impl Ring {
    /// Holds so many bytes from now on.
    pub(super) fn bound(&mut self, limit: usize) {
        self.limit = limit;
        self.make_room(0);
        self.buffer.shrink_to(limit);
    }

    /// Takes a line.
    pub(super) fn push(&mut self, now: Millis, level: Level, text: &str) {
        let most = usize::from(u16::MAX).min(self.limit.saturating_sub(HEAD));
        let text = &text[..text.floor_char_boundary(most)];
        let size = HEAD + text.len();
        self.make_room(size);
        if size > self.limit {
            self.dropped += 1;
            return;
        }
        let needed = self.buffer.len() + size;
        if needed > self.buffer.capacity() {
            let wanted = (2 * self.buffer.capacity()).max(FIRST_SIZE).max(needed).min(self.limit);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.buffer.extend(length.to_le_bytes());
        self.buffer.push_back(level as u8);
        self.buffer.extend(now.to_le_bytes());
        self.buffer.extend(text.as_bytes());
        self.held += 1;
    }

    /// The number of the newest line; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.dropped + self.held
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The oldest lines after a cursor, as many as fit into `room` bytes of JSON, but at least one.
    pub(super) fn after(&self, after: u64, room: usize) -> Page {
        let mut used = 0;
        let entries = self.entries(after).take_while(|entry| {
            let first = used == 0;
            used += entry.json_size();
            first || used <= room
        });
        self.page(after, entries.collect())
    }

    /// The newest lines after a cursor, as many as fit into `room` bytes of JSON.
    pub(super) fn latest(&self, after: u64, room: usize) -> Page {
        let mut used = 0;
        let mut entries = VecDeque::new();
        for entry in self.entries(after) {
            used += entry.json_size();
            entries.push_back(entry);
            while used > room {
                let Some(oldest) = entries.pop_front() else { break };
                used -= oldest.json_size();
            }
        }
        self.page(after, entries.into())
    }

    fn page(&self, after: u64, entries: Vec<Entry>) -> Page {
        let first = entries.first().map_or(self.newest() + 1, |entry| entry.cursor);
        Page { missed: first.saturating_sub(after.saturating_add(1)), entries }
    }

    fn entries(&self, after: u64) -> impl Iterator<Item = Entry> {
        let mut cursor = self.dropped;
        let mut at = 0;
        while cursor < after.min(self.newest()) {
            at += HEAD + self.length_at(at);
            cursor += 1;
        }
        (cursor + 1..=self.newest()).map(move |cursor| {
            let length = self.length_at(at);
            let [level] = self.bytes_at(at + 2);
            let time_ms = u64::from_le_bytes(self.bytes_at(at + 3));
            let text = self.buffer.range(at + HEAD..at + HEAD + length).copied().collect();
            at += HEAD + length;
            // A whole line went in.
            let text = String::from_utf8(text).unwrap_or_default();
            Entry { cursor, time_ms, level, text }
        })
    }

    fn length_at(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes(self.bytes_at(at)))
    }

    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|offset| self.buffer[at + offset])
    }

    /// Drops the oldest until so many bytes more may come.
    fn make_room(&mut self, size: usize) {
        while self.held > 0 && self.buffer.len() + size > self.limit {
            self.buffer.drain(..HEAD + self.length_at(0));
            self.held -= 1;
            self.dropped += 1;
        }
    }
}

impl Entry {
    /// What it takes in JSON, at most.
    fn json_size(&self) -> usize {
        let escaped = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        JSON_HEAD + self.text.bytes().map(escaped).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(limit: usize, texts: &[&str]) -> Ring {
        let mut ring = Ring::default();
        ring.bound(limit);
        for (at, text) in texts.iter().enumerate() {
            ring.push(at as u64, Level::Info, text);
        }
        ring
    }

    fn cursors(page: &Page) -> (Vec<u64>, u64) {
        (page.entries.iter().map(|entry| entry.cursor).collect(), page.missed)
    }

    #[test]
    fn the_oldest_go_and_are_told() {
        // Each takes 15 bytes.
        let ring = ring(45, &["aaaa", "bbbb", "cccc", "dddd", "eeee"]);
        let check = |after, expect: (&[u64], u64)| {
            assert_eq!(cursors(&ring.after(after, 10_000)), (expect.0.to_vec(), expect.1));
        };
        check(0, (&[3, 4, 5], 2));
        check(1, (&[3, 4, 5], 1));
        check(2, (&[3, 4, 5], 0));
        check(4, (&[5], 0));
        check(5, (&[], 0));
        // A cursor of another boot.
        check(99, (&[], 0));
        check(u64::MAX, (&[], 0));
        let entry = &ring.after(4, 10_000).entries[0];
        assert_eq!((entry.time_ms, entry.level, entry.text.as_str()), (4, 6, "eeee"));
    }

    #[test]
    fn a_page_has_the_oldest_or_the_newest_that_fit() {
        let ring = ring(1000, &["aaaa", "bbbb", "cccc"]);
        let two = 2 * (JSON_HEAD + 4);
        assert_eq!(cursors(&ring.after(0, two)), (vec![1, 2], 0));
        assert_eq!(cursors(&ring.after(0, 1)), (vec![1], 0));
        assert_eq!(cursors(&ring.latest(0, two)), (vec![2, 3], 1));
        assert_eq!(cursors(&ring.latest(2, two)), (vec![3], 0));
        assert_eq!(cursors(&ring.latest(0, 1)), (vec![], 3));
    }

    #[test]
    fn a_line_longer_than_the_ring_is_cut_and_none_fits_into_none() {
        assert_eq!(ring(HEAD + 3, &["aü€"]).after(0, 1).entries[0].text, "aü");
        let none = ring(0, &["a", "b"]);
        assert_eq!(cursors(&none.after(0, 100)), (vec![], 2));
        let mut less = ring(1000, &["aaaa"; 9]);
        less.bound(30);
        assert_eq!(cursors(&less.after(0, 10_000)), (vec![8, 9], 7));
        assert!(less.buffer.capacity() <= 30);
    }

    proptest! {
        #[test]
        fn it_holds_the_newest_within_its_bound(
            texts in proptest::collection::vec("[a\"\u{1}ü]{0,60}", 0..60),
            limit in 0_usize..400,
            room in 0_usize..2000,
        ) {
            let mut ring = Ring::default();
            ring.bound(limit);
            for text in &texts {
                ring.push(1, Level::Error, text);
                prop_assert!(ring.bytes() <= limit);
                prop_assert!(ring.buffer.capacity() <= limit);
            }
            prop_assert_eq!(ring.newest(), texts.len() as u64);
            for page in [ring.after(0, room), ring.latest(0, room)] {
                let json = serde_json::to_string(&page.entries).unwrap();
                prop_assert!(page.entries.len() == 1 || json.len() <= room.max(2), "{}", json.len());
                let first = page.missed + 1;
                for (entry, cursor) in page.entries.iter().zip(first..) {
                    prop_assert_eq!(entry.cursor, cursor);
                    let whole = &texts[usize::try_from(cursor - 1).unwrap()];
                    prop_assert!(whole.starts_with(&entry.text));
                }
            }
        }
    }
}
