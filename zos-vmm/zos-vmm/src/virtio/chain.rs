//! One request: the buffers of a descriptor chain, readable ones first.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a chain that loops, an index past the table | `virtio-queue` ends the chain after queue-size steps |
//! | a buffer outside memory, lengths that wrap | refused when pushed |
//! | a readable buffer behind a writable one | malformed (virtio 1.2, 2.7.4.2) |
//! | ten thousand buffers | at most 1024 pieces |

use crate::memory::{GuestMemory, IoVecError, IoVecs};
use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes, GuestAddress};

/// Why a chain is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A buffer isn't memory, or there are too many.
    #[error(transparent)]
    Buffer(#[from] IoVecError),
    /// A readable buffer behind a writable one.
    #[error("a readable buffer stands behind a writable one")]
    Order,
}

/// The buffers of one chain; kept by a worker and loaded again for each request.
#[derive(Debug)]
pub struct Chain {
    /// The chain's head, by which it is given back.
    pub head: u16,
    /// What the driver wrote for us.
    pub readable: IoVecs,
    /// Where we write for the driver.
    pub writable: IoVecs,
    memory: GuestMemory,
    last_writable: Option<GuestAddress>,
}

impl Chain {
    /// An empty one.
    #[must_use]
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            head: 0,
            readable: IoVecs::new(memory.clone()),
            writable: IoVecs::new(memory.clone()),
            memory: memory.clone(),
            last_writable: None,
        }
    }

    /// Loads a chain. `head` is valid afterwards also in case of an error.
    ///
    /// # Errors
    /// The chain is malformed.
    pub fn load(&mut self, descriptors: DescriptorChain<&GuestMemory>) -> Result<(), ChainError> {
        self.head = descriptors.head_index();
        self.readable.clear();
        self.writable.clear();
        self.last_writable = None;
        for descriptor in descriptors {
            let length = descriptor.len() as usize;
            if descriptor.is_write_only() {
                self.writable.push(descriptor.addr(), length)?;
                if let Some(last) = length.checked_sub(1) {
                    self.last_writable = descriptor.addr().checked_add(last as u64);
                }
            } else if self.writable.bytes() > 0 {
                return Err(ChainError::Order);
            } else {
                self.readable.push(descriptor.addr(), length)?;
            }
        }
        Ok(())
    }

    /// Takes the last writable byte away, to be written at the end: a request's status.
    pub fn take_status(&mut self) -> Option<StatusByte> {
        let address = self.last_writable.take()?;
        self.writable.shorten(1);
        Some(StatusByte { address })
    }

    /// Writes the status byte.
    pub fn set_status(&self, at: &StatusByte, status: u8) {
        // It was in memory when it was loaded, and memory doesn't go away.
        let _ = self.memory.write_obj(status, at.address);
    }
}

/// Holding one proves that the chain has a writable byte which its data doesn't overlap.
#[derive(Debug)]
pub struct StatusByte {
    address: GuestAddress,
}
