//! virtio-vsock (virtio 1.2, 5.10): streams between host and guest, over Unix sockets.
//!
//! ```text
//!  client ─ "CONNECT 1024\n" ─▶ listening socket ─▶ Host ─▶ Table ─▶ queue 0 ─▶ guest
//!         ◀ "OK <port>\n", bytes ──────────────────  │        ▲
//!  <path>_<port> ◀─ a guest's own connection ────────┘        └── queue 1 ◀── guest
//!                   (developers; in the jail: RST)                queue 2: events, none yet
//! ```
//!
//! [`table`] decides, [`host`] has the sockets, and this file moves packets between them and the
//! guest's buffers. Client and guest meet only here: the guest never sees the host's own vsock, and
//! its context id means nothing outside.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a packet without a whole header, or for reading | given back, counted |
//! | `len` beyond the buffers, or beyond 64 KiB | RST, see [`table`] |
//! | buffers without room for a header | given back empty |
//! | send, and offer no buffers for answers | its packets wait |

mod connection;
mod host;
mod packet;
mod table;

use super::{
    Activation, ActiveQueue, Backend, Broken, Chain, ConfigSpace, Counters, F_RING, Interrupt,
    Profile, SHARE, Share, Waits,
};
use crate::memory::GuestMemory;
use host::{Happening, Host, Read};
use packet::{HEADER_BYTES, Header, MOST_DATA, NO_RECEIVE, NO_SEND};
use rustix::event::PollFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use table::{Action, Id, MOST_CONNECTIONS, Table, Turn};

const KIND: u16 = 19;
const CLASS: u32 = 0xff_0000;
const RECEIVE: usize = 0;

/// Counters by their indices.
const COUNTERS: &[&str] = &[
    "received_bytes",
    "sent_bytes",
    "received_packets",
    "sent_packets",
    "malformed",
    "connections",
];
const RECEIVED_BYTES: usize = 0;
const SENT_BYTES: usize = 1;
const RECEIVED_PACKETS: usize = 2;
const SENT_PACKETS: usize = 3;
const MALFORMED: usize = 4;
const CONNECTIONS: usize = 5;

/// What the device stands on.
#[derive(Debug)]
pub struct VsockEnds {
    /// A listening Unix socket that doesn't block.
    pub listener: OwnedFd,
    /// A guest's own connections go to this path, `_` and the port; without one they are refused.
    pub calls: Option<PathBuf>,
}

/// Sockets between host and guest.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    host: Host,
    table: Table,
    counters: Counters,
    active: Option<Active>,
    happened: Vec<Happening>,
    /// A packet for the guest was left for the next turn of the thread.
    more: bool,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    receive: ActiveQueue,
    /// For the guest; loaded while `held`.
    room: Chain,
    held: bool,
    transmit: ActiveQueue,
    packet: Chain,
    /// Packets of the guest may wait: it must take answers first, or their share was done.
    waiting: bool,
    /// Where `TRANSPORT_RESET` will go after a restore.
    _events: Option<ActiveQueue>,
    data: Box<[u8]>,
}

impl Vsock {
    /// For the guest of this context id.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(cid: u64, ends: VsockEnds) -> io::Result<Self> {
        let host = Host::new(ends.listener, ends.calls)?;
        Ok(Self {
            cid,
            table: Table::new(cid, host.calls_out()),
            host,
            counters: Counters::new(COUNTERS),
            active: None,
            happened: Vec::new(),
            more: false,
        })
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            kind: KIND,
            class: CLASS,
            features: F_RING,
            queues: vec![128, 128, 16],
            config: ConfigSpace::new(self.cid.to_le_bytes().to_vec()),
            counters: self.counters.clone(),
        }
    }

    /// Does what the table wants of the host's sockets.
    fn perform(&mut self, action: Option<Action>) {
        let mut action = action;
        while let Some(next) = action.take() {
            match next {
                Action::Connect(id, port) => match self.host.call(id, port) {
                    Ok(()) => {
                        self.counters.add(CONNECTIONS, 1);
                        self.table.connected(id);
                    }
                    Err(_) => action = self.table.refused(id),
                },
                Action::Greet(id, port) => {
                    self.counters.add(CONNECTIONS, 1);
                    let line = format!("OK {port}\n");
                    // A socket that is so new has room for it.
                    if self.host.write(id, line.as_bytes()) != Ok(line.len()) {
                        action = self.table.host_shuts(id, NO_RECEIVE, Instant::now());
                    }
                }
                Action::Flush(id) => action = self.flush(id),
                Action::Shut { id, reading, writing } => self.host.shut(id, reading, writing),
                Action::Close(id) => self.host.close(id),
            }
        }
    }

    /// Writes what the guest sent, as far as the client takes it; tells what that leads to.
    fn flush(&mut self, id: Id) -> Option<Action> {
        loop {
            let bytes = self.table.outgoing(id);
            if bytes.is_empty() {
                return None;
            }
            match self.host.write(id, bytes) {
                Ok(0) => return None,
                Ok(count) => {
                    // It follows from the last byte alone.
                    if let Some(action) = self.table.flushed(id, count) {
                        return Some(action);
                    }
                }
                Err(_) => return self.table.host_shuts(id, NO_RECEIVE, Instant::now()),
            }
        }
    }

    /// Takes a share of the guest's packets.
    fn hear_guest(&mut self) -> Result<Share, Broken> {
        let Some(mut active) = self.active.take() else { return Ok(Share::Done) };
        let result = self.take_packets(&mut active);
        self.active = Some(active);
        result
    }

    fn take_packets(&mut self, active: &mut Active) -> Result<Share, Broken> {
        let Active { memory, interrupt, transmit, packet, data, .. } = active;
        transmit.quiet(memory)?;
        active.waiting = true;
        let mut done = 0;
        let share = loop {
            if !self.table.takes_packets() {
                break Share::Done;
            }
            if done == SHARE {
                break Share::More;
            }
            match transmit.next(memory, packet)? {
                Some(loaded) => {
                    done += 1;
                    let action = if loaded.is_ok() { self.take_packet(packet, data) } else { None };
                    self.perform(action);
                    transmit.give_back(memory, packet.head, 0)?;
                }
                None if transmit.listen(memory)? => transmit.quiet(memory)?,
                None => {
                    active.waiting = false;
                    break Share::Done;
                }
            }
        };
        transmit.notify(memory, interrupt)?;
        Ok(share)
    }

    fn take_packet(&mut self, packet: &mut Chain, data: &mut [u8]) -> Option<Action> {
        let mut header = [0; HEADER_BYTES];
        let whole = packet.readable.take(&mut header) == HEADER_BYTES;
        if !whole || packet.writable.bytes() > 0 {
            self.counters.add(MALFORMED, 1);
            return None;
        }
        let header = Header::parse(&header);
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        let right = length <= MOST_DATA && length <= packet.readable.bytes();
        let data = if right {
            let count = packet.readable.take(&mut data[..length]);
            Some(&data[..count])
        } else {
            self.counters.add(MALFORMED, 1);
            None
        };
        self.counters.add(RECEIVED_PACKETS, 1);
        self.counters.add(RECEIVED_BYTES, data.map_or(0, |data| data.len() as u64));
        self.table.guest(&header, data)
    }

    /// Gives the guest a share of what waits for it.
    fn tell_guest(&mut self) -> Result<(), Broken> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = self.give_packets(&mut active);
        self.active = Some(active);
        result
    }

    fn give_packets(&mut self, active: &mut Active) -> Result<(), Broken> {
        self.more = false;
        for _ in 0..SHARE {
            if !self.table.has_turn() || !active.hold()? {
                return active.receive.notify(&active.memory, &active.interrupt);
            }
            let Some(turn) = self.table.next() else { continue };
            let (header, count) = match turn {
                Turn::Packet(header) => (header, 0),
                Turn::Data(id, most) => match self.read(id, most, active)? {
                    Some(both) => both,
                    None => continue,
                },
            };
            active.give(&header, count)?;
            self.counters.add(SENT_PACKETS, 1);
            self.counters.add(SENT_BYTES, count as u64);
        }
        self.more = true;
        active.receive.notify(&active.memory, &active.interrupt)
    }

    /// Reads a client's bytes for the guest's buffer.
    fn read(
        &mut self,
        id: Id,
        most: usize,
        active: &mut Active,
    ) -> Result<Option<(Header, usize)>, Broken> {
        let room = active.room.writable.bytes() - HEADER_BYTES;
        if room == 0 {
            active.give_back(0)?;
            self.table.readable(id);
            return Ok(None);
        }
        let most = most.min(room).min(MOST_DATA);
        let shut = match self.host.read(id, &mut active.data[..most]) {
            Read::Bytes(count) => return Ok(self.table.sent(id, count).map(|h| (h, count))),
            Read::Nothing => {
                self.table.unreadable(id);
                return Ok(None);
            }
            Read::End => NO_SEND,
            Read::Gone => NO_SEND | NO_RECEIVE,
        };
        let action = self.table.host_shuts(id, shut, Instant::now());
        self.perform(action);
        Ok(None)
    }

    /// Connections that may still be made.
    fn room(&self) -> usize {
        MOST_CONNECTIONS.saturating_sub(self.table.len())
    }

    /// Looks after clients.
    fn hear_host(&mut self) {
        let now = Instant::now();
        let mut happened = std::mem::take(&mut self.happened);
        self.host.look(self.room(), now, &mut happened);
        for happening in happened.drain(..) {
            match happening {
                Happening::Wants { token, port } => match self.table.connect(port, now) {
                    Ok(id) => self.host.belongs(token, id),
                    Err(table::Full) => self.host.dismiss(token),
                },
                Happening::Readable(id) => self.table.readable(id),
                Happening::Writable(id) => {
                    let action = self.flush(id);
                    self.perform(action);
                }
                Happening::Gone(id) => {
                    let action = self.table.host_shuts(id, NO_SEND | NO_RECEIVE, now);
                    self.perform(action);
                }
            }
        }
        self.happened = happened;
    }

    /// Answers go out; and when they found room, packets that waited for that come in.
    fn exchange(&mut self) -> Result<Share, Broken> {
        self.tell_guest()?;
        if !self.may_take() {
            return Ok(Share::Done);
        }
        let share = self.hear_guest()?;
        self.tell_guest()?;
        Ok(share)
    }

    /// Whether packets of the guest wait that could be taken.
    fn may_take(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.waiting) && self.table.takes_packets()
    }
}

impl Active {
    /// Makes sure that a buffer for the guest is loaded.
    fn hold(&mut self) -> Result<bool, Broken> {
        while !self.held {
            match self.receive.next(&self.memory, &mut self.room)? {
                Some(loaded) => {
                    self.held = true;
                    let room = &self.room;
                    let right = loaded.is_ok()
                        && room.readable.bytes() == 0
                        && room.writable.bytes() >= HEADER_BYTES;
                    if !right {
                        self.give_back(0)?;
                    }
                }
                None if self.receive.listen(&self.memory)? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn give(&mut self, header: &Header, count: usize) -> Result<(), Broken> {
        self.room.writable.fill(&header.bytes());
        self.room.writable.fill(&self.data[..count]);
        self.give_back(HEADER_BYTES + count)
    }

    fn give_back(&mut self, written: usize) -> Result<(), Broken> {
        self.held = false;
        self.receive.give_back(&self.memory, self.room.head, written)
    }
}

impl Backend for Vsock {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let (receive, transmit) = (activation.take(0)?, activation.take(1)?);
        let events = activation.take(2).ok();
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active {
            room: Chain::new(&memory),
            packet: Chain::new(&memory),
            memory,
            interrupt,
            receive,
            held: false,
            transmit,
            waiting: false,
            _events: events,
            data: vec![0; MOST_DATA].into(),
        });
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<Share, Broken> {
        match queue {
            RECEIVE => self.exchange(),
            1 => {
                let share = self.hear_guest()?;
                Ok(if self.exchange()? == Share::More { Share::More } else { share })
            }
            _ => Ok(Share::Done),
        }
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        waits.add(0, self.host.fd(), PollFlags::IN);
    }

    fn ready(&mut self, _: u32) -> Result<(), Broken> {
        self.rang()
    }

    fn alarm(&self) -> Option<Instant> {
        // Whoever leaves makes room for who waits in the backlog.
        if self.more || self.host.may_accept(self.room()) {
            return Some(Instant::now());
        }
        self.table.alarm().into_iter().chain(self.host.alarm()).min()
    }

    fn rang(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        self.hear_host();
        self.host.rang(now);
        while let Some(action) = self.table.rang(now) {
            self.perform(Some(action));
        }
        self.exchange()?;
        self.more |= self.may_take();
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.more = false;
        self.table = Table::new(self.cid, self.host.calls_out());
        self.host.reset();
    }
}

#[cfg(test)]
mod tests;
