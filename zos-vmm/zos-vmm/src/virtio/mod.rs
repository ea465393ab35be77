//! virtio 1.2, modern only, over PCI.
//!
//! ```text
//!  guest ─ registers ─▶ transport (one per device, PCI function, status machine)
//!                          │ DRIVER_OK: queues move            ▲ reset: the worker has let go
//!                          ▼                                   │
//!                       worker thread ─ kicks ─▶ Backend (blk, net, ...) ─▶ Interrupt ─▶ MSI-X
//! ```
//!
//! A device is a folder: its [`Profile`] (what the guest reads of it) and its [`Backend`]s (what
//! its threads do), one for each [`Part`] of its queues. To write a new one look at `rng`, then at
//! `blk`.
//!
//! A queue is moved into the worker on activation: no register that a guest writes later can
//! reach it.

pub mod balloon;
pub mod blk;
mod chain;
mod config_space;
pub mod console;
mod counters;
// Fuzz targets need a part of it.
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod driver;
pub mod fs;
mod interrupt;
pub mod net;
mod queue;
pub mod rng;
mod transport;
pub mod vsock;
mod worker;

pub use chain::{Chain, ChainError};
pub use config_space::ConfigSpace;
pub use counters::Counters;
pub use interrupt::{Interrupt, Vectors};
pub use queue::{ActiveQueue, Broken, Used};
pub use transport::{BAR_BYTES, DeviceError, IoEvents, Part, Surroundings, VirtioPci};
pub use worker::{Desk, Waits, Worker, WorkerError};

use crate::event::Event;
use crate::memory::GuestMemory;
use std::sync::Arc;
use std::time::Instant;

/// `VIRTIO_F_VERSION_1`: we speak to no older driver.
pub const F_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_INDIRECT_DESC`.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// What every device of ours offers.
pub const F_RING: u64 = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX;

/// What a guest may know of a device before it drives it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Device type (virtio 1.2, chapter 5).
    pub kind: u16,
    /// PCI class code.
    pub class: u32,
    /// Features offered, those of [`F_RING`] included.
    pub features: u64,
    /// Largest size of each queue.
    pub queues: Vec<u16>,
    /// The device-specific configuration.
    pub config: ConfigSpace,
    /// What goes through it.
    pub counters: Counters,
}

/// What a device's part gets when its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The part's queues in their order; none where the driver enabled none. Each lies wholly in
    /// memory.
    pub queues: Vec<Option<ActiveQueue>>,
    /// Features that both sides agreed on.
    pub features: u64,
    /// How to tell the driver.
    pub interrupt: Arc<Interrupt>,
    /// The part's kicks in the order of its queues: for a backend that takes them. Nobody else
    /// waits for those.
    pub kicks: Vec<Arc<Event>>,
}

impl Activation {
    /// Takes a queue that the device can't work without.
    ///
    /// # Errors
    /// The driver didn't enable it.
    pub fn take(&mut self, queue: usize) -> Result<ActiveQueue, Broken> {
        self.queues.get_mut(queue).and_then(Option::take).ok_or(Broken::Ring)
    }

    /// Whether both sides agreed on this feature.
    #[must_use]
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }
}

/// Requests of one queue that are done before the thread looks up.
pub const SHARE: usize = 64;

/// What a share of work left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nothing: the next kick will tell.
    Done,
    /// More is there: call again without waiting.
    More,
}

/// The work of a device, or of its part with some of the queues, done in one thread. Queues are
/// numbered within the part.
pub trait Backend: Send {
    /// Whether it waits for the kicks itself, or lets another process do so: then `kicked` is never
    /// called. Asked once, when it is seated.
    fn takes_kicks(&self) -> bool {
        false
    }

    /// The driver is ready. Queues, memory and interrupt are the backend's until `reset`.
    ///
    /// # Errors
    /// The device can't work with what it got; it then needs a reset.
    fn activate(&mut self, activation: Activation) -> Result<(), Broken>;

    /// The driver put buffers into a queue. Does a bounded share of them, so that a guest which
    /// never stops kicking can't keep the thread from hearing a reset.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn kicked(&mut self, queue: usize) -> Result<Share, Broken>;

    /// Descriptors of the outside world to wait for now; asked only while it is active.
    fn outside<'a>(&'a self, _: &mut Waits<'a>) {}

    /// One of those descriptors is ready: the one of this token.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn ready(&mut self, _: u32) -> Result<(), Broken> {
        Ok(())
    }

    /// When it wants to go on by itself, such as when a bucket is full enough again; asked only
    /// while it is active.
    fn alarm(&self) -> Option<Instant> {
        None
    }

    /// That moment has come.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn rang(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// Comes to rest, active as it is: waits for requests under way, so that nothing of it touches
    /// guest memory afterwards. The VM is being paused.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn rest(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// Goes on after a rest.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn go_on(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// The driver is gone: waits for requests under way, and lets go of everything that `activate`
    /// gave.
    fn reset(&mut self);
}
