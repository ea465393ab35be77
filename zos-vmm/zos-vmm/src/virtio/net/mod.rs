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

use super::{
    Activation, ActiveQueue, Backend, Broken, ConfigSpace, Counters, F_RING, Interrupt, Profile,
    Share, Waits,
};
use crate::memory::GuestMemory;
use receive::Receiver;
use rustix::event::PollFlags;
use std::os::fd::AsFd;
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
            queues: vec![256, 256],
            config: ConfigSpace::new(self.mac.unwrap_or(Mac([0; 6])).0.to_vec()),
            counters: Counters::default(),
        }
    }
}

impl Backend for Net {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let (receive, transmit) = (activation.take(0)?, activation.take(1)?);
        let has = |feature| activation.has(feature);
        let offloads = tap::Offloads {
            checksum: has(F_GUEST_CSUM),
            tso4: has(F_GUEST_TSO4),
            tso6: has(F_GUEST_TSO6),
        };
        self.tap.set_offloads(offloads).map_err(|_| Broken::Backing)?;
        let tso = offloads.tso4 || offloads.tso6;
        let largest = if tso { LARGEST_FRAME } else { PLAIN_FRAME };
        let mergeable = has(F_MRG_RXBUF);
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active {
            receiver: Receiver::new(&memory, receive, mergeable, largest),
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

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        // Without room there's no use in hearing of frames.
        if self.active.as_ref().is_some_and(|active| active.receiver.has_room()) {
            waits.add(0, self.tap.as_fd(), PollFlags::IN);
        }
    }

    fn ready(&mut self, _: u32) -> Result<(), Broken> {
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
