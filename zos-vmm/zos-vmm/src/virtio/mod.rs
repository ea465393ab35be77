//! virtio 1.2, modern only, over PCI.
//!
//! ```text
//!  guest ─ registers ─▶ transport (one per device, PCI function, status machine)
//!                          │ DRIVER_OK: queues move            ▲ reset: the worker has let go
//!                          ▼                                   │
//!                       worker thread ─ kicks ─▶ Backend (blk, net, rng) ─▶ Interrupt ─▶ MSI-X
//! ```
//!
//! A device is a folder: its [`Profile`] (what the guest reads of it) and its [`Backend`] (what
//! its thread does). To write a new one look at `rng`, then at `blk`.
//!
//! A queue is moved into the worker on activation: no register that a guest writes later can
//! reach it.

pub mod blk;
mod chain;
#[cfg(test)]
mod driver;
mod interrupt;
pub mod net;
mod queue;
pub mod rng;
mod transport;
mod worker;

pub use chain::{Chain, ChainError};
pub use interrupt::{Interrupt, Vectors};
pub use queue::{ActiveQueue, Broken, Used};
pub use transport::{BAR_BYTES, DeviceError, IoEvents, Surroundings, VirtioPci};
pub use worker::{Worker, WorkerError};

use crate::memory::GuestMemory;
use rustix::event::PollFlags;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// `VIRTIO_F_VERSION_1`: we speak to no older driver.
pub const F_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_INDIRECT_DESC`.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// What every device of ours offers.
pub const F_RING: u64 = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX;

/// What a guest may know of a device before it drives it. It never changes.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Device type (virtio 1.2, chapter 5).
    pub kind: u16,
    /// PCI class code.
    pub class: u32,
    /// Features offered, those of [`F_RING`] included.
    pub features: u64,
    /// Largest size of each queue.
    pub queues: &'static [u16],
    /// The device-specific configuration; a guest can't change it.
    pub config: Vec<u8>,
}

/// What a device gets when its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The queues by index; each is enabled and lies wholly in memory.
    pub queues: Vec<ActiveQueue>,
    /// Features that both sides agreed on.
    pub features: u64,
    /// How to tell the driver.
    pub interrupt: Arc<Interrupt>,
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

/// A device's work, done in its own thread.
pub trait Backend: Send {
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

    /// A descriptor of the outside world to wait for now, if any.
    fn outside(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        None
    }

    /// That descriptor is ready.
    ///
    /// # Errors
    /// The queue is broken; the device then needs a reset.
    fn outside_ready(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// The driver is gone: lets go of everything that `activate` gave.
    fn reset(&mut self);
}
