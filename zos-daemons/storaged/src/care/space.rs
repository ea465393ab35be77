//! Room for the file system itself, before a write of the state fails: the rule alone.
//!
//! ```text
//!        low                  no image left                  still low
//!  Fine ────▶ collect images ──────────────▶ balance 5, 20, 50 % ──────────▶ Full: no new volumes, a fault
//!   ▲            │ room again                   │ room again                    │ twice the room: again Fine
//!   └────────────┴──────────────────────────────┴───────────────────────────────┘ else from the start, each 10 min
//! ```
//! btrfs gives its space in chunks to data or to metadata. Volumes take theirs in full when they are made, so
//! what can grow is the state, the images and the metadata, in what `pool::reserve` keeps from volumes.

use std::time::Duration;

use zos_types::unit::{GIB, MIB};

use crate::pool;

/// Between two attempts to make room in a full pool.
pub const AGAIN: Duration = Duration::from_secs(600);
/// Chunks that are filled less than this are emptied into others, in percent, one after another.
pub const BALANCES: [u8; 3] = [5, 20, 50];

/// The room of a pool's file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Of its partition.
    pub size: u64,
    /// In no chunk yet.
    pub unallocated: u64,
    /// In chunks for data.
    pub data: u64,
    /// Of that, used.
    pub data_used: u64,
    /// In chunks for metadata, counted once though each is there twice.
    pub metadata: u64,
    /// Of that, used.
    pub metadata_used: u64,
    /// Of the free metadata, kept by btrfs for itself.
    pub kept: u64,
}

impl Space {
    /// What may still be written of data.
    pub fn for_data(&self) -> u64 {
        self.data.saturating_sub(self.data_used).saturating_add(self.unallocated)
    }

    /// What may still be written of metadata, which is there twice.
    pub fn for_metadata(&self) -> u64 {
        let free = self.metadata.saturating_sub(self.metadata_used).saturating_sub(self.kept);
        free.saturating_add(self.unallocated / 2)
    }

    /// The smaller of the two.
    pub fn room(&self) -> u64 {
        self.for_data().min(self.for_metadata())
    }

    /// Below this much room something is done.
    pub fn low(&self) -> u64 {
        (pool::reserve(self.size) / 16).clamp(32 * MIB, GIB)
    }
}

/// Something to be done for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Delete images, at least this many bytes.
    Collect(u64),
    /// Empty data chunks filled less than this percentage.
    Balance(u8),
}

/// How far the making of room got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    #[default]
    Fine,
    /// Images are or were collected.
    Collecting,
    /// This many balances are done or begun.
    Balancing(usize),
    /// All was tried; when.
    Tried(Duration),
}

/// A pool's room over time.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    stage: Stage,
    working: bool,
    full: bool,
}

impl Pressure {
    /// What is to be done for a pool with this space; nothing while a step is under way.
    pub fn look(&mut self, now: Duration, space: &Space) -> Option<Step> {
        if self.working {
            return None;
        }
        let (room, low) = (space.room(), space.low());
        if room >= 2 * low {
            *self = Self::default();
            return None;
        }
        let next = match self.stage {
            Stage::Fine if room >= low => return None,
            Stage::Fine => Stage::Collecting,
            // Between the two limits what was begun is left, and what is full stays so.
            _ if room >= low && !self.full => {
                self.stage = Stage::Fine;
                return None;
            }
            Stage::Collecting => Stage::Balancing(0),
            Stage::Balancing(done) if done + 1 < BALANCES.len() => Stage::Balancing(done + 1),
            Stage::Balancing(_) => {
                self.full = true;
                Stage::Tried(now)
            }
            Stage::Tried(at) if now.saturating_sub(at) < AGAIN => return None,
            Stage::Tried(_) => Stage::Collecting,
        };
        self.stage = next;
        let step = match next {
            Stage::Collecting => Step::Collect(2 * low - room),
            Stage::Balancing(which) => Step::Balance(BALANCES[which]),
            Stage::Fine | Stage::Tried(_) => return None,
        };
        self.working = true;
        Some(step)
    }

    /// The step ended; images that were deleted may not have been all there are.
    pub fn done(&mut self, deleted: u64) {
        self.working = false;
        if deleted > 0 && self.stage == Stage::Collecting {
            self.stage = Stage::Fine;
        }
    }

    /// Whether the pool takes no new volumes.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pool of 20 GiB, below which 64 MiB are low.
    fn space(unallocated: u64, metadata_free: u64) -> Space {
        let metadata = GIB;
        Space {
            size: 20 * GIB,
            unallocated,
            data: 10 * GIB,
            data_used: 5 * GIB,
            metadata,
            metadata_used: metadata - metadata_free - 5,
            kept: 5,
        }
    }

    #[test]
    fn room() {
        let half_full = space(10 * MIB, 100 * MIB);
        assert_eq!(
            (half_full.for_data(), half_full.for_metadata()),
            (5 * GIB + 10 * MIB, 105 * MIB)
        );
        assert_eq!((half_full.room(), half_full.low()), (105 * MIB, 64 * MIB));
        let none = Space { kept: GIB, ..space(0, 7) };
        assert_eq!(none.room(), 0);
        assert_eq!(Space { size: GIB, ..none }.low(), 32 * MIB);
    }

    #[test]
    fn steps_until_the_pool_is_full_and_back() {
        let secs = Duration::from_secs;
        let (fine, between, low) = (space(GIB, 0), space(0, 100 * MIB), space(0, 10 * MIB));
        let mut pressure = Pressure::default();
        assert_eq!(pressure.look(secs(0), &between), None);
        let collect = Some(Step::Collect(118 * MIB));
        assert_eq!(pressure.look(secs(0), &low), collect);
        assert_eq!(pressure.look(secs(1), &low), None, "one at a time");
        pressure.done(5);
        assert_eq!(pressure.look(secs(2), &low), collect, "there may be more images");
        pressure.done(0);
        for balance in BALANCES {
            assert_eq!(pressure.look(secs(3), &low), Some(Step::Balance(balance)));
            assert!(!pressure.is_full());
            pressure.done(0);
        }
        assert_eq!(pressure.look(secs(4), &low), None);
        assert!(pressure.is_full());
        assert_eq!(pressure.look(secs(603), &low), None);
        assert_eq!(pressure.look(secs(603), &between), None);
        assert!(pressure.is_full(), "a little room is not enough");
        assert_eq!(pressure.look(secs(604), &low), collect);
        pressure.done(0);
        assert_eq!(pressure.look(secs(605), &fine), None);
        assert!(!pressure.is_full());
    }

    proptest! {
        /// Whatever the room does: a pool is never full while there is enough, and never left alone for longer
        /// than the pause while there is too little.
        #[test]
        fn room_is_made_and_taken_back(rooms in prop::collection::vec((0..200 * MIB, 0..3u64), 1..200)) {
            let (mut pressure, mut idle) = (Pressure::default(), Duration::ZERO);
            for (second, (free, deleted)) in rooms.into_iter().enumerate() {
                let now = Duration::from_secs(60 * second as u64);
                let space = space(0, free);
                match pressure.look(now, &space) {
                    Some(_) => {
                        pressure.done(deleted);
                        idle = now;
                    }
                    None if space.room() < space.low() => prop_assert!(now - idle <= AGAIN + Duration::from_secs(120)),
                    None => idle = now,
                }
                prop_assert!(!pressure.is_full() || space.room() < 2 * space.low());
            }
        }
    }
}
