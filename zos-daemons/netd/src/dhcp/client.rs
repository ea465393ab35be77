//! The client's states (RFC 2131, section 4.4), without clock, socket or random numbers of its own.
//!
//! ```text
//!            carrier                offer                  ack
//!   Down ───────────▶ Selecting ───────────▶ Requesting ───────────▶ Bound ◀──────────┐
//!    ▲ │                ▲  ▲ ▲                   │ nak, silence       │ T1            │ ack
//!    │ │ carrier, an    │  │ └───────────────────┘                    ▼               │
//!    │ │ address is     │  │ nak, silence                         Renewing ───────────┤
//!    │ │ remembered     │  └────────── Rebooting ── ack ──▶ Bound     │ T2            │
//!    │ └────────────────┼────────────────▲                            ▼               │
//!    │ no carrier       └──────── nak, lease over ─────────────── Rebinding ──────────┘
//! ```
//! Asking again: after 2, 4, 8 … 64 s, each one second more or less, for ever. RFC 2131 starts at 4 s
//! for the Ethernet of its day; a switch port that forwards only a moment after its carrier would
//! cost each boot these 4 s. Renewing and Rebinding ask after half of the time that is left, 60 s at least.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};

use super::lease::{self, Answer, Lease};

/// Silence after that many questions makes a client begin anew.
const REQUESTS: u32 = 4;
const REBOOTS: u32 = 2;
const LONGEST: u64 = 64;
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What happens to a client.
#[derive(Debug)]
pub enum Event<'a> {
    /// The link has somebody at its other end.
    Carrier,
    /// The link has nobody.
    NoCarrier,
    /// A message came, from this hardware address.
    Message(&'a Message, [u8; 6]),
    /// The deadline may have passed.
    Time,
}

/// What a client wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this to everyone, from 0.0.0.0 or the address that the link has.
    Broadcast(Message),
    /// Send this to the lease's server.
    Unicast(Message, Lease),
    /// Give the link this address and way out, in place of what it had.
    Configure(Lease),
    /// Take the link's address away.
    Deconfigure,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Down,
    Selecting(Exchange),
    Requesting(Exchange, Lease),
    Rebooting(Exchange, Ipv4Addr),
    Bound(Held),
    Renewing(Exchange, Held),
    Rebinding(Exchange, Held),
}

/// A question that is asked until it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Exchange {
    xid: u32,
    since: Duration,
    asked: u32,
    again: Duration,
}

/// A lease, and when it began.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Held {
    lease: Lease,
    since: Duration,
}

impl Held {
    fn end(&self) -> Duration {
        self.lease.lasts.map_or(Duration::MAX, |lasts| self.since + lasts)
    }
}

/// A client of one link.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    state: State,
    /// The address on the link, from this life or the one before, until when. It outlasts a pulled
    /// cable and a restart of the daemon, and is asked for again first.
    remembered: Option<(Ipv4Addr, Duration)>,
    /// Since when a question has been without any answer.
    unanswered: Option<Duration>,
}

impl Client {
    /// A client for the link with hardware address `mac`, which may already have an address from
    /// an earlier life, until a point in time.
    pub fn new(mac: [u8; 6], remembered: Option<(Ipv4Addr, Duration)>) -> Self {
        Self { mac, state: State::Down, remembered, unanswered: None }
    }

    /// What the client does, in words for people.
    pub fn words(&self) -> &'static str {
        match self.state {
            State::Down => "no cable",
            State::Selecting(_) => "dhcp: looking for a server",
            State::Requesting(..) => "dhcp: requesting",
            State::Rebooting(..) => "dhcp: asking for its last address",
            State::Bound(_) => "dhcp: bound",
            State::Renewing(..) => "dhcp: bound, renewing",
            State::Rebinding(..) => "dhcp: bound, its server is silent",
        }
    }

    /// The lease that stands.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(held) | State::Renewing(_, held) | State::Rebinding(_, held) => {
                Some(&held.lease)
            }
            _ => None,
        }
    }

    /// Since when the link has been waiting for an answer, if it has no lease.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.unanswered.filter(|_| self.lease().is_none() && self.state != State::Down)
    }

    /// Until when nothing happens by itself.
    pub fn deadline(&self) -> Option<Duration> {
        let expiry = self.remembered.map(|(_, end)| end);
        let state = match &self.state {
            State::Down => None,
            State::Selecting(e) | State::Requesting(e, _) | State::Rebooting(e, _) => Some(e.again),
            State::Bound(held) => held.lease.lasts.map(|_| held.since + held.lease.renew),
            State::Renewing(e, held) => Some(e.again.min(held.since + held.lease.rebind)),
            State::Rebinding(e, held) => Some(e.again.min(held.end())),
        };
        state.into_iter().chain(expiry).min().filter(|end| *end != Duration::MAX)
    }

    /// Takes an event. `now` is any clock that never goes back, `random` a fresh number.
    pub fn handle(&mut self, now: Duration, random: u32, event: &Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Carrier if self.state == State::Down => self.begin(now, random, &mut actions),
            Event::Carrier => {}
            Event::NoCarrier => {
                self.state = State::Down;
                self.unanswered = None;
            }
            Event::Message(message, from) => {
                self.message(now, random, message, *from, &mut actions);
            }
            Event::Time => {}
        }
        self.time(now, random, &mut actions);
        actions
    }

    fn begin(&mut self, now: Duration, random: u32, actions: &mut Vec<Action>) {
        self.unanswered = Some(now);
        let exchange = Exchange { xid: random, since: now, asked: 0, again: now };
        self.state = match self.remembered {
            Some((address, end)) if end > now => State::Rebooting(exchange, address),
            _ => State::Selecting(exchange),
        };
        self.time(now, random, actions);
    }

    fn select(&mut self, now: Duration, random: u32) {
        self.state = State::Selecting(Exchange { xid: random, since: now, asked: 0, again: now });
        self.unanswered = self.unanswered.or(Some(now));
    }

    fn drop_address(&mut self, actions: &mut Vec<Action>) {
        if self.remembered.take().is_some() {
            actions.push(Action::Deconfigure);
        }
    }

    fn message(
        &mut self,
        now: Duration,
        random: u32,
        message: &Message,
        from: [u8; 6],
        actions: &mut Vec<Action>,
    ) {
        let (State::Selecting(exchange)
        | State::Requesting(exchange, _)
        | State::Rebooting(exchange, _)
        | State::Renewing(exchange, _)
        | State::Rebinding(exchange, _)) = &self.state
        else {
            return;
        };
        let answer = match lease::judge(message, from, self.mac, exchange.xid) {
            Ok(answer) => answer,
            Err(lease::Refusal::NotOurs) => return,
            Err(refusal) => {
                tracing::info!("an answer by DHCP is refused: {refusal}");
                return;
            }
        };
        let asked = exchange.clone();
        match (std::mem::replace(&mut self.state, State::Down), answer) {
            (State::Selecting(exchange), Answer::Offer(lease)) => {
                // The same exchange goes on: a request carries the offer's id (table 5).
                let exchange = Exchange { asked: 0, again: now, ..exchange };
                self.state = State::Requesting(exchange, lease);
            }
            (State::Requesting(exchange, offer), Answer::Ack(lease)) => {
                if lease.server == offer.server && lease.address.addr() == offer.address.addr() {
                    self.bind(lease, &asked, actions);
                } else {
                    self.state = State::Requesting(exchange, offer);
                }
            }
            (State::Rebooting(exchange, address), Answer::Ack(lease)) => {
                if lease.address.addr() == address {
                    self.bind(lease, &asked, actions);
                } else {
                    self.state = State::Rebooting(exchange, address);
                }
            }
            (
                State::Renewing(exchange, held) | State::Rebinding(exchange, held),
                Answer::Ack(lease),
            ) => {
                if lease.address.addr() == held.lease.address.addr() {
                    self.bind(lease, &asked, actions);
                } else {
                    self.state = State::Rebinding(exchange, held);
                }
            }
            (State::Requesting(exchange, offer), Answer::Nak { server }) => {
                if server == offer.server {
                    self.select(now + Duration::from_secs(1), random);
                } else {
                    self.state = State::Requesting(exchange, offer);
                }
            }
            (State::Renewing(exchange, held), Answer::Nak { server })
                if server != held.lease.server =>
            {
                self.state = State::Renewing(exchange, held);
            }
            (
                State::Rebooting(..) | State::Renewing(..) | State::Rebinding(..),
                Answer::Nak { .. },
            ) => {
                self.drop_address(actions);
                self.select(now, random);
            }
            // Anything else is late or out of turn.
            (state, _) => self.state = state,
        }
    }

    /// A lease counts from when it was asked for, so that it never ends later here than there.
    fn bind(&mut self, lease: Lease, asked: &Exchange, actions: &mut Vec<Action>) {
        let held = Held { lease, since: asked.since };
        self.remembered = Some((held.lease.address.addr(), held.end()));
        self.unanswered = None;
        actions.push(Action::Configure(held.lease.clone()));
        self.state = State::Bound(held);
    }

    fn time(&mut self, now: Duration, random: u32, actions: &mut Vec<Action>) {
        if self.remembered.is_some_and(|(_, end)| end <= now) {
            self.drop_address(actions);
            if self.state != State::Down && !matches!(self.state, State::Requesting(..)) {
                self.select(now, random);
            }
        }
        match std::mem::replace(&mut self.state, State::Down) {
            State::Selecting(mut exchange) if exchange.again <= now => {
                let mut message = self.question(MessageType::Discover, &exchange, now);
                if let Some((address, _)) = self.remembered {
                    message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
                }
                actions.push(Action::Broadcast(message));
                exchange.ask(now, random);
                self.state = State::Selecting(exchange);
            }
            State::Requesting(exchange, _)
                if exchange.again <= now && exchange.asked >= REQUESTS =>
            {
                self.select(now, random);
                self.time(now, random, actions);
            }
            State::Requesting(mut exchange, offer) if exchange.again <= now => {
                if exchange.asked == 0 {
                    exchange.since = now;
                }
                let mut message = self.question(MessageType::Request, &exchange, now);
                let options = message.opts_mut();
                options.insert(DhcpOption::RequestedIpAddress(offer.address.addr()));
                options.insert(DhcpOption::ServerIdentifier(offer.server));
                actions.push(Action::Broadcast(message));
                exchange.ask(now, random);
                self.state = State::Requesting(exchange, offer);
            }
            State::Rebooting(exchange, _) if exchange.again <= now && exchange.asked >= REBOOTS => {
                // The address stays while another is looked for: the server may just be down.
                self.select(now, random);
                self.time(now, random, actions);
            }
            State::Rebooting(mut exchange, address) if exchange.again <= now => {
                let mut message = self.question(MessageType::Request, &exchange, now);
                message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
                actions.push(Action::Broadcast(message));
                exchange.ask(now, random);
                self.state = State::Rebooting(exchange, address);
            }
            State::Bound(held)
                if held.lease.lasts.is_some() && held.since + held.lease.renew <= now =>
            {
                let exchange = Exchange { xid: random, since: now, asked: 0, again: now };
                self.state = State::Renewing(exchange, held);
                self.time(now, random, actions);
            }
            State::Renewing(mut exchange, held) if held.since + held.lease.rebind <= now => {
                exchange.again = now;
                self.state = State::Rebinding(exchange, held);
                self.time(now, random, actions);
            }
            State::Renewing(mut exchange, held) if exchange.again <= now => {
                exchange.since = now;
                let message = self.extension(&exchange, &held, now);
                actions.push(Action::Unicast(message, held.lease.clone()));
                exchange.half(now, held.since + held.lease.rebind);
                self.state = State::Renewing(exchange, held);
            }
            State::Rebinding(mut exchange, held) if exchange.again <= now => {
                exchange.since = now;
                actions.push(Action::Broadcast(self.extension(&exchange, &held, now)));
                exchange.half(now, held.end());
                self.state = State::Rebinding(exchange, held);
            }
            state => self.state = state,
        }
    }

    fn extension(&self, exchange: &Exchange, held: &Held, now: Duration) -> Message {
        let mut message = self.question(MessageType::Request, exchange, now);
        message.set_ciaddr(held.lease.address.addr());
        message
    }

    fn question(&self, kind: MessageType, exchange: &Exchange, now: Duration) -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(exchange.xid, zero, zero, zero, zero, &self.mac);
        let seconds = now.saturating_sub(exchange.since).as_secs();
        message.set_secs(u16::try_from(seconds).unwrap_or(u16::MAX));
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        // hardware type 1, then the hardware address: the same client at each boot
        options.insert(DhcpOption::ClientIdentifier([&[1], &self.mac[..]].concat()));
        options.insert(DhcpOption::MaxMessageSize(1472));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::AddressLeaseTime,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]));
        message
    }
}

impl Exchange {
    fn ask(&mut self, now: Duration, random: u32) {
        let pause = (2 << self.asked.min(5)).min(LONGEST) * 1000;
        self.asked = self.asked.saturating_add(1);
        self.again = now + Duration::from_millis(pause - 1000 + u64::from(random % 2001));
    }

    /// Half of the time that is left, 60 s at least (RFC 2131, section 4.4.5).
    fn half(&mut self, now: Duration, end: Duration) {
        self.asked = self.asked.saturating_add(1);
        self.again =
            now + (end.saturating_sub(now) / 2).max(RENEWAL_PAUSE).min(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests;
