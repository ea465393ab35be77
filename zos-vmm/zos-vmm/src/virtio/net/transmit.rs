//! From the guest to the tap.
//!
//! ```text
//!  chain ─▶ its first 128 bytes are copied ─▶ header right? source right? ─▶ tokens there?
//!                                               no: dropped                   no: it waits
//!       ─▶ writev(the copy, the rest in guest memory) ─▶ tap ─▶ given back with its whole share
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | change a frame after it was checked | the copy leaves, so what was checked is what is sent |
//! | a frame shorter than its headers, or longer than any frame | dropped, given back |
//! | a header that lies about checksums or segments | dropped, counted |
//! | another's source address | dropped, counted (see `filter`) |
//! | more frames than the tap takes | dropped, as on a full wire; never the rest of one as another |

use super::filter::{self, Verdict};
use super::header::{self, Header};
use super::shared::{Shared, TX_BYTES, TX_DROPPED, TX_FILTERED, TX_FRAMES};
use super::{ActiveQueue, Interrupt, LARGEST_FRAME, Share};
use crate::memory::GuestMemory;
use crate::virtio::{Broken, Chain, SHARE, Used};
use std::os::fd::AsFd;

const COPIED: usize = header::BYTES + filter::HEAD;
/// An Ethernet header and our own.
const SHORTEST_FRAME: usize = header::BYTES + 14;

/// The sending side of a pair.
#[derive(Debug)]
pub(super) struct Transmitter {
    queue: ActiveQueue,
    chain: Chain,
    features: u64,
    used: Vec<Used>,
    // A frame that was checked and waits for its tokens; the chain holds its rest.
    ready: Option<Ready>,
}

/// A frame that may leave: its begin is here, its rest in the chain.
#[derive(Clone, Copy, Debug)]
struct Ready {
    copy: [u8; COPIED],
    copied: usize,
    cost: Cost,
}

/// What a frame takes of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Bytes of Ethernet frames.
    pub(super) bytes: usize,
    /// Frames: what one of TCP's segments becomes counts as so many.
    pub(super) frames: usize,
}

impl Transmitter {
    pub(super) fn new(memory: &GuestMemory, queue: ActiveQueue, features: u64) -> Self {
        Self { queue, chain: Chain::new(memory), features, used: Vec::new(), ready: None }
    }

    /// Sends a share of what waits, as long as `may` says so.
    pub(super) fn turn(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        shared: &Shared,
        tap: impl AsFd,
        mut may: impl FnMut(Cost) -> bool,
    ) -> Result<Share, Broken> {
        self.queue.quiet(memory)?;
        for _ in 0..SHARE {
            let ready = match self.ready.take() {
                Some(ready) => Some(ready),
                None => match self.queue.next(memory, &mut self.chain)? {
                    Some(Ok(())) => self.prepare(shared),
                    Some(Err(_)) => {
                        shared.counters.add(TX_DROPPED, 1);
                        None
                    }
                    None => break,
                },
            };
            if let Some(ready) = ready {
                if !may(ready.cost) {
                    self.ready = Some(ready);
                    break;
                }
                self.send(&ready, shared, &tap);
            }
            self.used.push(Used { head: self.chain.head, written: 0 });
        }
        self.queue.give_back_all(memory, &self.used)?;
        self.used.clear();
        self.queue.notify(memory, interrupt)?;
        // While one waits for tokens, no kick is of use.
        let more = self.ready.is_none() && self.queue.listen(memory)?;
        Ok(if more { Share::More } else { Share::Done })
    }

    /// Copies and checks the loaded frame; none when it isn't to leave.
    fn prepare(&mut self, shared: &Shared) -> Option<Ready> {
        let frame = &mut self.chain.readable;
        let length = frame.bytes();
        let drop = |counter| {
            shared.counters.add(counter, 1);
            None
        };
        if !(SHORTEST_FRAME..=LARGEST_FRAME).contains(&length) {
            return drop(TX_DROPPED);
        }
        let mut copy = [0; COPIED];
        let copied = frame.take(&mut copy);
        let (Some(header), Some(head)) = (copy.first_chunk(), copy.get(header::BYTES..copied))
        else {
            return drop(TX_DROPPED);
        };
        let bytes = length - header::BYTES;
        let Some(checked) = Header::parse(header).check(head, bytes, self.features) else {
            return drop(TX_DROPPED);
        };
        if let Some(filter) = &shared.filter {
            // The kernel writes a checksum after this: it must not reach what was looked at.
            let writes = checked.checksum_at.unwrap_or(usize::MAX);
            match filter.look(head) {
                Verdict::Pass(seen) if seen <= writes => {}
                _ => return drop(TX_FILTERED),
            }
        }
        copy[..header::BYTES].copy_from_slice(&checked.bytes());
        Some(Ready { copy, copied, cost: Cost { bytes, frames: checked.segments } })
    }

    fn send(&mut self, ready: &Ready, shared: &Shared, tap: impl AsFd) {
        let rest = &mut self.chain.readable;
        let whole = ready.copied + rest.bytes();
        // A refused frame is a lost frame: networks do that.
        if rest.write_packet_behind(tap, &ready.copy[..ready.copied]).is_ok_and(|n| n == whole) {
            shared.counters.add(TX_BYTES, ready.cost.bytes as u64);
            shared.counters.add(TX_FRAMES, 1);
        } else {
            shared.counters.add(TX_DROPPED, 1);
        }
    }
}
