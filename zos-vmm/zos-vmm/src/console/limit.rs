//! How much a guest may write on a console: what is above is dropped, and told once it goes on.
//!
//! ```text
//!  bytes ─▶ prepaid? ── yes ─▶ out
//!             └─ no ─▶ a quarter of the burst, from the bucket ─┬─ had ─▶ [told: N dropped] out
//!                                                               └─ not ─▶ dropped
//! ```
//!
//! Tokens are drawn by the quarter of a burst: the clock isn't asked for each byte of a serial port,
//! and what a flood leaves behind are long pieces with a line between, not letters.

use crate::rate::{Limiter, Moment, Verdict};
use zos_vmm_spec::Rate;

/// Draws a burst is divided into.
const DRAWS: u64 = 4;

/// The rate of one console.
#[derive(Debug)]
pub(super) struct Limit {
    limiter: Limiter,
    draw: u64,
    prepaid: u64,
    dropped: u64,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// They go out, behind a line that tells of so many that were dropped, if any.
    Out { dropped: u64 },
    /// They are dropped.
    Dropped,
}

impl Limit {
    /// Of bytes; a console has no operations. None: no limit.
    pub(super) fn new(rate: Option<Rate>) -> Option<Self> {
        let bytes = rate?.bytes?;
        let limiter = Limiter::new(Some(Rate { bytes: Some(bytes), operations: None }));
        Some(Self { limiter, draw: (bytes.burst / DRAWS).max(1), prepaid: 0, dropped: 0 })
    }

    /// What becomes of so many bytes.
    pub(super) fn judge(&mut self, count: u64, now: impl FnOnce() -> Moment) -> Judgement {
        if self.prepaid < count {
            // More than a draw at once is paid at once.
            let draw = self.draw.max(count - self.prepaid);
            if self.limiter.take(now(), draw, 0) != Verdict::Allowed {
                self.dropped += count;
                return Judgement::Dropped;
            }
            self.prepaid += draw;
        }
        self.prepaid -= count;
        Judgement::Out { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zos_vmm_spec::Bucket;

    fn limit(per_second: u64, burst: u64) -> Limit {
        let bytes = Some(Bucket { per_second, burst });
        Limit::new(Some(Rate { bytes, operations: None })).unwrap()
    }

    #[test]
    fn a_flood_is_cut_and_told_of() {
        let mut limit = limit(1000, 400);
        let start = Moment::now();
        let mut out = 0;
        for _ in 0..10_000 {
            out += u64::from(limit.judge(1, || start) == Judgement::Out { dropped: 0 });
        }
        assert_eq!(out, 400);
        // A quarter of a burst comes in 0.1 s.
        let after = |millis: u64| Moment(start.0 + millis * 1_000_000);
        assert_eq!(limit.judge(1, || after(99)), Judgement::Dropped);
        assert_eq!(limit.judge(1, || after(101)), Judgement::Out { dropped: 9601 });
        assert_eq!(limit.judge(1, || after(101)), Judgement::Out { dropped: 0 });
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        assert!(Limit::new(None).is_none());
        assert!(Limit::new(Some(Rate::default())).is_none());
    }

    proptest! {
        /// Over any time, no more comes out than the burst and what the time brought; and all that
        /// doesn't is counted.
        #[test]
        fn the_rate_holds(
            per_second in 1u64..100_000,
            burst in 1u64..10_000,
            steps in prop::collection::vec((0u64..500, 0u64..50_000_000), 1..300),
        ) {
            let mut limit = limit(per_second, burst);
            let start = Moment::now();
            let mut now = start;
            let (mut written, mut out, mut told, mut largest) = (0, 0, 0, 0);
            for (count, later) in steps {
                now = Moment(now.0 + later);
                written += count;
                largest = largest.max(count);
                if let Judgement::Out { dropped } = limit.judge(count, || now) {
                    out += count;
                    told += dropped;
                }
            }
            let earned = u128::from(per_second) * u128::from(now.0 - start.0) / 1_000_000_000;
            prop_assert!(u128::from(out) <= earned + u128::from(burst + largest));
            prop_assert_eq!(written, out + told + limit.dropped);
        }
    }
}
