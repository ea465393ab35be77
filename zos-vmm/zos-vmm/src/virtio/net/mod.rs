//! virtio-net (virtio 1.2, 5.1) on a tap: pairs of queues, offloads, a filter of what leaves, rates.
//!
//! ```text
//!  queue 2n, receive:      tap queue n ── readv ──▶ chains ──▶ used, all of a turn at once
//!  queue 2n + 1, transmit: chain ──▶ checked copy of its begin ── writev ──▶ tap queue n
//!  last queue, control:    how many pairs, which offloads ──▶ Steering ──▶ the tap
//!                          every frame starts with the 12-byte virtio_net_hdr, here and on the tap
//! ```
//!
//! What a frame holds goes straight between the tap and the guest's memory. Who may talk to whom is
//! the node's firewall's to say; that a guest says truly who it is, and that the kernel gets no
//! header it would stumble over, is seen to here, in the guest's own process.
//!
//! Each pair has a part with a thread; the control queue belongs to the last one.

mod control;
mod features;
mod filter;
mod header;
mod pair;
mod receive;
mod shared;
mod steering;
mod tap;
mod throttle;
mod transmit;

pub use tap::{TapError, Taps};

use super::{
    Activation, ActiveQueue, Backend, Broken, ConfigSpace, Interrupt, Profile, Share, Waits,
};
use crate::rate::Limiter;
use features::F_MRG_RXBUF;
use filter::Filter;
use pair::{Limits, Pair};
use shared::{LINK_UP, Shared};
use std::sync::Arc;
use steering::Steering;
use zos_vmm_spec::{Bucket, Mac, Rate};

const KIND: u16 = 1;
const CLASS: u32 = 0x02_0000;
/// Largest size of a pair's queues, and of the control queue.
const QUEUE_SIZE: u16 = 256;
const CONTROL_SIZE: u16 = 64;
/// The largest frame with segments: 64 KiB of IP, an Ethernet header with a VLAN tag, our header.
const LARGEST_FRAME: usize = 65536 + 18 + header::BYTES;
/// The largest frame without: 1500 bytes of IP.
const PLAIN_FRAME: usize = 1500 + 18 + header::BYTES;
/// Commands on the control queue: a kernel gives a few at its start.
const COMMANDS: Rate = Rate { bytes: None, operations: Some(Bucket { per_second: 16, burst: 64 }) };

/// A network interface of the guest.
#[derive(Debug)]
pub struct Net {
    shared: Arc<Shared>,
    features: u64,
    limits: Limits,
}

impl Net {
    /// An interface on this tap, with as many pairs of queues as the tap has; what the guest
    /// receives and sends draws from these limiters.
    #[must_use]
    pub fn new(taps: Taps, net: &zos_vmm_spec::Net, receive: Limiter, transmit: Limiter) -> Self {
        let features = features::offered(net.mac.is_some(), taps.pairs(), taps.has_uso());
        let mac = net.mac.unwrap_or(Mac([0; 6]));
        // MAC, status, max_virtqueue_pairs (5.1.4).
        let pairs = u16::try_from(taps.pairs()).unwrap_or(1);
        let mut config = mac.0.to_vec();
        config.extend_from_slice(&[LINK_UP, 0]);
        config.extend_from_slice(&pairs.to_le_bytes());
        let filter = net.addresses.as_deref().map(|addresses| Filter::new(mac, addresses));
        let steering = Steering::new(taps.into_inner());
        let shared = Shared::new(steering, filter, ConfigSpace::new(config));
        let limits = Limits { receive, transmit, commands: Limiter::new(Some(COMMANDS)) };
        Self { shared: Arc::new(shared), features, limits }
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let mut queues = vec![QUEUE_SIZE; 2 * self.shared.steering.most()];
        queues.push(CONTROL_SIZE);
        Profile {
            kind: KIND,
            class: CLASS,
            features: self.features,
            queues,
            config: self.shared.config.clone(),
            counters: self.shared.counters.clone(),
        }
    }

    /// A part for each pair, with how many queues it has.
    #[must_use]
    pub fn into_parts(self) -> Vec<(usize, Box<dyn Backend>)> {
        let most = self.shared.steering.most();
        let part = |number: usize| {
            let pair = Pair::new(self.shared.clone(), number, self.limits.clone());
            let queues = if number + 1 == most { 3 } else { 2 };
            (queues, Box::new(pair) as Box<dyn Backend>)
        };
        (0..most).map(part).collect()
    }
}

#[cfg(test)]
mod tests;
