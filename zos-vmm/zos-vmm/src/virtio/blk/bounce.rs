//! A disk that was opened for direct I/O wants aligned memory; a guest's buffers needn't be.
//!
//! ```text
//!  guest's pieces ── copy, at most 256 KiB at a time ── buffer of pages ── disk
//! ```
//!
//! Each queue has one such buffer: requests that need it wait for each other.

use crate::memory::{self, IoVecs, MemoryError};
use vm_memory::GuestAddress;

const BYTES: usize = 256 << 10;

/// The buffer, and as much of it as the next call shall use.
#[derive(Debug)]
pub(super) struct Bounce {
    pieces: IoVecs,
}

impl Bounce {
    pub(super) fn new() -> Result<Self, MemoryError> {
        let memory = memory::create(&[(GuestAddress(0), BYTES)])?;
        Ok(Self { pieces: IoVecs::new(memory) })
    }

    pub(super) fn pieces(&self) -> &IoVecs {
        &self.pieces
    }

    /// Makes room for so many bytes, or as many as fit.
    pub(super) fn empty(&mut self, bytes: usize) {
        self.pieces.clear();
        // It is one piece of this very memory: it can't be refused.
        let _ = self.pieces.push(GuestAddress(0), bytes.min(BYTES));
    }

    /// Takes a copy of the first bytes.
    pub(super) fn fill(&mut self, source: &IoVecs) {
        self.empty(source.bytes());
        source.copy_to(&self.pieces);
    }

    /// Gives what was read to its target, which loses that room.
    pub(super) fn copy_out(&self, target: &mut IoVecs, count: usize) {
        self.pieces.copy_to(target);
        target.advance(count);
    }
}
