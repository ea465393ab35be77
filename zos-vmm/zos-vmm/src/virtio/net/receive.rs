//! From the tap to the guest.
//!
//! Chains are taken from the queue ahead of time, until they hold the largest frame; a frame is read
//! into all of them at once; what it didn't reach stays for the next.
//!
//! ```text
//!  queue ──▶ [chain 1][chain 2][chain 3] ... ──▶ bytes >= largest frame ──▶ readv
//!             └── frame ──────┘   kept
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | chains too small for any frame | without room the tap isn't read; frames are lost there |
//! | a chain that is malformed or read-only | given back empty, never used |

use super::{ActiveQueue, HEADER_BYTES, Interrupt};
use crate::memory::{GuestMemory, IoVecs};
use crate::virtio::{Broken, Chain, SHARE, Used};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

/// Where `num_buffers` stands in the header.
const NUM_BUFFERS_AT: usize = 10;
/// Most pieces of one chain; drivers use one or two.
const MOST_PIECES: usize = 64;
/// With this many pieces held, there's no room for one more chain in a call.
const FULL: usize = 1024 - MOST_PIECES;

/// The receiving side.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    chain: Chain,
    mergeable: bool,
    largest: usize,
    // Chains that wait for a frame, and all their pieces, one behind the other.
    held: VecDeque<Held>,
    pieces: IoVecs,
    used: Vec<Used>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    head: u16,
    bytes: usize,
}

impl Receiver {
    pub(super) fn new(
        memory: &GuestMemory,
        queue: ActiveQueue,
        mergeable: bool,
        largest: usize,
    ) -> Self {
        Self {
            queue,
            chain: Chain::new(memory),
            mergeable,
            largest,
            held: VecDeque::new(),
            pieces: IoVecs::new(memory.clone()),
            used: Vec::new(),
        }
    }

    /// Whether a frame can be taken.
    pub(super) fn has_room(&self) -> bool {
        if self.mergeable {
            self.pieces.bytes() >= self.largest || self.pieces.pieces() > FULL
        } else {
            !self.held.is_empty()
        }
    }

    /// The driver kicked: takes what it gave, until a frame has room.
    pub(super) fn refill(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
    ) -> Result<(), Broken> {
        self.queue.quiet(memory)?;
        while !self.has_room() {
            match self.queue.next(memory, &mut self.chain)? {
                Some(loaded) => {
                    if loaded.is_err() || !self.hold()? {
                        self.queue.give_back(memory, self.chain.head, 0)?;
                    }
                }
                None if self.queue.listen(memory)? => self.queue.quiet(memory)?,
                None => break,
            }
        }
        self.queue.notify(memory, interrupt)
    }

    /// Keeps the loaded chain, if it is one for receiving.
    fn hold(&mut self) -> Result<bool, Broken> {
        let room = &self.chain.writable;
        let right = self.chain.readable.bytes() == 0
            && room.bytes() >= HEADER_BYTES
            && room.pieces() <= MOST_PIECES;
        if right {
            self.held.push_back(Held { head: self.chain.head, bytes: room.bytes() });
            self.pieces.append(room).map_err(|_| Broken::Ring)?;
        }
        Ok(right)
    }

    /// Takes a share of the frames that wait.
    pub(super) fn receive(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        tap: BorrowedFd<'_>,
    ) -> Result<(), Broken> {
        for _ in 0..SHARE {
            if !self.has_room() {
                break;
            }
            match self.pieces.read_packet(tap) {
                Ok(bytes) => self.deliver(memory, bytes)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Nothing more, or the interface is down.
                Err(_) => break,
            }
            self.refill(memory, interrupt)?;
        }
        self.queue.notify(memory, interrupt)
    }

    /// A frame of this many bytes stands in the pieces: gives back the chains that it fills.
    fn deliver(&mut self, memory: &GuestMemory, bytes: usize) -> Result<(), Broken> {
        self.used.clear();
        let mut rest = bytes;
        let mut consumed = 0;
        while rest > 0 || self.used.is_empty() {
            let Some(held) = self.held.pop_front() else { break };
            let written = rest.min(held.bytes);
            self.used.push(Used { head: held.head, written });
            rest -= written;
            consumed += held.bytes;
        }
        let count = u16::try_from(self.used.len()).unwrap_or(1);
        self.pieces.put(NUM_BUFFERS_AT, &count.to_le_bytes());
        self.pieces.advance(consumed);
        self.queue.give_back_all(memory, &self.used)
    }
}
