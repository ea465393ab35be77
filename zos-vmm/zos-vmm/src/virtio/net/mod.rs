//! virtio-net (virtio 1.2, 5.1) on a tap: one pair of queues, offloads, mergeable buffers.
//!
//! ```text
//!  queue 0, receive:  tap ── readv ──▶ as many chains as the frame needs (MRG_RXBUF) ──▶ used
//!  queue 1, transmit: chain ── writev ──▶ tap
//!                     every frame starts with the 12-byte virtio_net_hdr, here and on the tap
//! ```
//!
//! Frames go straight between the tap and the guest's memory; the header's meaning is checked by
//! the kernel behind the tap. Who may send what to whom is the node's firewall's to say.

mod receive;
mod tap;
mod transmit;

pub use tap::{Tap, TapError};

use super::{Activation, ActiveQueue, Backend, Broken, F_RING, Interrupt, Profile, Share};
use crate::memory::GuestMemory;
use receive::Receiver;
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use transmit::Transmitter;
use zos_vmm_spec::Mac;

const KIND: u16 = 1;
const CLASS: u32 = 0x02_0000;
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_MRG_RXBUF: u64 = 1 << 15;
const OFFLOADS: u64 =
    F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6;
/// Bytes of `virtio_net_hdr` with `num_buffers`.
const HEADER_BYTES: usize = 12;
/// The largest frame with TSO: 64 KiB of IP, an Ethernet header with a VLAN tag, our header.
const LARGEST_FRAME: usize = 65536 + 18 + HEADER_BYTES;
/// The largest frame without: 1500 bytes of IP.
const PLAIN_FRAME: usize = 1500 + 18 + HEADER_BYTES;
const RECEIVE: usize = 0;

/// A network interface of the guest.
#[derive(Debug)]
pub struct Net {
    tap: Tap,
    mac: Option<Mac>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    receiver: Receiver,
    transmitter: Transmitter,
}

impl Net {
    /// An interface on this tap.
    #[must_use]
    pub fn new(tap: Tap, mac: Option<Mac>) -> Self {
        Self { tap, mac, active: None }
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let mac = self.mac.map_or(0, |_| F_MAC);
        Profile {
            kind: KIND,
            class: CLASS,
            features: F_RING | F_MRG_RXBUF | OFFLOADS | mac,
            queues: &[256, 256],
            config: self.mac.unwrap_or(Mac([0; 6])).0.to_vec(),
        }
    }
}

impl Backend for Net {
    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let Activation { memory, mut queues, features, interrupt } = activation;
        let has = |feature| features & feature != 0;
        let offloads = tap::Offloads {
            checksum: has(F_GUEST_CSUM),
            tso4: has(F_GUEST_TSO4),
            tso6: has(F_GUEST_TSO6),
        };
        self.tap.set_offloads(offloads).map_err(|_| Broken::Backing)?;
        let tso = offloads.tso4 || offloads.tso6;
        let largest = if tso { LARGEST_FRAME } else { PLAIN_FRAME };
        let (Some(transmit), Some(receive)) = (queues.pop(), queues.pop()) else {
            return Err(Broken::Ring);
        };
        self.active = Some(Active {
            receiver: Receiver::new(&memory, receive, has(F_MRG_RXBUF), largest),
            transmitter: Transmitter::new(&memory, transmit),
            memory,
            interrupt,
        });
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, interrupt, receiver, transmitter } = active;
        if queue == RECEIVE {
            receiver.refill(memory, interrupt)?;
            Ok(Share::Done)
        } else {
            transmitter.send(memory, interrupt, self.tap.as_fd())
        }
    }

    fn outside(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        // Without room there's no use in hearing of frames.
        let has_room = self.active.as_ref().is_some_and(|active| active.receiver.has_room());
        has_room.then(|| (self.tap.as_fd(), PollFlags::IN))
    }

    fn outside_ready(&mut self) -> Result<(), Broken> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let Active { memory, interrupt, receiver, .. } = active;
        receiver.receive(memory, interrupt, self.tap.as_fd())
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

#[cfg(test)]
mod tests;
