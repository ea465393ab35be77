//! From the tap to the guest.
//!
//! Chains are taken from the queue ahead of time, until they hold the largest frame; a frame is
//! read into all of them at once, and what has no room goes into `over`, to be copied into the
//! chains that come next. What a frame didn't reach stays for the next one.
//!
//! ```text
//!  queue ──▶ [chain 1][chain 2][chain 3] + over ──▶ readv
//!             └── frame ──────┘   kept        a frame that reaches into `over` waits for chains
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | few or small chains | frames wait in the tap, which then drops; one waits here |
//! | chains that all together are too small for a frame | that frame is dropped |
//! | without merging, a chain too small for a frame | that frame is dropped, the chain waits on |
//! | to receive more than it may | one frame waits here for its tokens, the others in the tap |
//! | a chain that is malformed or read-only | given back empty, never used |
//! | the same chain over and over, faster than we look | a bounded number in a turn; never more held than the ring has |

use super::features::GUEST_SEGMENTS;
use super::header;
use super::shared::{RX_BYTES, RX_DROPPED, RX_FRAMES, Shared};
use super::transmit::Cost;
use super::{ActiveQueue, F_MRG_RXBUF, Interrupt, LARGEST_FRAME, PLAIN_FRAME, Share};
use crate::memory::{GuestMemory, IoVecs};
use crate::virtio::{Broken, Chain, SHARE, Used};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd;

/// Most pieces of one chain; drivers use one or two.
const MOST_PIECES: usize = 64;
/// With this many pieces held, there's no room for one more chain and `over` in a call.
const FULL: usize = 1023 - MOST_PIECES;
/// Most chains taken in a turn.
const MOST_CHAINS: usize = 1024;

/// The receiving side of a pair.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    chain: Chain,
    mergeable: bool,
    largest: usize,
    // Chains that wait for a frame, and all their pieces, one behind the other.
    held: VecDeque<Held>,
    pieces: IoVecs,
    // Filled chains, to be given back at the turn's end.
    used: Vec<Used>,
    over: Box<[u8]>,
    frame: Option<Frame>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    head: u16,
    bytes: usize,
}

/// A frame that was read: so many bytes of it stand in the pieces, the others in `over`.
#[derive(Clone, Copy, Debug)]
struct Frame {
    bytes: usize,
    placed: usize,
    paid: bool,
}

impl Receiver {
    pub(super) fn new(memory: &GuestMemory, queue: ActiveQueue, features: u64) -> Self {
        let segments = features & GUEST_SEGMENTS != 0;
        Self {
            queue,
            chain: Chain::new(memory),
            mergeable: features & F_MRG_RXBUF != 0,
            largest: if segments { LARGEST_FRAME } else { PLAIN_FRAME },
            held: VecDeque::new(),
            pieces: IoVecs::new(memory.clone()),
            used: Vec::new(),
            over: vec![0; LARGEST_FRAME].into_boxed_slice(),
            frame: None,
        }
    }

    /// Whether a frame could be taken now, so that it is worth hearing of one.
    pub(super) fn has_room(&self) -> bool {
        self.frame.is_none() && !self.held.is_empty()
    }

    /// A share of what can be done: takes chains and frames, a frame when `may` says so.
    pub(super) fn turn(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        shared: &Shared,
        tap: impl AsFd,
        mut may: impl FnMut(Cost) -> bool,
    ) -> Result<Share, Broken> {
        self.queue.quiet(memory)?;
        let mut chains = MOST_CHAINS;
        for _ in 0..SHARE {
            self.gather(memory, &mut chains)?;
            if self.frame.is_none() && !self.read(shared, &tap) {
                break;
            }
            if !self.settle(shared, &mut may) {
                break;
            }
        }
        self.queue.give_back_all(memory, &self.used)?;
        self.used.clear();
        self.queue.notify(memory, interrupt)?;
        // With enough room there is no use in hearing of more.
        let more = self.wants_chains() && (self.queue.listen(memory)? || chains == 0);
        Ok(if more { Share::More } else { Share::Done })
    }

    /// Reads a frame, if there is a place for it; false: there is no place or no frame.
    fn read(&mut self, shared: &Shared, tap: impl AsFd) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let room = self.pieces.bytes();
        match self.pieces.read_packet_past(tap, &mut self.over) {
            // With the last byte of the room filled, more of it may be lost.
            Ok(bytes) if bytes < header::BYTES || bytes == room + self.over.len() => {
                shared.counters.add(RX_DROPPED, 1);
            }
            Ok(bytes) => {
                self.frame = Some(Frame { bytes, placed: room.min(bytes), paid: false });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    shared.lose_link();
                }
                return false;
            }
        }
        true
    }

    /// Delivers the frame that was read, or drops it; false: it has to wait.
    fn settle(&mut self, shared: &Shared, may: &mut impl FnMut(Cost) -> bool) -> bool {
        let Some(frame) = &mut self.frame else { return true };
        let bytes = frame.bytes - header::BYTES;
        // The tap counts a segmented frame once; on a wire it would be as many.
        frame.paid = frame.paid || may(Cost { bytes, frames: bytes.div_ceil(PLAIN_FRAME).max(1) });
        let frame = *frame;
        if !frame.paid {
            return false;
        }
        if frame.bytes <= self.pieces.bytes() {
            self.pieces.put(frame.placed, &self.over[..frame.bytes - frame.placed]);
            self.deliver(frame.bytes);
            shared.counters.add(RX_BYTES, bytes as u64);
            shared.counters.add(RX_FRAMES, 1);
        } else if self.is_full() {
            shared.counters.add(RX_DROPPED, 1);
        } else {
            return false;
        }
        self.frame = None;
        true
    }

    /// Whether more chains are of use.
    fn wants_chains(&self) -> bool {
        let target = self.frame.map_or(self.largest, |frame| frame.bytes);
        !self.is_full() && (!self.mergeable || self.pieces.bytes() < target)
    }

    /// Whether no chain more can be held for one frame.
    fn is_full(&self) -> bool {
        if self.mergeable {
            self.pieces.pieces() > FULL || self.held.len() >= self.queue.size()
        } else {
            !self.held.is_empty()
        }
    }

    /// Takes what the driver gave, as long as it is of use.
    fn gather(&mut self, memory: &GuestMemory, chains: &mut usize) -> Result<(), Broken> {
        // Those that were filled in this turn are still the driver's to miss.
        while self.wants_chains()
            && self.held.len() + self.used.len() < self.queue.size()
            && *chains > 0
        {
            let Some(loaded) = self.queue.next(memory, &mut self.chain)? else { break };
            *chains -= 1;
            if loaded.is_err() || !self.hold()? {
                self.used.push(Used { head: self.chain.head, written: 0 });
            }
        }
        Ok(())
    }

    /// Keeps the loaded chain, if it is one for receiving.
    fn hold(&mut self) -> Result<bool, Broken> {
        let room = &self.chain.writable;
        let right = self.chain.readable.bytes() == 0
            && room.bytes() >= header::BYTES
            && room.pieces() <= MOST_PIECES;
        if right {
            self.held.push_back(Held { head: self.chain.head, bytes: room.bytes() });
            self.pieces.append(room).map_err(|_| Broken::Ring)?;
        }
        Ok(right)
    }

    /// A frame of this many bytes stands in the pieces: the chains that it fills are done.
    fn deliver(&mut self, bytes: usize) {
        let (mut rest, mut consumed, mut count) = (bytes, 0, 0u16);
        while rest > 0 {
            let Some(held) = self.held.pop_front() else { break };
            let written = rest.min(held.bytes);
            self.used.push(Used { head: held.head, written });
            rest -= written;
            consumed += held.bytes;
            count += 1;
        }
        self.pieces.put(header::NUM_BUFFERS_AT, &count.to_le_bytes());
        self.pieces.advance(consumed);
    }
}
