//! One connection, as the host sees it: where it stands, who may still send, and how much.
//!
//! ```text
//!  host's CONNECT ─▶ Asked ── RESPONSE ──▶ Open ── host gone ──▶ Ending ── RST, or 8 s ─▶ gone
//!                      └─ RST, or 2 s ─▶ gone │
//!  guest's REQUEST ─▶ Asking ─ connected ─────┤
//!                                             ├── guest shut both ways ─▶ Draining ─ empty ─▶ gone
//!                                             └── RST, a broken rule ─▶ gone
//!
//!  guest ─▶ [buffer: at most `window`] ─▶ host's socket     window - (received - flushed) = its credit
//!  guest ◀───────────────────────────── host's socket       as much as the guest has room for
//! ```
//!
//! Counters wrap at 2^32 (virtio 1.2, 5.10.6.3); only their differences mean anything.

use super::packet::{HOST, Header, NO_RECEIVE, NO_SEND, STREAM};
use std::collections::VecDeque;
use std::time::Instant;

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The host asked the guest, who has until then to answer.
    Asked { until: Instant },
    /// The guest asked; the host's socket is being connected.
    Asking,
    /// Bytes flow.
    Open,
    /// The host's side is gone; the guest has until then to agree.
    Ending { until: Instant },
    /// The guest is done with it and forgot it; what it sent goes on to the host.
    Draining,
}

/// Packets without data that it owes the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owes {
    pub(super) request: bool,
    pub(super) response: bool,
    pub(super) shutdown: bool,
    pub(super) credit: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) state: State,
    pub(super) owes: Owes,
    /// Its turn is noted.
    pub(super) queued: bool,
    /// The host's socket may have bytes, or its end.
    pub(super) readable: bool,
    /// The guest was asked for credit, and gave none since.
    pub(super) asked_credit: bool,
    /// What the guest won't do any more: flags of `SHUTDOWN`.
    pub(super) guest_shut: u32,
    /// What the host won't do any more.
    pub(super) host_shut: u32,
    /// The guest's bytes that the host's socket didn't take yet.
    buffer: VecDeque<u8>,
    /// Most of them.
    window: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// What the guest was told was forwarded.
    told: u32,
    /// Bytes that went to the guest.
    sent: u32,
    /// The guest's `buf_alloc` and `fwd_cnt`.
    guest_alloc: u32,
    guest_forwarded: u32,
}

impl Connection {
    pub(super) fn new(ports: Ports, state: State, window: u32) -> Self {
        Self {
            ports,
            state,
            owes: Owes::default(),
            queued: false,
            readable: false,
            asked_credit: false,
            guest_shut: 0,
            host_shut: 0,
            buffer: VecDeque::new(),
            window,
            received: 0,
            told: 0,
            sent: 0,
            guest_alloc: 0,
            guest_forwarded: 0,
        }
    }

    /// As one that has lived: all counters stand there.
    #[cfg(test)]
    pub(super) fn begin_at(&mut self, count: u32) {
        (self.received, self.told, self.sent, self.guest_forwarded) = (count, count, count, count);
    }

    /// Each packet of the guest tells of its buffer.
    pub(super) fn note_credit(&mut self, header: &Header) {
        self.guest_alloc = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
        if self.credit() > 0 {
            self.asked_credit = false;
        }
    }

    /// Bytes that the guest has room for. One that claims to have read more than was sent to it
    /// harms only itself: to us its buffer is then full.
    pub(super) fn credit(&self) -> u32 {
        self.guest_alloc.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// Bytes of the guest go to the host; false: more than it was allowed to send.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        let room = (self.window as usize).saturating_sub(self.buffer.len());
        let Ok(count) = u32::try_from(bytes.len()) else { return false };
        if bytes.len() > room {
            return false;
        }
        // What the host no longer takes was on its way when the guest heard of that.
        if self.host_shut & NO_RECEIVE == 0 {
            self.buffer.extend(bytes);
        }
        self.received = self.received.wrapping_add(count);
        true
    }

    /// The host takes no more.
    pub(super) fn discard(&mut self) {
        self.buffer = VecDeque::new();
    }

    /// What the host's socket shall take next.
    pub(super) fn outgoing(&self) -> &[u8] {
        self.buffer.as_slices().0
    }

    /// The host's socket took so many bytes.
    pub(super) fn flushed(&mut self, count: usize) {
        self.buffer.drain(..count.min(self.buffer.len()));
        if self.buffer.is_empty() {
            // A burst is over: its memory isn't kept for the next.
            self.buffer.shrink_to(4 << 10);
        }
        // The guest is told when it believes that less than half of the window is left.
        let apparent = self.window.saturating_sub(self.received.wrapping_sub(self.told));
        let open = self.state == State::Open && self.guest_shut & NO_SEND == 0;
        if open && self.forwarded() != self.told && apparent < self.window / 2 {
            self.owes.credit = true;
        }
    }

    /// Bytes that went to the guest.
    pub(super) fn sent(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// The header of a packet to the guest, which tells of our buffer as each does.
    pub(super) fn header(&mut self, cid: u64, op: u16, flags: u32, len: u32) -> Header {
        self.told = self.forwarded();
        self.owes.credit = false;
        Header {
            src_cid: HOST,
            dst_cid: cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: STREAM,
            op,
            flags,
            buf_alloc: self.window,
            fwd_cnt: self.told,
        }
    }

    fn forwarded(&self) -> u32 {
        // At most `window` bytes.
        self.received.wrapping_sub(u32::try_from(self.buffer.len()).unwrap_or(0))
    }
}
