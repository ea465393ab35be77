//! From the guest to the tap.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a frame shorter than its header, or longer than any frame | dropped, given back |
//! | a header that lies about checksums or segments | the tap's kernel refuses it: dropped |
//! | more frames than the tap takes | dropped, as on a full wire |

use super::{ActiveQueue, HEADER_BYTES, Interrupt, LARGEST_FRAME, Share};
use crate::memory::GuestMemory;
use crate::virtio::{Broken, Chain, SHARE};
use std::os::fd::BorrowedFd;

#[derive(Debug)]
pub(super) struct Transmitter {
    queue: ActiveQueue,
    chain: Chain,
}

impl Transmitter {
    pub(super) fn new(memory: &GuestMemory, queue: ActiveQueue) -> Self {
        Self { queue, chain: Chain::new(memory) }
    }

    /// Sends a share of what waits.
    pub(super) fn send(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        tap: BorrowedFd<'_>,
    ) -> Result<Share, Broken> {
        self.queue.quiet(memory)?;
        for _ in 0..SHARE {
            let Some(loaded) = self.queue.next(memory, &mut self.chain)? else { break };
            let frame = &self.chain.readable;
            if loaded.is_ok() && (HEADER_BYTES..=LARGEST_FRAME).contains(&frame.bytes()) {
                // A refused frame is a lost frame: networks do that.
                let _ = frame.write_packet(tap);
            }
            self.queue.give_back(memory, self.chain.head, 0)?;
        }
        self.queue.notify(memory, interrupt)?;
        Ok(if self.queue.listen(memory)? { Share::More } else { Share::Done })
    }
}
