#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CID: u64 = 3;

fn header(op: u16, ports: (u32, u32)) -> Header {
    let (src_port, dst_port) = ports;
    let buf_alloc = 1 << 16;
    Header {
        src_cid: CID,
        dst_cid: HOST,
        src_port,
        dst_port,
        kind: STREAM,
        op,
        buf_alloc,
        ..Header::default()
    }
}

/// A connection that the host asked for and the guest took: its number, the guest's port and the
/// host's.
fn open(table: &mut Table) -> (Id, (u32, u32)) {
    let id = table.connect(1024, Instant::now()).unwrap();
    let request = loop {
        match table.next() {
            Some(Turn::Packet(packet)) if packet.op == op::REQUEST => break packet,
            Some(Turn::Packet(_)) => {}
            Some(Turn::Data(id, _)) => table.unreadable(id),
            None => panic!("no request"),
        }
    };
    assert_eq!((request.op, request.dst_port, request.dst_cid), (op::REQUEST, 1024, CID));
    let ports = (1024, request.src_port);
    let greet = table.guest(&header(op::RESPONSE, ports), Some(&[]));
    assert_eq!(greet, Some(Action::Greet(id, request.src_port)));
    (id, ports)
}

/// What the table says to the guest until it has nothing more.
fn said(table: &mut Table) -> Vec<(u16, u32)> {
    let mut said = Vec::new();
    while let Some(turn) = table.next() {
        match turn {
            Turn::Packet(header) => said.push((header.op, header.flags)),
            Turn::Data(id, _) => table.unreadable(id),
        }
    }
    said
}

#[test]
fn packets_at_the_wrong_time_are_answered_with_rst() {
    type Change = fn(&mut Header);
    let rows: &[(&str, bool, Change)] = &[
        ("nobody serves the port", true, |h| (h.op, h.dst_port) = (op::RW, 7)),
        ("a request in the jail", true, |h| (h.op, h.dst_port) = (op::REQUEST, 7)),
        ("another context", true, |h| h.dst_cid = 1),
        ("a kind that isn't offered", true, |h| h.kind = 2),
        ("a kind that doesn't exist", true, |h| h.kind = 77),
        ("an operation that doesn't exist", true, |h| h.op = 0),
        ("another one", true, |h| h.op = 8),
        ("a second answer", true, |h| h.op = op::RESPONSE),
        ("a second request", true, |h| h.op = op::REQUEST),
        ("another's name", false, |h| h.src_cid = 4),
        ("a refusal of nothing", false, |h| (h.op, h.dst_port) = (op::RST, 7)),
    ];
    for (name, answered, change) in rows {
        let mut table = Table::new(CID, false);
        let (_, ports) = open(&mut table);
        said(&mut table);
        let mut header = header(op::RW, ports);
        change(&mut header);
        table.guest(&header, Some(&[]));
        let expected = if *answered { vec![(op::RST, 0)] } else { Vec::new() };
        assert_eq!(said(&mut table), expected, "{name}");
    }
}

#[test]
fn a_packet_longer_than_its_buffers() {
    let mut table = Table::new(CID, false);
    let (id, ports) = open(&mut table);
    assert_eq!(table.guest(&header(op::RW, ports), None), Some(Action::Close(id)));
    assert_eq!(said(&mut table), [(op::RST, 0)]);
    assert_eq!(table.len(), 0);
}

#[test]
fn more_than_was_allowed_ends_the_connection() {
    let mut table = Table::new(CID, false);
    let (id, ports) = open(&mut table);
    let window = vec![7; LARGE_WINDOW as usize];
    let packet = header(op::RW, ports);
    assert_eq!(table.guest(&packet, Some(&window)), Some(Action::Flush(id)));
    assert_eq!(table.guest(&packet, Some(&[1])), Some(Action::Close(id)));
}

#[test]
fn credit_that_wraps() {
    // (buf_alloc, fwd_cnt, sent so far, expected credit)
    for (alloc, forwarded, sent, expected) in [
        (1000, 0, 0, 1000),
        (1000, 0, 400, 600),
        (1000, u32::MAX - 99, 300, 600),
        (u32::MAX, 0, 0, u32::MAX),
        (0, 0, 0, 0),
        // It shrank its buffer below what is under way.
        (100, 0, 400, 0),
        // It claims to have read what it never got.
        (1000, 1, 0, 0),
        (u32::MAX, 5, 0, 4),
    ] {
        let mut connection = Connection::new(Ports { host: 1, guest: 2 }, State::Open, 4096);
        connection.begin_at(0);
        connection.sent(sent);
        let mut packet = header(op::CREDIT_UPDATE, (2, 1));
        (packet.buf_alloc, packet.fwd_cnt) = (alloc, forwarded);
        connection.note_credit(&packet);
        assert_eq!(connection.credit(), expected, "{alloc} {forwarded} {sent}");
    }
}

#[test]
fn a_connection_flood_is_bounded() {
    let mut table = Table::new(CID, true);
    let mut connected = 0;
    for port in 0..5000 {
        match table.guest(&header(op::REQUEST, (port, 9)), Some(&[])) {
            Some(Action::Connect(id, 9)) => {
                connected += 1;
                table.connected(id);
            }
            other => assert_eq!(other, None),
        }
        assert!(table.refusals.len() <= MOST_REFUSALS + 1);
    }
    assert_eq!((connected, table.len()), (MOST_CONNECTIONS, MOST_CONNECTIONS));
    assert!(!table.takes_packets(), "it has to take its refusals first");
    let bytes = vec![1; LARGE_WINDOW as usize];
    for port in 0..5000 {
        // Some fit, some are too long for a small window; all of it stays bounded.
        for _ in 0..3 {
            table.guest(&header(op::RW, (port, 9)), Some(&bytes[..4096]));
        }
    }
    let held: usize = table.connections.values().map(|c| c.outgoing().len()).sum();
    assert!(held <= 8 << 20, "{held}");
}

#[test]
fn who_never_answers_is_given_up() {
    let start = Instant::now();
    let mut table = Table::new(CID, false);
    let id = table.connect(1, start).unwrap();
    table.next();
    assert_eq!(table.alarm(), Some(start + ANSWER));
    assert_eq!(table.rang(start), None);
    assert_eq!(table.rang(start + ANSWER), Some(Action::Close(id)));
    assert_eq!((said(&mut table), table.len()), (vec![(op::RST, 0)], 0));
    // An end that isn't agreed to.
    let (id, _) = open(&mut table);
    let over = table.host_shuts(id, NO_SEND | NO_RECEIVE, start);
    assert_eq!(over, Some(Action::Close(id)));
    assert_eq!(said(&mut table), [(op::SHUTDOWN, NO_SEND | NO_RECEIVE)]);
    while table.alarm().is_some_and(|at| at < start + LINGER) {
        assert_eq!(table.rang(table.alarm().unwrap()), None);
    }
    assert_eq!(table.rang(start + LINGER), Some(Action::Close(id)));
    assert_eq!((said(&mut table), table.len()), (vec![(op::RST, 0)], 0));
}

#[test]
fn each_side_may_end_its_half() {
    let now = Instant::now();
    let mut table = Table::new(CID, false);
    let (id, ports) = open(&mut table);
    said(&mut table);
    // The guest sends its last bytes; they go out before the client hears of the end.
    table.guest(&header(op::RW, ports), Some(b"last"));
    let mut shut = header(op::SHUTDOWN, ports);
    shut.flags = NO_SEND;
    let nothing = Action::Shut { id, reading: false, writing: false };
    assert_eq!(table.guest(&shut, Some(&[])), Some(nothing));
    assert_eq!(table.flushed(id, 3), None);
    let writing = Action::Shut { id, reading: false, writing: true };
    assert_eq!(table.flushed(id, 1), Some(writing));
    // It may not send again, but the host may still.
    table.readable(id);
    assert!(matches!(table.next(), Some(Turn::Data(..))));
    assert_eq!(table.sent(id, 5).unwrap().len, 5);
    said(&mut table);
    assert_eq!(table.host_shuts(id, NO_SEND, now), None);
    assert_eq!(said(&mut table), [(op::SHUTDOWN, NO_SEND)]);
    shut.flags = NO_RECEIVE;
    assert_eq!(table.guest(&shut, Some(&[])), Some(Action::Close(id)));
    assert_eq!((said(&mut table), table.len()), (vec![(op::RST, 0)], 0));
}

#[test]
fn what_was_sent_before_the_end_is_delivered() {
    for orderly in [true, false] {
        let mut table = Table::new(CID, false);
        let (id, ports) = open(&mut table);
        table.guest(&header(op::RW, ports), Some(b"bytes"));
        if orderly {
            let mut shut = header(op::SHUTDOWN, ports);
            shut.flags = NO_SEND | NO_RECEIVE;
            table.guest(&shut, Some(&[]));
            assert_eq!(table.outgoing(id), b"bytes");
            // The guest may use the port again meanwhile.
            assert!(!table.known.contains_key(&Ports { host: ports.1, guest: ports.0 }));
            assert_eq!(table.flushed(id, 5), Some(Action::Close(id)));
        } else {
            // A guest that aborts doesn't care.
            let aborted = table.guest(&header(op::RST, ports), Some(&[]));
            assert_eq!(aborted, Some(Action::Close(id)));
        }
        assert_eq!(table.len(), 0);
    }
}

/// A step of the hostile guest, or of the host meanwhile.
#[derive(Clone, Debug)]
enum Step {
    Packet { header: Header, data: Option<usize> },
    Connect,
    Host { which: usize, what: u8, count: usize },
    Take,
    Wait(u64),
}

fn hostile_header() -> impl Strategy<Value = Header> {
    let small = prop_oneof![0u32..3, 1024u32..1026, (FIRST_PORT..FIRST_PORT + 4), any::<u32>()];
    let numbers = (small.clone(), small, any::<u32>(), any::<u32>(), any::<u32>());
    let kinds = (prop_oneof![9 => Just(CID), 1 => any::<u64>()], 0u16..9, 0u32..5, 0u16..4);
    (numbers, kinds).prop_map(|((src_port, dst_port, len, buf_alloc, fwd_cnt), kinds)| {
        let (src_cid, op, flags, kind) = kinds;
        let (dst_cid, kind) = (HOST, kind.max(1));
        let places = (src_cid, dst_cid, src_port, dst_port);
        let (src_cid, dst_cid, src_port, dst_port) = places;
        Header { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let data = prop_oneof![Just(None), (0usize..70_000).prop_map(Some)];
    let step = prop_oneof![
        8 => (hostile_header(), data).prop_map(|(header, data)| Step::Packet { header, data }),
        2 => Just(Step::Connect),
        4 => (0usize..8, 0u8..6, 0usize..70_000)
            .prop_map(|(which, what, count)| Step::Host { which, what, count }),
        4 => Just(Step::Take),
        1 => (0u64..10).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever a guest sends and whenever: no panic, every buffer within its window, no socket
    /// without a connection, and none of them left when all is given up.
    #[test]
    fn hostile_packets_never_panic_or_leak(steps in steps(), calls_out in any::<bool>()) {
        let mut table = Table::new(CID, calls_out);
        let mut now = Instant::now();
        let mut sockets = BTreeSet::new();
        let bytes = vec![0; 70_000];
        for step in steps {
            let action = match step {
                Step::Packet { header, data } if table.takes_packets() => {
                    table.guest(&header, data.map(|count| &bytes[..count]))
                }
                Step::Packet { .. } => None,
                Step::Connect => {
                    sockets.extend(table.connect(1024, now).ok());
                    None
                }
                Step::Host { which, what, count } => {
                    let Some(id) = sockets.iter().nth(which).copied() else { continue };
                    let waits = table.outgoing(id).len();
                    match what {
                        0 => { table.readable(id); None }
                        1 => { table.unreadable(id); None }
                        2 => table.host_shuts(id, NO_SEND, now),
                        3 => table.host_shuts(id, NO_RECEIVE, now),
                        4 => table.host_shuts(id, NO_SEND | NO_RECEIVE, now),
                        _ => table.flushed(id, count.min(waits)),
                    }
                }
                Step::Take => {
                    if let Some(Turn::Data(id, most)) = table.next() {
                        prop_assert!(most > 0);
                        table.sent(id, most.min(4096));
                    }
                    None
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    table.rang(now)
                }
            };
            match action {
                Some(Action::Connect(id, _)) => {
                    prop_assert!(calls_out);
                    sockets.insert(id);
                    table.connected(id);
                }
                Some(Action::Close(id)) => { sockets.remove(&id); }
                _ => {}
            }
            for (id, connection) in &table.connections {
                prop_assert!(connection.outgoing().len() <= LARGE_WINDOW as usize);
                let known = table.known.get(&connection.ports) == Some(id);
                prop_assert!(known || connection.state == State::Draining);
                let closed = matches!(connection.state, State::Ending { .. });
                prop_assert!(closed || sockets.contains(id));
            }
            prop_assert!(sockets.iter().all(|id| table.connections.contains_key(id)));
            prop_assert!(table.turns.len() <= table.next_id as usize);
        }
        // Everybody goes.
        for id in sockets.clone() {
            let actions = [
                table.host_shuts(id, NO_SEND | NO_RECEIVE, now),
                table.rang(now + LINGER),
            ];
            for action in actions.into_iter().flatten() {
                if let Action::Close(id) = action { sockets.remove(&id); }
            }
        }
        while let Some(Action::Close(id)) = table.rang(now + 2 * LINGER) {
            sockets.remove(&id);
        }
        prop_assert_eq!((table.len(), table.known.len(), sockets.len()), (0, 0, 0));
    }
}

/// A guest that keeps the rules, and the host's sockets, with what each wrote and read.
struct World {
    table: Table,
    guests: BTreeMap<Id, Guest>,
    hosts: BTreeMap<Id, Host>,
}

#[derive(Default)]
struct Guest {
    ports: (u32, u32),
    begin: u32,
    wrote: Vec<u8>,
    /// In its buffer, and read by its program.
    buffer: Vec<u8>,
    read: Vec<u8>,
    /// What the host told.
    host_alloc: u32,
    host_forwarded: u32,
    ended: bool,
}

#[derive(Default)]
struct Host {
    wrote: Vec<u8>,
    taken: usize,
    read: Vec<u8>,
}

const GUEST_BUFFER: usize = 3000;

impl World {
    fn new(connections: usize, begin: u32) -> Self {
        let mut table = Table::new(CID, false);
        let (mut guests, mut hosts) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..connections {
            let (id, ports) = open(&mut table);
            table.connections.get_mut(&id).unwrap().begin_at(begin);
            let guest = Guest {
                ports,
                begin,
                host_alloc: LARGE_WINDOW,
                host_forwarded: begin,
                ..Guest::default()
            };
            guests.insert(id, guest);
            hosts.insert(id, Host::default());
        }
        let mut world = Self { table, guests, hosts };
        for id in world.ids() {
            world.tell(id, op::CREDIT_UPDATE, &[]);
        }
        world
    }

    fn ids(&self) -> Vec<Id> {
        self.guests.keys().copied().collect()
    }

    fn tell(&mut self, id: Id, op: u16, data: &[u8]) -> Option<Action> {
        let guest = &self.guests[&id];
        let mut packet = header(op, guest.ports);
        packet.len = u32::try_from(data.len()).unwrap();
        packet.buf_alloc = GUEST_BUFFER as u32;
        packet.fwd_cnt = guest.begin.wrapping_add(guest.read.len() as u32);
        let action = self.table.guest(&packet, Some(data));
        assert_ne!(action, Some(Action::Close(id)), "a guest that keeps the rules is kept");
        action
    }

    /// The guest's program writes, as far as the credit goes.
    fn guest_writes(&mut self, id: Id, count: usize) {
        let guest = self.guests.get_mut(&id).unwrap();
        let sent = guest.begin.wrapping_add(guest.wrote.len() as u32);
        let free = guest.host_alloc - sent.wrapping_sub(guest.host_forwarded);
        let count = count.min(free as usize);
        let from = guest.wrote.len();
        let data: Vec<u8> = (from..from + count).map(|at| (at % 251) as u8).collect();
        guest.wrote.extend_from_slice(&data);
        self.tell(id, op::RW, &data);
    }

    /// The guest's program reads.
    fn guest_reads(&mut self, id: Id, count: usize) {
        let guest = self.guests.get_mut(&id).unwrap();
        let count = count.min(guest.buffer.len());
        guest.read.extend(guest.buffer.drain(..count));
        self.tell(id, op::CREDIT_UPDATE, &[]);
    }

    fn host_writes(&mut self, id: Id, count: usize) {
        let host = self.hosts.get_mut(&id).unwrap();
        let from = host.wrote.len();
        host.wrote.extend((from..from + count).map(|at| (at % 241) as u8));
        self.table.readable(id);
    }

    /// The client reads: so the socket takes bytes.
    fn host_reads(&mut self, id: Id, count: usize) {
        let waits = self.table.outgoing(id);
        let count = count.min(waits.len());
        self.hosts.get_mut(&id).unwrap().read.extend_from_slice(&waits[..count]);
        self.table.flushed(id, count);
    }

    /// One packet goes to the guest; false: there was none.
    fn deliver(&mut self, room: usize) -> bool {
        let (id, packet) = match self.table.next() {
            None => return false,
            Some(Turn::Packet(packet)) => {
                let owner = self.guests.iter().find(|(_, g)| g.ports.1 == packet.src_port);
                (*owner.unwrap().0, packet)
            }
            Some(Turn::Data(id, most)) => {
                let host = self.hosts.get_mut(&id).unwrap();
                let count = most.min(room).min(host.wrote.len() - host.taken);
                if count == 0 {
                    self.table.unreadable(id);
                    return true;
                }
                let data = &host.wrote[host.taken..host.taken + count];
                let guest = self.guests.get_mut(&id).unwrap();
                guest.buffer.extend_from_slice(data);
                host.taken += count;
                assert!(guest.buffer.len() <= GUEST_BUFFER, "its credit is exceeded");
                (id, self.table.sent(id, count).unwrap())
            }
        };
        let guest = self.guests.get_mut(&id).unwrap();
        (guest.host_alloc, guest.host_forwarded) = (packet.buf_alloc, packet.fwd_cnt);
        match packet.op {
            op::CREDIT_REQUEST => drop(self.tell(id, op::CREDIT_UPDATE, &[])),
            op::SHUTDOWN => guest.ended = true,
            op::RST => panic!("a guest that keeps the rules is refused"),
            _ => {}
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = self.deliver(1000);
            for id in self.ids() {
                busy |= !self.table.outgoing(id).is_empty();
                busy |= !self.guests[&id].buffer.is_empty();
                self.host_reads(id, usize::MAX);
                if !self.guests[&id].buffer.is_empty() {
                    self.guest_reads(id, usize::MAX);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("it never settles");
    }
}

proptest! {
    /// Two sides that keep the rules, in any order of events, counters at any point: bytes arrive
    /// whole and in order, both ways, and no credit is ever exceeded.
    #[test]
    fn bytes_arrive_whole_and_in_order(
        begin in prop_oneof![Just(0), Just(u32::MAX - 1000), any::<u32>()],
        steps in prop::collection::vec((0usize..3, 0u8..5, 0usize..20_000), 1..120),
    ) {
        let mut world = World::new(3, begin);
        let ids = world.ids();
        for (which, what, count) in steps {
            let id = ids[which];
            match what {
                0 => world.guest_writes(id, count),
                1 => world.guest_reads(id, count),
                2 => world.host_writes(id, count),
                3 => world.host_reads(id, count),
                _ => { world.deliver(count.max(1)); }
            }
        }
        world.settle();
        for id in &ids {
            prop_assert_eq!(world.table.host_shuts(*id, NO_SEND, Instant::now()), None);
        }
        world.settle();
        for id in ids {
            let (guest, host) = (&world.guests[&id], &world.hosts[&id]);
            prop_assert!(guest.read == host.wrote, "host to guest");
            prop_assert!(host.read == guest.wrote, "guest to host");
            prop_assert!(guest.ended);
            // After a pause a guest may always write again.
            let sent = guest.begin.wrapping_add(guest.wrote.len() as u32);
            let free = guest.host_alloc - sent.wrapping_sub(guest.host_forwarded);
            prop_assert!(free >= LARGE_WINDOW / 2, "{free}");
        }
    }
}
