//! A DHCPv4 client without a clock or a socket (RFC 2131): time and packets come in, packets and
//! changes go out.
//!
//! ```text
//!  Selecting ─ OFFER ─▶ Requesting ─ ACK ─▶ Bound ─ half the lease ─▶ Renewing ─ ACK ─▶ Bound
//!      ▲                    │ NAK, 4 tries                              │ NAK, end of the lease
//!      └────────────────────┴──────────────────────────────────────────┘
//! ```
//!
//! Requests repeat after 1, 2, 4 ... 32 s, for ever. All are broadcast, and ask for a broadcast
//! answer: an interface without an address hears no other.

use super::packet::{Answer, Kind, Question, option};
use std::net::Ipv4Addr;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// Requests without an answer before another server may be asked.
const TRIES: u32 = 4;
/// A shorter lease would make us busy with renewing.
const SHORTEST_LEASE: Duration = Duration::from_secs(30);
const DEFAULT_LEASE: Duration = Duration::from_secs(3600);

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    server: Ipv4Addr,
    time: Duration,
}

/// What the interface must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing yet: the search began.
    Searching,
    /// Take this lease.
    Bound(Lease),
    /// Give it up.
    Lost(Lease),
}

/// What comes of looking at the clock.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) send: Option<Vec<u8>>,
    pub(super) change: Option<Change>,
    /// When to look again.
    pub(super) wake: Duration,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting(Lease),
    Bound { lease: Lease, since: Duration },
    Renewing { lease: Lease, since: Duration },
}

/// The client of one interface.
#[derive(Debug)]
pub(super) struct Client {
    mac: [u8; 6],
    transaction: u32,
    state: State,
    tries: u32,
    next: Duration,
    is_new: bool,
}

impl Client {
    /// One that has nothing yet. `transaction` is random.
    pub(super) fn new(mac: [u8; 6], transaction: u32) -> Self {
        let (state, next) = (State::Selecting, Duration::ZERO);
        Self { mac, transaction, state, tries: 0, next, is_new: true }
    }

    /// Time has passed.
    pub(super) fn poll(&mut self, now: Duration) -> Turn {
        let mut change = std::mem::take(&mut self.is_new).then_some(Change::Searching);
        if now < self.next {
            return Turn { send: None, change, wake: self.next };
        }
        match &self.state {
            State::Requesting(_) if self.tries >= TRIES => self.enter(State::Selecting, now),
            State::Bound { lease, since } => {
                let state = State::Renewing { lease: lease.clone(), since: *since };
                self.enter(state, now);
            }
            State::Renewing { lease, since } if now >= *since + lease.time => {
                change = Some(Change::Lost(lease.clone()));
                self.enter(State::Selecting, now);
            }
            _ => {}
        }
        let none = Ipv4Addr::UNSPECIFIED;
        let question = match &self.state {
            State::Selecting => self.question(Kind::Discover, none, None),
            State::Requesting(lease) => self.question(Kind::Request, none, Some(lease)),
            State::Bound { lease, .. } | State::Renewing { lease, .. } => {
                self.question(Kind::Request, lease.address, None)
            }
        };
        let pause = FIRST_PAUSE * (1 << self.tries.min(5));
        self.next = now + pause.min(LONGEST_PAUSE);
        self.tries += 1;
        Turn { send: Some(question.to_bytes()), change, wake: self.next }
    }

    /// A packet came.
    pub(super) fn receive(&mut self, now: Duration, packet: &[u8]) -> Option<Change> {
        let answer = Answer::parse(packet)
            .filter(|answer| (answer.transaction, answer.mac) == (self.transaction, self.mac))?;
        match (&self.state, answer.kind) {
            (State::Selecting, Kind::Offer) => {
                let lease = lease(&answer)?;
                self.enter(State::Requesting(lease), now);
                None
            }
            (State::Requesting(_) | State::Renewing { .. }, Kind::Ack) => {
                let lease = lease(&answer)?;
                self.next = now + lease.time / 2;
                self.tries = 0;
                self.state = State::Bound { lease: lease.clone(), since: now };
                Some(Change::Bound(lease))
            }
            (State::Requesting(_), Kind::Nak) => {
                self.enter(State::Selecting, now + FIRST_PAUSE);
                None
            }
            (State::Renewing { lease, .. }, Kind::Nak) => {
                let lost = Change::Lost(lease.clone());
                self.enter(State::Selecting, now);
                Some(lost)
            }
            _ => None,
        }
    }

    fn enter(&mut self, state: State, at: Duration) {
        self.state = state;
        self.tries = 0;
        self.next = at;
    }

    fn question(&self, kind: Kind, own: Ipv4Addr, offer: Option<&Lease>) -> Question {
        let offer = offer.map(|lease| (lease.address, lease.server));
        Question { kind, transaction: self.transaction, mac: self.mac, own, offer }
    }
}

/// The lease in an offer or acknowledgement, if it is one that an interface can have.
fn lease(answer: &Answer<'_>) -> Option<Lease> {
    let address = answer.yours;
    let mask = answer.number(option::MASK).unwrap_or(0xffff_ff00);
    let prefix = u8::try_from(mask.leading_ones()).ok()?;
    let is_whole = mask.count_ones() == mask.leading_ones();
    let is_host = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
    let time = answer.number(option::LEASE_TIME).map(|s| Duration::from_secs(s.into()));
    let lease = Lease {
        address,
        prefix,
        router: answer.addresses(option::ROUTER).first().copied(),
        dns: answer.addresses(option::DNS),
        server: answer.addresses(option::SERVER).first().copied()?,
        time: time.unwrap_or(DEFAULT_LEASE).max(SHORTEST_LEASE),
    };
    (is_whole && is_host).then_some(lease)
}

#[cfg(test)]
mod tests;
