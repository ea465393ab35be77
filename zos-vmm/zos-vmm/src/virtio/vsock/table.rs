//! All connections: what a packet of the guest or an event of the host leads to. It makes no system
//! call and asks no clock.
//!
//! ```text
//!  guest's packet ─▶ guest() ─▶ Action for the host's sockets
//!  host's events  ─▶ connect(), readable(), host_shuts(), flushed() ...
//!                    next() ─▶ Turn: a packet for the guest, or whose bytes to read for one
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | another's context id as its own | dropped |
//! | a port, context or kind that nobody serves | RST; 256 wait at most, then its queue does |
//! | more bytes than it was given room for | RST, the connection is gone |
//! | a length that its buffers don't have | RST, the connection is gone |
//! | claim that it read more than it got | its credit is zero until it says something sensible |
//! | an operation at the wrong time, or none that exists | RST, the connection is gone |
//! | connections without end | 1024 in all; then RST. Buffers are below 8 MiB together |
//! | never answer | 2 s for a request, 8 s for an end |

use super::connection::{Connection, Ports, State};
use super::packet::{HOST, Header, NO_RECEIVE, NO_SEND, STREAM, op};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Most connections.
pub(super) const MOST_CONNECTIONS: usize = 1024;
/// Refusals that wait for the guest to take them.
const MOST_REFUSALS: usize = 256;
/// The first connections have large windows: 64 * 64 KiB + 960 * 4 KiB are less than 8 MiB.
const LARGE: usize = 64;
const LARGE_WINDOW: u32 = 64 << 10;
const SMALL_WINDOW: u32 = 4 << 10;
/// Host ports of the host's own connections begin here.
const FIRST_PORT: u32 = 1 << 30;
/// How long a guest may think about a request, and about an end.
const ANSWER: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_secs(8);

/// A connection's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u64);

/// What the host's sockets have to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Connect to the host's port, then tell `connected` or `refused`.
    Connect(Id, u32),
    /// The guest took the connection: tell the client its port.
    Greet(Id, u32),
    /// There are bytes to be written.
    Flush(Id),
    /// The guest reads no more, or writes no more and all of it is written.
    Shut { id: Id, reading: bool, writing: bool },
    /// Close it.
    Close(Id),
}

/// What is next for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A packet without data.
    Packet(Header),
    /// Read at most so many bytes, then tell `sent`, `unreadable` or `host_shuts`.
    Data(Id, usize),
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The connections of one guest.
#[derive(Debug)]
pub(super) struct Table {
    cid: u64,
    /// The guest may connect to the host.
    calls_out: bool,
    connections: BTreeMap<Id, Connection>,
    /// Those that the guest knows of.
    known: HashMap<Ports, Id>,
    refusals: VecDeque<Header>,
    turns: VecDeque<Id>,
    /// When to look whether something waits too long.
    alarms: BTreeSet<(Instant, Id)>,
    next_id: u64,
    next_port: u32,
}

impl Table {
    pub(super) fn new(cid: u64, calls_out: bool) -> Self {
        Self {
            cid,
            calls_out,
            connections: BTreeMap::new(),
            known: HashMap::new(),
            refusals: VecDeque::new(),
            turns: VecDeque::new(),
            alarms: BTreeSet::new(),
            next_id: 0,
            next_port: FIRST_PORT,
        }
    }

    /// Whether a packet of the guest may be taken: there is room for an answer.
    pub(super) fn takes_packets(&self) -> bool {
        self.refusals.len() < MOST_REFUSALS
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// A packet of the guest. `data` has its length, or is none when its buffers don't have that.
    pub(super) fn guest(&mut self, header: &Header, data: Option<&[u8]>) -> Option<Action> {
        if header.src_cid != self.cid {
            return None;
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let served = header.dst_cid == HOST && header.kind == STREAM;
        let id = if served { self.known.get(&ports).copied() } else { None };
        let Some(id) = id else {
            let asks = served && header.op == op::REQUEST && data.is_some();
            if asks
                && self.calls_out
                && let Ok(id) = self.add(ports, State::Asking)
            {
                self.note_credit(id, header);
                return Some(Action::Connect(id, ports.host));
            }
            self.refuse(header);
            return None;
        };
        self.note_credit(id, header);
        let connection = self.connections.get_mut(&id)?;
        let flows = connection.state == State::Open && connection.guest_shut & NO_SEND == 0;
        match (header.op, data) {
            (op::RST, _) => return self.forget(id),
            (op::RESPONSE, Some(_)) if matches!(connection.state, State::Asked { .. }) => {
                connection.state = State::Open;
                connection.readable = true;
                self.queue(id);
                return Some(Action::Greet(id, ports.host));
            }
            (op::RW, Some(data)) if flows && connection.receive(data) => {
                return (!data.is_empty()).then_some(Action::Flush(id));
            }
            (op::CREDIT_UPDATE, Some(_)) => {
                self.queue(id);
                return None;
            }
            (op::CREDIT_REQUEST, Some(_)) => {
                connection.owes.credit = true;
                self.queue(id);
                return None;
            }
            (op::SHUTDOWN, Some(_))
                if matches!(connection.state, State::Open | State::Ending { .. }) =>
            {
                return self.guest_shuts(id, header);
            }
            _ => {}
        }
        self.refuse(header);
        self.drop_connection(id)
    }

    fn note_credit(&mut self, id: Id, header: &Header) {
        self.connections.get_mut(&id).into_iter().for_each(|c| c.note_credit(header));
    }

    fn guest_shuts(&mut self, id: Id, header: &Header) -> Option<Action> {
        let connection = self.connections.get_mut(&id)?;
        connection.guest_shut |= header.flags & (NO_RECEIVE | NO_SEND);
        if connection.guest_shut == NO_RECEIVE | NO_SEND {
            // It is agreed at once. What the guest sent is ours to deliver.
            let ending = connection.state != State::Open;
            connection.state = State::Draining;
            self.known.remove(&connection.ports);
            let empty = connection.outgoing().is_empty();
            self.refuse(header);
            return if ending || empty {
                self.drop_connection(id)
            } else {
                Some(Action::Shut { id, reading: true, writing: false })
            };
        }
        let reading = connection.guest_shut & NO_RECEIVE != 0;
        let writing = connection.guest_shut & NO_SEND != 0 && connection.outgoing().is_empty();
        Some(Action::Shut { id, reading, writing })
    }

    /// The guest gave it up. What it sent before it said that it would send no more is delivered.
    fn forget(&mut self, id: Id) -> Option<Action> {
        let connection = self.connections.get_mut(&id)?;
        let orderly = connection.state == State::Open && connection.guest_shut & NO_SEND != 0;
        if orderly && !connection.outgoing().is_empty() {
            connection.state = State::Draining;
            self.known.remove(&connection.ports);
            return Some(Action::Shut { id, reading: true, writing: false });
        }
        self.drop_connection(id)
    }

    /// Answers with RST; an RST isn't answered.
    fn refuse(&mut self, header: &Header) {
        // `takes_packets` was asked before.
        if header.op != op::RST && self.refusals.len() <= MOST_REFUSALS {
            self.refusals.push_back(header.refusal());
        }
    }

    fn drop_connection(&mut self, id: Id) -> Option<Action> {
        let connection = self.connections.remove(&id)?;
        if connection.state != State::Draining {
            self.known.remove(&connection.ports);
        }
        Some(Action::Close(id))
    }

    fn add(&mut self, ports: Ports, state: State) -> Result<Id, Full> {
        if self.connections.len() >= MOST_CONNECTIONS {
            return Err(Full);
        }
        let window = if self.connections.len() < LARGE { LARGE_WINDOW } else { SMALL_WINDOW };
        let id = Id(self.next_id);
        self.next_id += 1;
        self.connections.insert(id, Connection::new(ports, state, window));
        self.known.insert(ports, id);
        Ok(id)
    }

    /// A client wants the guest's port.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn connect(&mut self, guest: u32, now: Instant) -> Result<Id, Full> {
        if self.connections.len() >= MOST_CONNECTIONS {
            return Err(Full);
        }
        // Fewer connections than ports: a free one comes soon.
        let ports = loop {
            let ports = Ports { host: self.next_port, guest };
            // The last number means any port.
            let last = self.next_port >= u32::MAX - 1;
            self.next_port = if last { FIRST_PORT } else { self.next_port + 1 };
            if !self.known.contains_key(&ports) {
                break ports;
            }
        };
        let until = now + ANSWER;
        let id = self.add(ports, State::Asked { until })?;
        self.alarms.insert((until, id));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.owes.request = true;
        }
        self.queue(id);
        Ok(id)
    }

    /// The host's socket that the guest asked for is connected.
    pub(super) fn connected(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = State::Open;
            connection.owes.response = true;
            connection.readable = true;
        }
        self.queue(id);
    }

    /// The host's socket may have bytes.
    pub(super) fn readable(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.readable = true;
        }
        self.queue(id);
    }

    /// It has none for now.
    pub(super) fn unreadable(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.readable = false;
        }
        self.queue(id);
    }

    /// The host's socket that the guest asked for can't be connected.
    pub(super) fn refused(&mut self, id: Id) -> Option<Action> {
        let connection = self.connections.get_mut(&id)?;
        // There's room: it comes of a packet that was taken.
        self.refusals.push_back(connection.header(self.cid, op::RST, 0, 0));
        self.drop_connection(id)
    }

    /// The host sends no more (its end was read), takes no more (a write failed), or both: flags of
    /// `SHUTDOWN`.
    pub(super) fn host_shuts(&mut self, id: Id, flags: u32, now: Instant) -> Option<Action> {
        let connection = self.connections.get_mut(&id)?;
        connection.host_shut |= flags;
        if connection.host_shut & NO_RECEIVE != 0 {
            connection.discard();
            if connection.state == State::Draining {
                return self.drop_connection(id);
            }
        }
        connection.owes.shutdown = true;
        let over = connection.host_shut == NO_RECEIVE | NO_SEND;
        let over = over && connection.state == State::Open;
        if over {
            let until = now + LINGER;
            connection.state = State::Ending { until };
            connection.owes.credit = false;
            self.alarms.insert((until, id));
        }
        self.queue(id);
        over.then_some(Action::Close(id))
    }

    /// What to write to the host's socket next.
    pub(super) fn outgoing(&self, id: Id) -> &[u8] {
        self.connections.get(&id).map_or(&[], Connection::outgoing)
    }

    /// So many bytes of it were written.
    pub(super) fn flushed(&mut self, id: Id, count: usize) -> Option<Action> {
        let connection = self.connections.get_mut(&id)?;
        connection.flushed(count);
        let empty = connection.outgoing().is_empty();
        if empty && connection.state == State::Draining {
            return self.drop_connection(id);
        }
        let shut = empty && connection.guest_shut & NO_SEND != 0;
        self.queue(id);
        shut.then_some(Action::Shut { id, reading: false, writing: true })
    }

    /// Notes a connection's turn, if there is something to say.
    fn queue(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.queued && has_turn(connection) {
            connection.queued = true;
            self.turns.push_back(id);
        }
    }

    /// Whether there is something for the guest.
    pub(super) fn has_turn(&self) -> bool {
        !self.refusals.is_empty() || !self.turns.is_empty()
    }

    /// The next for the guest. Connections take turns, a packet each.
    pub(super) fn next(&mut self) -> Option<Turn> {
        if let Some(header) = self.refusals.pop_front() {
            return Some(Turn::Packet(header));
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.queued = false;
            let turn = turn(connection, self.cid, id);
            // `Data` is queued again by what comes of it.
            if !matches!(turn, Some(Turn::Data(..))) {
                self.queue(id);
            }
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// `Data` was read: the header that goes before it.
    pub(super) fn sent(&mut self, id: Id, count: usize) -> Option<Header> {
        let connection = self.connections.get_mut(&id)?;
        let count = u32::try_from(count).unwrap_or(0);
        connection.sent(count);
        let header = connection.header(self.cid, op::RW, 0, count);
        self.queue(id);
        Some(header)
    }

    /// When something has to be given up.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(until, _)| *until)
    }

    /// Gives up what waited too long; to be called until there is none.
    pub(super) fn rang(&mut self, now: Instant) -> Option<Action> {
        while self.alarm().is_some_and(|until| until <= now) {
            let Some((at, id)) = self.alarms.pop_first() else { break };
            // It may have gone on meanwhile.
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if until(connection) != Some(at) {
                continue;
            }
            // The guest, if it takes packets, hears of it.
            if !connection.owes.request && self.refusals.len() < MOST_REFUSALS {
                self.refusals.push_back(connection.header(self.cid, op::RST, 0, 0));
            }
            return self.drop_connection(id);
        }
        None
    }
}

fn until(connection: &Connection) -> Option<Instant> {
    match connection.state {
        State::Asked { until } | State::Ending { until } => Some(until),
        State::Asking | State::Open | State::Draining => None,
    }
}

/// Whether bytes may be read for the guest.
fn may_read(connection: &Connection) -> bool {
    connection.state == State::Open
        && connection.readable
        && connection.guest_shut & NO_RECEIVE == 0
        && connection.host_shut & NO_SEND == 0
}

fn has_turn(connection: &Connection) -> bool {
    let owes = connection.owes;
    match connection.state {
        State::Asking | State::Draining => false,
        State::Asked { .. } => owes.request,
        State::Open | State::Ending { .. } => {
            let read = connection.credit() > 0 || !connection.asked_credit;
            owes.response || owes.shutdown || owes.credit || may_read(connection) && read
        }
    }
}

fn turn(connection: &mut Connection, cid: u64, id: Id) -> Option<Turn> {
    if !has_turn(connection) {
        return None;
    }
    let take = std::mem::take;
    let owes = &mut connection.owes;
    let (op, flags) = if take(&mut owes.request) {
        (op::REQUEST, 0)
    } else if take(&mut owes.response) {
        (op::RESPONSE, 0)
    } else if take(&mut owes.shutdown) {
        (op::SHUTDOWN, connection.host_shut)
    } else if may_read(connection) && connection.credit() > 0 {
        return Some(Turn::Data(id, connection.credit() as usize));
    } else if take(&mut connection.owes.credit) {
        (op::CREDIT_UPDATE, 0)
    } else {
        connection.asked_credit = true;
        (op::CREDIT_REQUEST, 0)
    };
    Some(Turn::Packet(connection.header(cid, op, flags, 0)))
}

#[cfg(test)]
mod tests;
