//! One token bucket, drawn from by threads and processes at once without a lock.
//!
//! ```text
//!  tokens
//!  burst ┤████┐            ┌██ full: a new epoch begins with the next draw
//!        │    └┐ taken    ╱
//!        │     └──┐     ╱   there = burst + per_second * (now - epoch) - taken, at most burst
//!      0 ┤ ─ ─ ─ ─└───╱─ ─
//!             ^ epoch: when it was full for the last time
//!
//!  mark u64 = [ number of the epoch: 16 bits | taken since then: 48 bits ]
//!  epochs   = 8 x nanoseconds of the monotonic clock, that of epoch n at n % 8
//! ```
//!
//! Nothing is added up as time goes by, so nothing is rounded: what is there follows from the epoch
//! and a count of whole tokens. Who begins an epoch writes its time first, into a place that isn't in
//! use, and then the mark; who dies in between leaves the old epoch as it was. A count that gets too
//! long moves the epoch on by whole seconds, which is exact too.
//!
//! | Hostile contents may say | What happens |
//! |---|---|
//! | an epoch in the far future | a new one begins, with an empty bucket |
//! | any count | at worst a bucket that is empty for long |
//! | another mark at each look | refused for 0.1 ms after 64 tries |

use super::NANOS;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{MmapRegion, VolatileMemory};
use zos_vmm_spec::rates::{EPOCHS, EPOCHS_AT, MARK_AT, MOST};

const TAKEN_BITS: u32 = 48;
const TAKEN: u64 = (1 << TAKEN_BITS) - 1;
/// From so many tokens on the epoch is moved. `MOST` twice: what it leaves always fits.
const LONG: u64 = 2 * MOST;
/// Tries against others who draw at the same time.
const TRIES: u32 = 64;
/// How long to wait after that, in nanoseconds.
const NOISE: u64 = 100_000;
/// An epoch further ahead, in nanoseconds, was written by nobody who looked at a clock. Less is a
/// caller whose `now` is old.
const AHEAD: u64 = 60 * NANOS;

/// A bucket, in memory of our own or in that of a twin.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: u64,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Own(Box<[AtomicU64; 1 + EPOCHS]>),
    Shared { mapping: Arc<MmapRegion<()>>, at: usize },
}

/// What was found at one look.
#[derive(Clone, Copy)]
struct Look {
    mark: u64,
    epoch: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn own(bucket: zos_vmm_spec::Bucket) -> Self {
        Self::new(bucket, Cells::Own(Box::default()))
    }

    /// The one that stands at this place of a twin's file.
    pub(super) fn shared(
        bucket: zos_vmm_spec::Bucket,
        mapping: Arc<MmapRegion<()>>,
        at: usize,
    ) -> Self {
        Self::new(bucket, Cells::Shared { mapping, at })
    }

    fn new(bucket: zos_vmm_spec::Bucket, cells: Cells) -> Self {
        let within = |tokens: u64| tokens.clamp(1, MOST);
        Self { per_second: within(bucket.per_second), burst: within(bucket.burst), cells }
    }

    /// Takes tokens, or tells when they will be there. More than the burst are taken when the bucket
    /// is full.
    pub(super) fn take(&self, now: u64, tokens: u64) -> Result<(), u64> {
        let tokens = tokens.min(MOST);
        for _ in 0..TRIES {
            // Only a mapping that is too short has no cells, and none was accepted.
            let Some(look) = self.look() else { return Ok(()) };
            // Another who begins the same epoch may have come first: the later time counts, so that
            // no token comes twice.
            let from_now = |found: u64| {
                if found > now.saturating_add(AHEAD) { now } else { found.max(now) }
            };
            let done = if look.epoch > now.saturating_add(AHEAD) {
                self.begin(look, 1, self.burst, from_now);
                false
            } else if self.is_full(look, now) {
                self.begin(look, 1, tokens, from_now)
            } else if let Some(at) = self.missing(look, now, tokens.min(self.burst)) {
                return Err(at);
            } else if look.taken() >= LONG {
                let past = now.saturating_sub(look.epoch) / NANOS;
                let seconds = past.min(look.taken() / self.per_second);
                let taken = look.taken() - seconds * self.per_second + tokens;
                // Two steps on: no epoch that begins full stands there.
                self.begin(look, 2, taken, |_| look.epoch + seconds * NANOS)
            } else {
                self.set_mark(look, look.mark + tokens)
            };
            if done {
                return Ok(());
            }
        }
        Err(now.saturating_add(NOISE))
    }

    /// Gives back what was just taken.
    pub(super) fn give_back(&self, tokens: u64) {
        let tokens = tokens.min(MOST);
        for _ in 0..TRIES {
            let Some(look) = self.look() else { return };
            if self.set_mark(look, look.mark - tokens.min(look.taken())) {
                return;
            }
        }
    }

    /// When so many tokens will be there, if they aren't now.
    pub(super) fn when(&self, now: u64, tokens: u64) -> Option<u64> {
        let look = self.look()?;
        if self.is_full(look, now) {
            return None;
        }
        self.missing(look, now, tokens.min(self.burst))
    }

    fn is_full(&self, look: Look, now: u64) -> bool {
        self.earned(look, now) >= u128::from(look.taken())
    }

    /// Whole tokens that came since the epoch.
    fn earned(&self, look: Look, now: u64) -> u128 {
        let time = now.saturating_sub(look.epoch);
        u128::from(self.per_second) * u128::from(time) / u128::from(NANOS)
    }

    /// The first nanosecond at which a bucket that isn't full has so many tokens, if that is to come.
    fn missing(&self, look: Look, now: u64, tokens: u64) -> Option<u64> {
        let needed = u128::from(look.taken()) + u128::from(tokens);
        let needed = needed.saturating_sub(u128::from(self.burst));
        let short = needed > self.earned(look, now);
        let time = || (needed * u128::from(NANOS)).div_ceil(u128::from(self.per_second));
        short.then(|| look.epoch.saturating_add(u64::try_from(time()).unwrap_or(u64::MAX)))
    }

    /// Begins an epoch with so many tokens taken; its time is chosen by what stands in its place.
    fn begin(&self, look: Look, step: u64, taken: u64, epoch: impl Fn(u64) -> u64) -> bool {
        let next = (look.number() + step) % (1 << (64 - TAKEN_BITS));
        let Some((mark, cell)) = self.cell(0).zip(self.cell(1 + place(next))) else { return true };
        let found = cell.load(Ordering::SeqCst);
        // What was found must belong to nobody who is further on than our look.
        mark.load(Ordering::SeqCst) == look.mark
            && cell
                .compare_exchange(found, epoch(found), Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
            && self.set_mark(look, next << TAKEN_BITS | taken)
    }

    fn look(&self) -> Option<Look> {
        let mark = self.cell(0)?.load(Ordering::SeqCst);
        let epoch = self.cell(1 + place(mark >> TAKEN_BITS))?.load(Ordering::SeqCst);
        Some(Look { mark, epoch })
    }

    fn set_mark(&self, look: Look, mark: u64) -> bool {
        let swap = |cell: &AtomicU64| {
            cell.compare_exchange(look.mark, mark, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        self.cell(0).is_none_or(swap)
    }

    fn cell(&self, index: usize) -> Option<&AtomicU64> {
        match &self.cells {
            Cells::Own(cells) => cells.get(index),
            Cells::Shared { mapping, at } => {
                let at = at + if index == 0 { MARK_AT } else { EPOCHS_AT + (index - 1) * 8 };
                mapping.get_atomic_ref(at).ok()
            }
        }
    }
}

impl Look {
    fn number(self) -> u64 {
        self.mark >> TAKEN_BITS
    }

    fn taken(self) -> u64 {
        self.mark & TAKEN
    }
}

/// Where an epoch stands.
fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % EPOCHS
}
