//! How a device tells its driver: a message per queue, and one for configuration and status.

use crate::pci::{Msix, VECTOR_NONE};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The vector registers: written by the driver, read when an interrupt is raised.
#[derive(Debug)]
pub struct Vectors {
    config: AtomicU16,
    queues: Vec<AtomicU16>,
    count: u16,
}

impl Vectors {
    /// All "none". There is a vector for each queue and one for the configuration.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        let none = || AtomicU16::new(VECTOR_NONE);
        let count = u16::try_from(queues + 1).unwrap_or(0);
        Self { config: none(), queues: (0..queues).map(|_| none()).collect(), count }
    }

    /// Vectors in the table.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The configuration's vector.
    #[must_use]
    pub fn config(&self) -> u16 {
        self.config.load(Ordering::Relaxed)
    }

    /// A queue's vector; "none" for a queue that isn't there.
    #[must_use]
    pub fn queue(&self, index: usize) -> u16 {
        self.queues.get(index).map_or(VECTOR_NONE, |vector| vector.load(Ordering::Relaxed))
    }

    /// Sets the configuration's vector; one past the table becomes "none", which the driver reads
    /// back as a refusal.
    pub fn set_config(&self, vector: u16) {
        self.config.store(self.checked(vector), Ordering::Relaxed);
    }

    /// Sets a queue's vector, as above.
    pub fn set_queue(&self, index: usize, vector: u16) {
        if let Some(register) = self.queues.get(index) {
            register.store(self.checked(vector), Ordering::Relaxed);
        }
    }

    fn checked(&self, vector: u16) -> u16 {
        if vector < self.count { vector } else { VECTOR_NONE }
    }
}

/// A device's way to its driver.
#[derive(Debug)]
pub struct Interrupt {
    msix: Arc<Msix>,
    vectors: Arc<Vectors>,
    isr: AtomicU8,
    needs_reset: AtomicBool,
}

impl Interrupt {
    /// For a function with this table and these registers.
    #[must_use]
    pub fn new(msix: Arc<Msix>, vectors: Arc<Vectors>) -> Self {
        Self { msix, vectors, isr: AtomicU8::new(0), needs_reset: AtomicBool::new(false) }
    }

    /// Used buffers are in this queue.
    pub fn queue(&self, index: usize) {
        self.isr.fetch_or(ISR_QUEUE, Ordering::Relaxed);
        self.msix.raise(self.vectors.queue(index));
    }

    /// The configuration changed.
    pub fn config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::Relaxed);
        self.msix.raise(self.vectors.config());
    }

    /// The device can't go on: sets `DEVICE_NEEDS_RESET` and tells the driver.
    pub fn need_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.config();
    }

    /// Whether the device said that it can't go on.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The driver reads the status register, which clears it.
    #[must_use]
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::Relaxed)
    }

    /// The driver resets the device.
    pub fn reset(&self) {
        self.isr.store(0, Ordering::Relaxed);
        self.needs_reset.store(false, Ordering::Release);
        self.vectors.set_config(VECTOR_NONE);
        (0..self.vectors.queues.len()).for_each(|i| self.vectors.set_queue(i, VECTOR_NONE));
    }
}
