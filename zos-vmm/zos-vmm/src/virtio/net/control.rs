//! The control queue (virtio 1.2, 5.1.6.5): a command in, one byte out.
//!
//! ```text
//!  class  command  data ...  │  ack
//!    1       1     2 or 8    │   1     0: done   1: not done
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | no pairs, or more than there are | not done |
//! | offloads that were not agreed on | not done |
//! | data too short or too long, unknown commands, what was not agreed on | not done |
//! | no byte for the answer | given back empty |
//! | thousands of commands, each with a lock of the host's network | each costs a token (see `pair`) |

use super::features::{F_CTRL_GUEST_OFFLOADS, F_MQ, GUEST_OFFLOADS};
use super::shared::Shared;
use super::{ActiveQueue, Interrupt, Share};
use crate::memory::GuestMemory;
use crate::virtio::{Broken, Chain, SHARE};

const CLASS_MQ: u8 = 4;
const MQ_PAIRS_SET: u8 = 0;
const CLASS_GUEST_OFFLOADS: u8 = 5;
const GUEST_OFFLOADS_SET: u8 = 0;
/// Class, command, and the longest data of a command that we know.
const LONGEST: usize = 2 + 8;
const OK: u8 = 0;
const ERROR: u8 = 1;

/// The control queue in its thread's hands.
#[derive(Debug)]
pub(super) struct Control {
    queue: ActiveQueue,
    chain: Chain,
    features: u64,
    // A command that waits for its token; whether it is one at all.
    waiting: Option<bool>,
}

impl Control {
    pub(super) fn new(memory: &GuestMemory, queue: ActiveQueue, features: u64) -> Self {
        Self { queue, chain: Chain::new(memory), features, waiting: None }
    }

    /// Does a share of the commands, as long as `may` says so.
    pub(super) fn turn(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        shared: &Shared,
        mut may: impl FnMut() -> bool,
    ) -> Result<Share, Broken> {
        self.queue.quiet(memory)?;
        for _ in 0..SHARE {
            let is_command = match self.waiting.take() {
                Some(is_command) => is_command,
                None => match self.queue.next(memory, &mut self.chain)? {
                    Some(loaded) => loaded.is_ok(),
                    None => break,
                },
            };
            if !may() {
                self.waiting = Some(is_command);
                break;
            }
            let written = if is_command { self.answer(shared) } else { 0 };
            self.queue.give_back(memory, self.chain.head, written)?;
        }
        self.queue.notify(memory, interrupt)?;
        let more = self.waiting.is_none() && self.queue.listen(memory)?;
        Ok(if more { Share::More } else { Share::Done })
    }

    /// Does the loaded command, if there is room for its answer.
    fn answer(&mut self, shared: &Shared) -> usize {
        if self.chain.writable.bytes() == 0 {
            return 0;
        }
        let mut command = [0; LONGEST];
        let length = self.chain.readable.take(&mut command);
        let whole = self.chain.readable.bytes() == 0;
        let done = whole && self.obey(&command[..length], shared);
        self.chain.writable.fill(&[if done { OK } else { ERROR }])
    }

    fn obey(&self, command: &[u8], shared: &Shared) -> bool {
        match *command {
            [CLASS_MQ, MQ_PAIRS_SET, a, b] if self.features & F_MQ != 0 => {
                shared.steering.use_pairs(u16::from_le_bytes([a, b]).into())
            }
            [CLASS_GUEST_OFFLOADS, GUEST_OFFLOADS_SET, ref offloads @ ..]
                if self.features & F_CTRL_GUEST_OFFLOADS != 0 =>
            {
                let Some(offloads) = offloads.try_into().ok().map(u64::from_le_bytes) else {
                    return false;
                };
                let agreed = self.features & GUEST_OFFLOADS;
                offloads & !agreed == 0 && shared.steering.set_offloads(offloads).is_ok()
            }
            _ => false,
        }
    }
}
