//! What all pairs of a device share: the tap, the filter, the link, the counters.

use super::filter::Filter;
use super::steering::Steering;
use crate::virtio::{ConfigSpace, Counters};
use std::sync::atomic::{AtomicBool, Ordering};

/// Counters by their indices.
pub(super) const COUNTERS: &[&str] = &[
    "rx_bytes",
    "rx_frames",
    "rx_dropped",
    "tx_bytes",
    "tx_frames",
    "tx_dropped",
    "tx_filtered",
    "throttled",
];
pub(super) const RX_BYTES: usize = 0;
pub(super) const RX_FRAMES: usize = 1;
pub(super) const RX_DROPPED: usize = 2;
pub(super) const TX_BYTES: usize = 3;
pub(super) const TX_FRAMES: usize = 4;
pub(super) const TX_DROPPED: usize = 5;
pub(super) const TX_FILTERED: usize = 6;
pub(super) const THROTTLED: usize = 7;

/// Where the link's state stands in the configuration, and that it is up (5.1.4).
pub(super) const STATUS_AT: usize = 6;
pub(super) const LINK_UP: u8 = 1;

/// One device's common ground.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) steering: Steering,
    pub(super) filter: Option<Filter>,
    pub(super) config: ConfigSpace,
    pub(super) counters: Counters,
    lost: AtomicBool,
}

impl Shared {
    pub(super) fn new(steering: Steering, filter: Option<Filter>, config: ConfigSpace) -> Self {
        let counters = Counters::new(COUNTERS);
        Self { steering, filter, config, counters, lost: AtomicBool::new(false) }
    }

    /// The tap is gone: the guest sees its cable pulled, and nobody waits for frames any more.
    pub(super) fn lose_link(&self) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            self.config.change(|bytes| bytes[STATUS_AT] = 0);
        }
    }

    /// A driver starts: the tap is worth another try.
    pub(super) fn try_link(&self) {
        if self.lost.swap(false, Ordering::Relaxed) {
            self.config.change(|bytes| bytes[STATUS_AT] = LINK_UP);
        }
    }

    pub(super) fn has_link(&self) -> bool {
        !self.lost.load(Ordering::Relaxed)
    }
}
