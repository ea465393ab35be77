#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod model;

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

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
