//! When all that has checksums is read, and how far that got: the rule alone.
//!
//! ```text
//!  a pool's first time: since + (its id, spread over 30 days) ─▶ piece, pause, piece ... ─▶ each 30 days
//!                                                                 └ progress on the pool: a boot goes on there
//! ```
//! Clocks lie: before a plausible time nothing falls due by itself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zos_types::Bytes;
use zos_types::disk;
use zos_types::unit::GIB;

/// Between the begins of two scrubs of a pool.
pub const PERIOD: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Looked through in one go, in bytes.
pub const PIECE: u64 = GIB;
/// After an error of the kernel's.
pub const RETRY: Duration = Duration::from_secs(3600);

/// A scrub, as it is kept on its pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// When it began, by the node's clock.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Where it goes on, in bytes from the partition's begin.
    pub position: u64,
    /// Bytes read.
    pub read: u64,
    /// Errors repaired.
    pub repaired: u64,
    /// Errors not repaired.
    pub unrepaired: u64,
}

impl Progress {
    /// One that begins now.
    pub fn begin(now: Timestamp) -> Self {
        Self { began: now, ended: None, position: 0, read: 0, repaired: 0, unrepaired: 0 }
    }

    /// As the pool shows it.
    pub fn shown(&self) -> disk::Scrub {
        let Self { began, ended, read, repaired, unrepaired, .. } = *self;
        disk::Scrub { began, ended, read: Bytes(read), repaired, unrepaired }
    }
}

/// Whether a clock may be right: not before this was written.
pub fn is_plausible(now: Timestamp) -> bool {
    now.as_second() > 1_750_000_000
}

/// When a pool falls due. `since`: when it was first cared for.
pub fn due(pool: &str, since: Timestamp, last: Option<&Progress>) -> Timestamp {
    let after = |from: Timestamp, time| from.checked_add(time).unwrap_or(Timestamp::MAX);
    match last {
        // Begun and not ended: now.
        Some(last) if last.ended.is_none() => last.began,
        Some(last) => after(last.began, PERIOD),
        None => after(since, spread(pool)),
    }
}

/// A part of the period, by the pool's id: pools that were made on one day are not scrubbed on one.
fn spread(pool: &str) -> SignedDuration {
    let hash = Sha256::digest(pool);
    let part = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let seconds = (i128::from(PERIOD.as_secs()) * i128::from(part)) >> 32;
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap()
    }

    #[test]
    fn falls_due() {
        let ended = |began, ended| Progress { ended, ..Progress::begin(began) };
        assert_eq!(due("a", at(0), Some(&ended(at(5), Some(at(6))))), at(35));
        assert_eq!(due("a", at(0), Some(&ended(at(5), None))), at(5), "goes on");
        assert_eq!(due("a", at(3), None), due("a", at(0), None) + SignedDuration::from_hours(72));
        assert!(is_plausible(at(0)) && !is_plausible(Timestamp::UNIX_EPOCH));
        let last = Progress { ended: Some(Timestamp::MAX), ..Progress::begin(Timestamp::MAX) };
        assert_eq!(due("a", at(0), Some(&last)), Timestamp::MAX);
    }

    #[test]
    fn pools_are_spread_over_the_period() {
        let mut weeks = [0; 5];
        for pool in 0..1000 {
            let due = due(&format!("{pool:016x}"), at(0), None);
            let days = due.duration_since(at(0)).as_hours() / 24;
            assert!((0..30).contains(&days), "{days}");
            weeks[usize::try_from(days / 6).unwrap()] += 1;
        }
        assert!(weeks.iter().all(|count| (150..250).contains(count)), "{weeks:?}");
    }
}
