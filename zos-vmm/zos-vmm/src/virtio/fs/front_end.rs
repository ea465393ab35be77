//! What is said to a back-end: who we are, where the guest's memory is, which rings to work on.
//!
//! ```text
//!  once:     features, protocol features, number of queues, owner
//!  driver:   features, memory; each ring: size, addresses, base, call, kick, on
//!  reset:    each ring: GET_VRING_BASE, which stops it
//!  pause:    the same, and the base is kept ── resume: each ring again
//! ```
//!
//! Addresses of rings are told as guest-physical ones, by a memory table that says that this is
//! where we have the guest's memory: where our own mappings lie is nobody's business.

use super::connection::{Connection, MOST_FDS, TalkError};
use crate::event::Event;
use crate::memory::GuestMemory;
use crate::virtio::queue::Rings;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserMemory, VhostUserMemoryRegion, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures, VhostUserVringAddr, VhostUserVringAddrFlags, VhostUserVringState,
};
use vm_memory::{Address, ByteValued, GuestMemoryBackend, GuestMemoryRegion};

/// How long a back-end has for what it is told at once: for a greeting, a start, a stop. A busy
/// host needs milliseconds; a dead one holds a reset up for so long, once.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A back-end that was greeted.
#[derive(Debug)]
pub(super) struct FrontEnd {
    connection: Connection,
    has_protocol: bool,
    patience: Duration,
}

/// A ring to be started.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) index: u32,
    pub(super) rings: Rings,
    /// Where in the available ring to begin.
    pub(super) base: u16,
    pub(super) call: &'a Event,
    pub(super) kick: &'a Event,
}

impl FrontEnd {
    /// Greets a back-end; tells what it offers, and how many queues it has if it says so.
    pub(super) fn greet(
        socket: UnixStream,
        patience: Duration,
    ) -> Result<(Self, u64, Option<u64>), TalkError> {
        let until = Instant::now() + patience;
        let mut connection = Connection::new(socket);
        let number = |connection: &Connection, request| {
            connection.ask(request, &[], until).map(u64::from_ne_bytes)
        };
        let features = number(&connection, FrontendReq::GET_FEATURES)?;
        let has_protocol = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0;
        let mut queues = None;
        if has_protocol {
            let ack = VhostUserProtocolFeatures::REPLY_ACK.bits();
            let many = VhostUserProtocolFeatures::MQ.bits();
            let has = number(&connection, FrontendReq::GET_PROTOCOL_FEATURES)? & (ack | many);
            let agreed = has.to_ne_bytes();
            connection.tell(FrontendReq::SET_PROTOCOL_FEATURES, &agreed, &[], until)?;
            if has & ack != 0 {
                connection.set_acknowledges();
            }
            if has & many != 0 {
                queues = Some(number(&connection, FrontendReq::GET_QUEUE_NUM)?);
            }
        }
        connection.tell(FrontendReq::SET_OWNER, &[], &[], until)?;
        Ok((Self { connection, has_protocol, patience }, features, queues))
    }

    /// What becomes readable when the back-end is gone, or speaks unasked.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// A driver is ready: its features, its memory, and its rings.
    pub(super) fn start(
        &self,
        features: u64,
        memory: &GuestMemory,
        rings: &[Start<'_>],
    ) -> Result<(), TalkError> {
        let until = Instant::now() + self.patience;
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let features = features | if self.has_protocol { protocol } else { 0 };
        let features = features.to_ne_bytes();
        self.connection.tell(FrontendReq::SET_FEATURES, &features, &[], until)?;
        self.tell_memory(memory, until)?;
        rings.iter().try_for_each(|ring| self.start_ring(ring, until))
    }

    /// Stopped rings go on.
    pub(super) fn start_again(&self, rings: &[Start<'_>]) -> Result<(), TalkError> {
        let until = Instant::now() + self.patience;
        rings.iter().try_for_each(|ring| self.start_ring(ring, until))
    }

    /// Stops rings; tells where each was.
    pub(super) fn stop(&self, rings: impl Iterator<Item = u32>) -> Result<Vec<u16>, TalkError> {
        let until = Instant::now() + self.patience;
        let request = FrontendReq::GET_VRING_BASE;
        rings
            .map(|index| {
                let state = VhostUserVringState::new(index, 0);
                let answer: [u8; 8] = self.connection.ask(request, state.as_slice(), until)?;
                let [a, b, c, d, low, high, ..] = answer;
                if u32::from_ne_bytes([a, b, c, d]) != index {
                    return Err(TalkError::Wrong { request });
                }
                // A ring's index has 16 bits; the upper ones mean nothing here.
                Ok(u16::from_ne_bytes([low, high]))
            })
            .collect()
    }

    fn tell_memory(&self, memory: &GuestMemory, until: Instant) -> Result<(), TalkError> {
        let request = FrontendReq::SET_MEM_TABLE;
        let (mut body, mut fds) = (Vec::new(), Vec::new());
        for region in memory.iter() {
            let file = region.file_offset().ok_or(TalkError::Wrong { request })?;
            let address = region.start_addr().raw_value();
            let entry = VhostUserMemoryRegion::new(address, region.len(), address, file.start());
            body.extend_from_slice(entry.as_slice());
            fds.push(file.file().as_fd());
        }
        let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
        if fds.len() > MOST_FDS {
            return Err(TalkError::Wrong { request });
        }
        let body = [VhostUserMemory::new(count).as_slice(), &body].concat();
        self.connection.tell(request, &body, &fds, until)
    }

    fn start_ring(&self, start: &Start<'_>, until: Instant) -> Result<(), TalkError> {
        let Start { index, rings, base, call, kick } = start;
        let state = |value| VhostUserVringState::new(*index, value);
        let address = VhostUserVringAddr::new(
            *index,
            VhostUserVringAddrFlags::empty(),
            rings.descriptors,
            rings.used,
            rings.available,
            0,
        );
        let tell = |request, body: &[u8], fds: &[BorrowedFd<'_>]| {
            self.connection.tell(request, body, fds, until)
        };
        let number = u64::from(*index).to_ne_bytes();
        tell(FrontendReq::SET_VRING_NUM, state(rings.size.into()).as_slice(), &[])?;
        tell(FrontendReq::SET_VRING_ADDR, address.as_slice(), &[])?;
        tell(FrontendReq::SET_VRING_BASE, state((*base).into()).as_slice(), &[])?;
        tell(FrontendReq::SET_VRING_CALL, &number, &[call.as_fd()])?;
        tell(FrontendReq::SET_VRING_KICK, &number, &[kick.as_fd()])?;
        if self.has_protocol {
            tell(FrontendReq::SET_VRING_ENABLE, state(1).as_slice(), &[])?;
        }
        Ok(())
    }
}
