//! The balloon's size and numbers, for the API and metrics: any thread may hold one.

use super::{ACTUAL, COUNTERS, NUM_PAGES, PAGE, TARGET_BYTES, put, stats, word};
use crate::event::Event;
use crate::virtio::{ConfigSpace, Counters};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A balloon, from outside its thread. Cloning shares it.
#[derive(Clone, Debug)]
pub struct BalloonHandle {
    pub(super) config: ConfigSpace,
    pub(super) counters: Counters,
    pub(super) ask: Arc<Event>,
    memory: u64,
}

/// A size that no balloon can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a balloon of {target} bytes isn't smaller than the guest's memory of {memory}")]
pub struct TargetError {
    /// What was asked for.
    pub target: u64,
    /// What the guest has.
    pub memory: u64,
}

impl BalloonHandle {
    pub(super) fn new(
        config: ConfigSpace,
        counters: Counters,
        ask: Arc<Event>,
        memory: u64,
    ) -> Self {
        Self { config, counters, ask, memory }
    }

    /// Tells the guest how many bytes it shall give back; it does so in its own time.
    ///
    /// # Errors
    /// As much as its memory, or more.
    pub fn set_target(&self, target: u64) -> Result<(), TargetError> {
        let memory = self.memory;
        if target >= memory {
            return Err(TargetError { target, memory });
        }
        self.counters.set(TARGET_BYTES, target);
        self.config.change(|bytes| put(bytes, NUM_PAGES, pages(target)));
        Ok(())
    }

    /// Bytes that the guest shall give back.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.read(NUM_PAGES)
    }

    /// Bytes that it says it has given back.
    #[must_use]
    pub fn actual(&self) -> u64 {
        self.read(ACTUAL).min(self.memory)
    }

    /// Asks the driver for new statistics. They come in its own time, or never; `stats_answers`
    /// among the counters counts them.
    pub fn ask_stats(&self) {
        self.ask.signal();
    }

    /// What the driver told last, by the names of Linux's tags; nothing when it never told.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.counters.read();
        if all.get(COUNTERS[super::STATS_ANSWERS]).is_none_or(|answers| *answers == 0) {
            return BTreeMap::new();
        }
        all.retain(|name, _| stats::NAMES.contains(name));
        all
    }

    fn read(&self, at: usize) -> u64 {
        let mut bytes = [0; 4];
        self.config.read(at, &mut bytes);
        u64::from(word(&bytes, 0)) * PAGE
    }
}

/// Bytes as pages of the balloon, rounded down.
pub(super) fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}
