//! What went through a device: counted by its thread, read by anyone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A device's counters, each with a name; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<[(&'static str, AtomicU64)]>);

impl Counters {
    /// Zeros. A device keeps the indices of its names beside them.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| (*name, AtomicU64::new(0))).collect())
    }

    /// Adds to the counter of this index; one that isn't there takes nothing.
    pub fn add(&self, index: usize, count: u64) {
        if let Some((_, counter)) = self.0.get(index) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Sets a counter that is a level, such as the size of a balloon.
    pub fn set(&self, index: usize, value: u64) {
        if let Some((_, counter)) = self.0.get(index) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    /// All of them now.
    #[must_use]
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        self.0.iter().map(|(name, counter)| (*name, counter.load(Ordering::Relaxed))).collect()
    }
}
