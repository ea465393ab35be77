//! What is on the medium after a cut: all up to the last flush, and of the writes behind it what chance has left.
//!
//! ```text
//!  entries   w w F w d w w F w w w w ┃ w w F ..         ┃ the cut: so many entries were answered
//!            └─── durable ──┘└pending┘
//!  pending   none │ all │ all but one │ one alone │ a random part │ a random part, some of them torn
//! ```
//! A disk's cache may write in any order. In which order changes nothing but where two writes meet, and there a cache
//! holds the later one: so what an order leaves at a cut is a subset, each subset is left by some order, and the writes of
//! a subset are done in the log's order. A torn write is there by 512 bytes here and there, or by 4096.

use std::collections::BTreeSet;

use super::chance::Chance;
use super::log::{Entry, Kind};

/// What became of a request that was pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is on the medium.
    Whole,
    /// Pieces of it are, of so many bytes each; which, by a seed.
    Torn {
        /// Bytes of a piece: 512 or 4096.
        piece: u64,
        /// Draws the pieces.
        seed: u64,
    },
}

/// Whether the flushes count; a test of the test leaves them out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushes {
    /// As the disk was told.
    Honest,
    /// The last so many entries may all be pending, whatever was flushed: a disk that lies, or a program that forgets.
    Ignored(usize),
    /// The same of one disk alone, by its number.
    IgnoredBy(usize, usize),
}

impl Flushes {
    /// What counts of a disk's.
    #[must_use]
    pub fn of(self, disk: usize) -> Self {
        match self {
            Self::IgnoredBy(liar, window) if liar == disk => Self::Ignored(window),
            Self::IgnoredBy(..) => Self::Honest,
            all => all,
        }
    }
}

/// How many of the first `at` entries are durable.
#[must_use]
pub fn durable(entries: &[Entry], at: usize, flushes: Flushes) -> usize {
    match flushes {
        // Which disk this is, is asked before.
        Flushes::Honest | Flushes::IgnoredBy(..) => {
            let flushed = entries[..at].iter().rposition(|entry| entry.flush);
            flushed.map_or(0, |flushed| flushed + 1)
        }
        Flushes::Ignored(window) => at.saturating_sub(window),
    }
}

/// The pending requests that are on the medium all the same, in the log's order.
#[must_use]
pub fn survivors(entries: &[Entry], from: usize, at: usize, seed: u64) -> Vec<(usize, Fate)> {
    let mut chance = Chance::new(seed);
    let pending: Vec<usize> =
        (from..at).filter(|index| entries[*index].kind != Kind::None).collect();
    if pending.is_empty() {
        return Vec::new();
    }
    let one = pending[chance.place(pending.len())];
    let kept: BTreeSet<usize> = match chance.below(8) {
        0 => BTreeSet::new(),
        1 => pending.iter().copied().collect(),
        2 => pending.iter().copied().filter(|index| *index != one).collect(),
        3 => BTreeSet::from([one]),
        _ => {
            let odds = 2 + chance.below(3);
            let more = chance.once_in(2);
            pending.iter().copied().filter(|_| chance.once_in(odds) != more).collect()
        }
    };
    let tears = chance.once_in(3);
    let mut found = Vec::new();
    for index in pending {
        let entry = entries[index];
        let (tear, piece, seed) = (chance.once_in(4), chance.once_in(2), chance.draw());
        let piece = if piece { 512 } else { 4096 };
        if entry.fua {
            found.push((index, Fate::Whole));
        } else if kept.contains(&index) {
            let fate = if tears && tear && entry.size > piece {
                Fate::Torn { piece, seed }
            } else {
                Fate::Whole
            };
            found.push((index, fate));
        }
    }
    found
}

/// The pieces of a torn request that are on the medium: where in it, and how long.
#[must_use]
pub fn pieces(size: u64, piece: u64, seed: u64) -> Vec<(u64, u64)> {
    let mut chance = Chance::new(seed);
    let starts = (0..size).step_by(usize::try_from(piece).unwrap_or(512).max(1));
    let pieces = starts.map(|start| (start, piece.min(size - start)));
    pieces.filter(|_| chance.once_in(2)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(kinds: &str) -> Vec<Entry> {
        let of = |kind| match kind {
            'w' => (Kind::Write { data: 0 }, false, false),
            'u' => (Kind::Write { data: 0 }, false, true),
            'd' => (Kind::Discard, false, false),
            _ => (Kind::None, true, false),
        };
        let entry = |c| {
            let (kind, flush, fua) = of(c);
            Entry { at: 0, size: 8192, kind, flush, fua }
        };
        kinds.chars().map(entry).collect()
    }

    #[test]
    fn what_was_flushed_is_durable() {
        let log = entries("wwFwFww");
        let check = |at, wanted| assert_eq!(durable(&log, at, Flushes::Honest), wanted, "{at}");
        check(0, 0);
        check(2, 0);
        check(3, 3);
        check(4, 3);
        check(7, 5);
        assert_eq!(durable(&log, 7, Flushes::Ignored(4)), 3);
        assert_eq!(durable(&log, 2, Flushes::Ignored(4)), 0);
    }

    /// Every outcome of three writes comes up, so that chance leaves nothing out.
    #[test]
    fn each_subset_is_left_by_some_seed() {
        let log = entries("Fwdw");
        let mut seen = BTreeSet::new();
        for seed in 0..500 {
            let left = survivors(&log, 1, 4, seed);
            seen.insert(left.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
        let torn = (0..500).flat_map(|seed| survivors(&log, 1, 4, seed));
        let torn: BTreeSet<u64> = torn
            .filter_map(|(_, fate)| match fate {
                Fate::Torn { piece, .. } => Some(piece),
                Fate::Whole => None,
            })
            .collect();
        assert_eq!(torn, BTreeSet::from([512, 4096]));
    }

    proptest! {
        #[test]
        fn survivors_are_pending_ordered_and_the_same_again(
            kinds in "[wudF]{1,40}", part in 0..=100_usize, seed: u64,
        ) {
            let log = entries(&kinds);
            let at = log.len() * part / 100;
            let from = durable(&log, at, Flushes::Honest);
            prop_assert!(from <= at && log[from..at].iter().all(|entry| !entry.flush));
            let left = survivors(&log, from, at, seed);
            prop_assert_eq!(&left, &survivors(&log, from, at, seed));
            prop_assert!(left.iter().all(|(index, _)| (from..at).contains(index)));
            prop_assert!(left.windows(2).all(|two| two[0].0 < two[1].0));
            for index in (from..at).filter(|index| log[*index].fua) {
                prop_assert!(left.contains(&(index, Fate::Whole)), "a write through the cache is lost");
            }
        }

        #[test]
        fn pieces_lie_in_their_write(size in 1..100_000_u64, small: bool, seed: u64) {
            let piece = if small { 512 } else { 4096 };
            for (start, length) in pieces(size, piece, seed) {
                prop_assert!(start % piece == 0 && length > 0 && start + length <= size);
            }
        }
    }
}
