//! Rate limits: token buckets of bytes and operations, of a device alone and shared by a twin's VMs.
//!
//! ```text
//!  Limiter.take(now, bytes, operations)
//!     ├─ the device's bytes, operations      shared by its queues (clones)
//!     └─ the twin's bytes, operations        a file, shared by processes      all of them, or none
//!          └─▶ Allowed | At(moment): ask again then
//! ```
//!
//! Among the threads of a device who was refused first is served first (see `line`).
//!
//! Time is passed in. Refill is exact: n tokens are there n / `per_second` after a bucket was empty,
//! to the nanosecond, over any time; there is no timer that refills and no cool-down.
//!
//! A request larger than a burst could never be paid at once. It is let through when its bucket is
//! full, and leaves it in debt, which those after it wait for: so the rate holds over time, and no
//! request is blocked for ever.

mod bucket;
mod line;
mod twin;

pub use twin::{Twin, TwinError};

use bucket::Bucket;
use line::Line;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zos_vmm_spec::{Rate, rates::Flow};

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;
/// Buckets that others may write are looked at again after so many nanoseconds at the latest.
const LOOK_AGAIN: u64 = NANOS;

/// A point of the monotonic clock in nanoseconds, the same for all processes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let part = |number: i64| u64::try_from(number).unwrap_or(0);
        Self(part(time.tv_sec).saturating_mul(NANOS).saturating_add(part(time.tv_nsec)))
    }

    /// The same as a worker's alarm wants it.
    #[must_use]
    pub fn instant(self) -> Instant {
        let wait = Duration::from_nanos(self.0.saturating_sub(Self::now().0));
        let now = Instant::now();
        // Farther than the clock goes is a day.
        now.checked_add(wait).unwrap_or(now + Duration::from_hours(24))
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Taken from every bucket.
    Allowed,
    /// Nothing was taken: ask again then. It is the first moment at which it may be allowed, if
    /// nobody else draws.
    At(Moment),
}

/// What a device asks before it does a request. A clone is another one who asks, of the same buckets:
/// each thread has its own, so that who was refused first is served first.
#[derive(Debug)]
pub struct Limiter {
    who: u64,
    line: Arc<Line>,
    bytes: Vec<Arc<Bucket>>,
    operations: Vec<Arc<Bucket>>,
    shared: bool,
}

impl Clone for Limiter {
    fn clone(&self) -> Self {
        let (bytes, operations) = (self.bytes.clone(), self.operations.clone());
        Self { line: self.line.clone(), shared: self.shared, ..Self::over(bytes, operations) }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Limiter {
    /// A device's own rate; none: unlimited.
    #[must_use]
    pub fn new(rate: Option<Rate>) -> Self {
        let Rate { bytes, operations } = rate.unwrap_or_default();
        let own = |bucket: Option<_>| bucket.map(Bucket::own).map(Arc::new).into_iter().collect();
        Self::over(own(bytes), own(operations))
    }

    fn over(bytes: Vec<Arc<Bucket>>, operations: Vec<Arc<Bucket>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let who = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { who, line: Arc::default(), bytes, operations, shared: false }
    }

    /// A device's own rate, and what its twin shares of this flow.
    #[must_use]
    pub fn of(rate: Option<Rate>, twin: Option<&Twin>, flow: Flow) -> Self {
        let own = Self::new(rate);
        twin.map_or(own.clone(), |twin| own.and(&twin.limiter(flow)))
    }

    fn and(mut self, twin: &Limiter) -> Self {
        self.bytes.extend_from_slice(&twin.bytes);
        self.operations.extend_from_slice(&twin.operations);
        self.shared |= twin.shared;
        self
    }

    /// Whether it allows everything, so that nobody has to look at the clock.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.bytes.is_empty() && self.operations.is_empty()
    }

    /// Takes from all buckets, or from none, when it is this one's turn.
    pub fn take(&self, now: Moment, bytes: u64, operations: u64) -> Verdict {
        if self.is_unlimited() {
            return Verdict::Allowed;
        }
        match self.line.draw(self.who, now.0, || self.draw(now, bytes, operations)) {
            Ok(()) => Verdict::Allowed,
            Err(at) => Verdict::At(Moment(at)),
        }
    }

    fn draw(&self, now: Moment, bytes: u64, operations: u64) -> Result<(), u64> {
        let draws = || {
            let bytes = self.bytes.iter().map(move |bucket| (bucket, bytes));
            bytes.chain(self.operations.iter().map(move |bucket| (bucket, operations)))
        };
        for (index, (bucket, tokens)) in draws().enumerate() {
            let Err(at) = bucket.take(now.0, tokens) else { continue };
            draws().take(index).for_each(|(bucket, tokens)| bucket.give_back(tokens));
            // Others may be empty for longer.
            let latest = draws().filter_map(|(bucket, tokens)| bucket.when(now.0, tokens)).max();
            let at = latest.map_or(at, |latest| latest.max(at));
            let most = if self.shared { now.0.saturating_add(LOOK_AGAIN) } else { u64::MAX };
            return Err(at.min(most));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
