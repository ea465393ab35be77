//! A queue that was moved out of the guest's reach, and what a broken one is.

use super::{Chain, ChainError, Interrupt};
use crate::memory::GuestMemory;
use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, Le32};

/// Offsets in the rings (virtio 1.2, 2.7.6 and 2.7.8).
const RING_AT: u64 = 4;
const AVAIL_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;

/// The driver broke a rule after which the device can't go on; it has to reset it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The available index is further ahead than the ring is long.
    #[error("the available ring's index is out of range")]
    Available,
    /// The rings left the guest's memory, or a queue is missing.
    #[error("a ring can't be accessed")]
    Ring,
    /// A buffer was made available again before it came back.
    #[error("a buffer is available twice")]
    Twice,
    /// The backing can't be set up as the driver wants it.
    #[error("the device's backing can't be set up")]
    Backing,
}

/// A chain that is given back: its head, and how many bytes of it were filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's head.
    pub head: u16,
    /// Bytes written for the driver.
    pub written: usize,
}

/// Where a queue's rings lie in the guest's memory: for a back-end in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Entries.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
}

/// A queue in its worker's hands.
#[derive(Debug)]
pub struct ActiveQueue {
    index: usize,
    queue: Queue,
    // The used index at the last look at what the driver wants to hear.
    told: Wrapping<u16>,
}

impl ActiveQueue {
    /// A queue that was checked: enabled, rings in memory.
    #[must_use]
    pub fn new(index: usize, queue: Queue) -> Self {
        Self { index, told: Wrapping(queue.next_used()), queue }
    }

    /// Entries of its rings.
    #[must_use]
    pub fn size(&self) -> usize {
        self.queue.size().into()
    }

    /// Where its rings are.
    #[must_use]
    pub fn rings(&self) -> Rings {
        Rings {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
        }
    }

    /// Loads the next available chain, `None` when there is none. A malformed one has its head in
    /// `chain`, to be given back.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn next(
        &mut self,
        memory: &GuestMemory,
        chain: &mut Chain,
    ) -> Result<Option<Result<(), ChainError>>, Broken> {
        let next = self.queue.iter(memory).map_err(|_| Broken::Available)?.next();
        Ok(next.map(|descriptors| chain.load(descriptors)))
    }

    /// Gives a chain back: `written` bytes of it were filled.
    ///
    /// # Errors
    /// The used ring is out of reach.
    pub fn give_back(
        &mut self,
        memory: &GuestMemory,
        head: u16,
        written: usize,
    ) -> Result<(), Broken> {
        self.give_back_all(memory, &[Used { head, written }])
    }

    /// Gives several chains back at once: the driver sees all of them or none.
    ///
    /// # Errors
    /// The used ring is out of reach.
    pub fn give_back_all(&mut self, memory: &GuestMemory, used: &[Used]) -> Result<(), Broken> {
        let Some((last, others)) = used.split_last() else { return Ok(()) };
        let length = |used: &Used| u32::try_from(used.written).unwrap_or(u32::MAX);
        let mut next = Wrapping(self.queue.next_used());
        for used in others {
            if used.head >= self.queue.size() {
                return Err(Broken::Ring);
            }
            let entry = u64::from(next.0 % self.queue.size());
            let address = self.queue.used_ring() + RING_AT + entry * USED_ENTRY;
            let element = [Le32::from(u32::from(used.head)), Le32::from(length(used))];
            let [head, written] = element;
            memory.write_obj(head, GuestAddress(address)).map_err(|_| Broken::Ring)?;
            memory.write_obj(written, GuestAddress(address + 4)).map_err(|_| Broken::Ring)?;
            next += 1;
        }
        // The last one stores the index, and so publishes all.
        self.queue.set_next_used(next.0);
        self.queue.add_used(memory, last.head, length(last)).map_err(|_| Broken::Ring)
    }

    /// Tells the driver of used buffers, if it wants to know (virtio 1.2, 2.7.7.2).
    ///
    /// # Errors
    /// The ring is out of reach.
    pub fn notify(&mut self, memory: &GuestMemory, interrupt: &Interrupt) -> Result<(), Broken> {
        // The used index must be visible before we look at what the driver wants.
        fence(Ordering::SeqCst);
        let read = |address: u64| -> Result<Wrapping<u16>, Broken> {
            let word: u16 =
                memory.load(GuestAddress(address), Ordering::Relaxed).map_err(|_| Broken::Ring)?;
            Ok(Wrapping(u16::from_le(word)))
        };
        let new = Wrapping(self.queue.next_used());
        let old = std::mem::replace(&mut self.told, new);
        let avail = self.queue.avail_ring();
        let wanted = if self.queue.event_idx_enabled() {
            let event = read(avail + RING_AT + AVAIL_ENTRY * u64::from(self.queue.size()))?;
            passed(event, old, new)
        } else {
            new != old && read(avail)?.0 & NO_INTERRUPT == 0
        };
        if wanted {
            interrupt.queue(self.index);
        }
        Ok(())
    }

    /// Asks for no kicks while the queue is worked on.
    ///
    /// # Errors
    /// The ring is out of reach.
    pub fn quiet(&mut self, memory: &GuestMemory) -> Result<(), Broken> {
        self.queue.disable_notification(memory).map_err(|_| Broken::Ring)
    }

    /// Asks for kicks again; true when buffers came in between, so that the caller looks again.
    ///
    /// # Errors
    /// The ring is out of reach.
    pub fn listen(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        self.queue.enable_notification(memory).map_err(|_| Broken::Ring)
    }
}

/// Whether the used index went over the one that the driver waits for, on its way from `old` to
/// `new` (virtio 1.2, 2.7.7.2).
fn passed(event: Wrapping<u16>, old: Wrapping<u16>, new: Wrapping<u16>) -> bool {
    new - event - Wrapping(1) < new - old
}

#[cfg(test)]
mod tests;
