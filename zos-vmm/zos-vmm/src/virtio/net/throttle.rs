//! A limiter, and until when it said no.

use super::shared::{Shared, THROTTLED};
use super::transmit::Cost;
use crate::rate::{Limiter, Moment, Verdict};
use std::time::Instant;

/// One queue's limiter, and its alarm.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: Limiter,
    until: Option<Instant>,
    refused: bool,
}

impl Throttle {
    pub(super) fn new(limiter: Limiter) -> Self {
        Self { limiter, until: None, refused: false }
    }

    /// A turn begins: it will say anew whether there is to be an alarm.
    pub(super) fn begin(&mut self) {
        self.until = None;
    }

    /// Whether so much may go now; if not, there is an alarm for when to ask again.
    pub(super) fn may(&mut self, cost: Cost, shared: &Shared) -> bool {
        if self.limiter.is_unlimited() {
            return true;
        }
        match self.limiter.take(Moment::now(), cost.bytes as u64, cost.frames as u64) {
            Verdict::Allowed => {
                self.refused = false;
                true
            }
            Verdict::At(moment) => {
                self.until = Some(moment.instant());
                if !std::mem::replace(&mut self.refused, true) {
                    shared.counters.add(THROTTLED, 1);
                }
                false
            }
        }
    }

    /// There is more to do.
    pub(super) fn ring_now(&mut self) {
        self.until = Some(Instant::now());
    }

    /// When to go on.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}
