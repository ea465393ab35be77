//! virtio-rng (virtio 1.2, 5.4): one queue of buffers to be filled with random bytes.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a buffer of gigabytes | at most 64 KiB a request, in steps of 256 bytes on the stack |
//! | a readable or an empty buffer | given back with nothing in it |

use super::{
    Activation, ActiveQueue, Backend, Broken, Chain, ConfigSpace, Counters, F_RING, Interrupt,
    Profile, SHARE, Share,
};
use crate::memory::GuestMemory;
use std::sync::Arc;

const KIND: u16 = 4;
const CLASS: u32 = 0xff_0000;
/// Most bytes of one request.
const MOST: usize = 64 << 10;
/// Most bytes that `getrandom(2)` gives without ever being short or interrupted.
const STEP: usize = 256;

/// Counters by their indices.
const COUNTERS: &[&str] = &["bytes"];
const BYTES: usize = 0;

/// The host's random bytes for the guest.
#[derive(Debug)]
pub struct Rng {
    counters: Counters,
    active: Option<Active>,
}

impl Default for Rng {
    fn default() -> Self {
        Self { counters: Counters::new(COUNTERS), active: None }
    }
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    queue: ActiveQueue,
    interrupt: Arc<Interrupt>,
    chain: Chain,
}

impl Rng {
    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            kind: KIND,
            class: CLASS,
            features: F_RING,
            queues: vec![64],
            config: ConfigSpace::new(Vec::new()),
            counters: self.counters.clone(),
        }
    }
}

impl Backend for Rng {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let queue = activation.take(0)?;
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active { chain: Chain::new(&memory), memory, queue, interrupt });
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, queue, interrupt, chain } = active;
        queue.quiet(memory)?;
        for _ in 0..SHARE {
            let Some(loaded) = queue.next(memory, chain)? else { break };
            let written = if loaded.is_ok() { fill(chain) } else { 0 };
            self.counters.add(BYTES, written as u64);
            queue.give_back(memory, chain.head, written)?;
        }
        queue.notify(memory, interrupt)?;
        Ok(if queue.listen(memory)? { Share::More } else { Share::Done })
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

/// Fills the chain up to the most; tells how many bytes.
fn fill(chain: &mut Chain) -> usize {
    let mut done = 0;
    while done < MOST && chain.writable.bytes() > 0 {
        let mut bytes = [0; STEP];
        let step = STEP.min(chain.writable.bytes());
        match rustix::rand::getrandom(&mut bytes[..step], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => done += chain.writable.fill(&bytes[..count]),
            Err(_) => break,
        }
    }
    done
}
