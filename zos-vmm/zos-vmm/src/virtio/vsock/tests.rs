#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::packet::{HOST, STREAM, op};
use super::*;
use crate::jail::Kind;
use crate::virtio::driver::{BUFFERS, Driver};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use vm_memory::{Bytes, GuestAddress};

const CID: u64 = 3;
const TRANSMIT: usize = 1;
const ROOM: u32 = 4096;

/// A guest with a driver of its own, and a folder of sockets.
struct Bench {
    driver: Driver,
    folder: tempfile::TempDir,
    /// Packets that were read, and the index of the next.
    seen: usize,
    /// Buffers for packets, and which are offered in which order.
    rooms: Vec<(u16, u64)>,
}

impl Bench {
    fn new(calls_out: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let calls = calls_out.then_some(path);
        let vsock = Vsock::new(CID, VsockEnds { listener: listener.into(), calls }).unwrap();
        let kind = if calls_out { Kind::Calling } else { Kind::Shared };
        let mut driver = Driver::confined(vsock.profile(), Box::new(vsock), kind);
        driver.start(0);
        let mut bench = Self { driver, folder, seen: 0, rooms: Vec::new() };
        for slot in 0..8 {
            bench.offer_room(slot);
        }
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    /// Offers a buffer as Linux does: header and data in one.
    fn offer_room(&mut self, slot: u64) {
        let at = BUFFERS + slot * u64::from(ROOM);
        let head = self.driver.queues[RECEIVE].offer(&[(at, ROOM, true)]);
        self.rooms.push((head, slot));
        self.driver.kick(0);
    }

    /// The next packet for the guest; its buffer is offered again.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let seen = self.seen;
        self.driver.wait(|driver| driver.queues[RECEIVE].used().len() > seen);
        let (head, length) = self.driver.queues[RECEIVE].used()[seen];
        self.seen += 1;
        let found = self.rooms.iter().position(|(h, _)| u32::from(*h) == head).unwrap();
        let (_, slot) = self.rooms.remove(found);
        let at = BUFFERS + slot * u64::from(ROOM);
        let mut bytes = vec![0; length as usize];
        self.driver.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        let header = Header::parse(bytes[..HEADER_BYTES].try_into().unwrap());
        assert_eq!(header.len as usize, bytes.len() - HEADER_BYTES);
        self.offer_room(slot);
        (header, bytes[HEADER_BYTES..].to_vec())
    }

    /// The next packet of this operation.
    fn expect(&mut self, op: u16) -> (Header, Vec<u8>) {
        loop {
            let (header, data) = self.receive();
            if header.op == op {
                return (header, data);
            }
            assert_eq!(header.op, op::CREDIT_UPDATE, "{header:?}");
        }
    }

    /// Sends a packet, header and data in buffers of their own.
    fn send(&mut self, header: &Header, data: &[u8]) {
        let at = BUFFERS + 0x10_0000;
        let memory = &self.driver.memory;
        memory.write_slice(&header.bytes(), GuestAddress(at)).unwrap();
        memory.write_slice(data, GuestAddress(at + 0x1000)).unwrap();
        let mut buffers = vec![(at, HEADER_BYTES as u32, false)];
        if !data.is_empty() {
            buffers.push((at + 0x1000, data.len() as u32, false));
        }
        self.send_buffers(&buffers);
    }

    fn send_buffers(&mut self, buffers: &[crate::virtio::driver::Buffer]) {
        let before = self.driver.queues[TRANSMIT].used().len();
        self.driver.queues[TRANSMIT].offer(buffers);
        self.driver.kick(1);
        self.driver.wait(|driver| driver.queues[TRANSMIT].used().len() > before);
    }

    fn answer(&mut self, to: &Header, op: u16, data: &[u8]) {
        self.send(&from_guest(to.dst_port, to.src_port, op, data.len()), data);
    }

    /// A client with an open connection to a port of the guest.
    fn connect(&mut self, port: u32) -> (UnixStream, Header) {
        let mut client = UnixStream::connect(self.path()).unwrap();
        writeln!(client, "CONNECT {port}").unwrap();
        let (request, _) = self.expect(op::REQUEST);
        assert_eq!((request.src_cid, request.dst_cid, request.dst_port), (HOST, CID, port));
        self.answer(&request, op::RESPONSE, &[]);
        let mut line = String::new();
        BufReader::new(OneByte(&client)).read_line(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", request.src_port));
        (client, request)
    }
}

/// Reads no further than it is asked to.
struct OneByte<'a>(&'a UnixStream);

impl Read for OneByte<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(&mut bytes[..1])
    }
}

fn from_guest(src_port: u32, dst_port: u32, op: u16, len: usize) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST,
        src_port,
        dst_port,
        len: len as u32,
        kind: STREAM,
        op,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

#[test]
fn a_client_and_the_guest_speak() {
    let mut bench = Bench::new(false);
    let (mut client, request) = bench.connect(1024);
    client.write_all(b"hello, guest").unwrap();
    assert_eq!(bench.expect(op::RW).1, b"hello, guest");
    bench.answer(&request, op::RW, b"hello, host");
    let mut bytes = [0; 11];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello, host");
    // The client ends its half; the guest answers, and ends its own.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.expect(op::SHUTDOWN).0.flags, NO_SEND);
    bench.answer(&request, op::RW, b"bye");
    let mut shut = from_guest(request.dst_port, request.src_port, op::SHUTDOWN, 0);
    shut.flags = NO_SEND | NO_RECEIVE;
    bench.send(&shut, &[]);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    bench.expect(op::RST);
}

#[test]
fn many_bytes_go_through_small_buffers() {
    let mut bench = Bench::new(false);
    let (mut client, request) = bench.connect(1);
    let bytes: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    let (sent, mut echo) = (bytes.clone(), client.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let (mut got, mut back) = (Vec::new(), Vec::new());
    while got.len() < bytes.len() {
        let (_, data) = bench.expect(op::RW);
        // The guest echoes; the client reads it at once, so its credit is never short.
        bench.answer(&request, op::RW, &data);
        let mut part = vec![0; data.len()];
        echo.read_exact(&mut part).unwrap();
        got.extend_from_slice(&data);
        back.extend_from_slice(&part);
    }
    writer.join().unwrap();
    assert!(got == bytes && back == bytes);
}

#[test]
fn a_guests_own_connection() {
    let mut bench = Bench::new(true);
    let path = bench.path();
    let listener = UnixListener::bind(format!("{}_7", path.display())).unwrap();
    bench.send(&from_guest(99, 7, op::REQUEST, 0), &[]);
    let (response, _) = bench.expect(op::RESPONSE);
    assert_eq!((response.src_port, response.dst_port), (7, 99));
    let (mut host, _) = listener.accept().unwrap();
    bench.send(&from_guest(99, 7, op::RW, 4), b"ping");
    let mut bytes = [0; 4];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    host.write_all(b"pong").unwrap();
    assert_eq!(bench.expect(op::RW).1, b"pong");
    drop(host);
    assert_eq!(bench.expect(op::SHUTDOWN).0.flags, NO_SEND | NO_RECEIVE);
    // Nobody listens on another port.
    bench.send(&from_guest(99, 8, op::REQUEST, 0), &[]);
    assert_eq!(bench.expect(op::RST).0.dst_port, 99);
}

#[test]
fn in_the_jail_a_guests_own_connection_is_refused() {
    let mut bench = Bench::new(false);
    let path = bench.path();
    let _listener = UnixListener::bind(format!("{}_7", path.display())).unwrap();
    bench.send(&from_guest(99, 7, op::REQUEST, 0), &[]);
    let (rst, _) = bench.expect(op::RST);
    assert_eq!((rst.src_cid, rst.src_port, rst.dst_port), (HOST, 7, 99));
}

#[test]
fn a_client_that_is_refused_hears_of_it() {
    let mut bench = Bench::new(false);
    let mut client = UnixStream::connect(bench.path()).unwrap();
    client.write_all(b"CONNECT 5\n").unwrap();
    let (request, _) = bench.expect(op::REQUEST);
    bench.answer(&request, op::RST, &[]);
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
    for nonsense in ["GET / HTTP/1.1\r\n", "CONNECT -1\n", "CONNECT 99999999999999999999\n"] {
        let mut client = UnixStream::connect(bench.path()).unwrap();
        client.write_all(nonsense.as_bytes()).unwrap();
        // Closed; unread bytes make it a reset.
        assert!(matches!(client.read(&mut [0; 9]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_client_that_never_reads_holds_one_window() {
    let mut bench = Bench::new(false);
    let (mut client, request) = bench.connect(1);
    let (mut silent, other) = bench.connect(2);
    // The first client doesn't read: the guest's credit ends, and what it sends beyond is refused.
    let data = vec![b'x'; 0x8000];
    let mut sent = 0;
    let mut forwarded = 0u32;
    let mut window = 64 << 10;
    // A guest that keeps the rules stops when its credit ends.
    while sent + data.len() <= forwarded as usize + window {
        bench.answer(&request, op::RW, &data);
        sent += data.len();
        bench.send(&from_guest(1, request.src_port, op::CREDIT_REQUEST, 0), &[]);
        let (told, _) = bench.expect(op::CREDIT_UPDATE);
        (forwarded, window) = (told.fwd_cnt, told.buf_alloc as usize);
    }
    assert!(sent >= window, "{sent}");
    // The other connection isn't held up.
    silent.write_all(b"still here").unwrap();
    let (packet, data_of_other) = bench.expect(op::RW);
    assert_eq!((packet.dst_port, &data_of_other[..]), (2, &b"still here"[..]));
    bench.answer(&other, op::RW, b"yes");
    let mut bytes = [0; 3];
    silent.read_exact(&mut bytes).unwrap();
    // The first client reads at last: all of it is there, and the guest hears of room.
    let mut all = vec![0; sent];
    client.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == b'x'));
    let (told, _) = bench.expect(op::CREDIT_UPDATE);
    assert!(told.fwd_cnt > forwarded);
}

#[test]
fn a_packet_longer_than_its_buffers() {
    let mut bench = Bench::new(false);
    let (mut client, request) = bench.connect(1);
    let memory = bench.driver.memory.clone();
    let at = BUFFERS + 0x10_0000;
    let end = crate::virtio::driver::MEMORY as u64;
    let put = |header: &Header| memory.write_slice(&header.bytes(), GuestAddress(at)).unwrap();
    // Not even a header, one outside of memory, one to be written: nobody is meant.
    put(&from_guest(1, request.src_port, op::RW, 0));
    for buffers in [
        &[(at, 43, false)][..],
        &[(end - 8, 44, false)],
        &[(u64::MAX - 8, 44, false)],
        &[(at, 44, true)],
        &[(at, 44, false), (at, 44, true)],
        &[(at, 0, false)],
    ] {
        bench.send_buffers(buffers);
    }
    // In pieces it is a header like any other.
    memory.write_slice(b"whole", GuestAddress(at + 44)).unwrap();
    put(&from_guest(1, request.src_port, op::RW, 5));
    bench.send_buffers(&[(at, 10, false), (at + 10, 37, false), (at + 47, 2, false)]);
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"whole");
    // More than its buffers hold, by one and by far: that connection is over.
    for length in [6, 0x1_0001, usize::try_from(u32::MAX).unwrap()] {
        let (mut client, request) = bench.connect(1);
        put(&from_guest(1, request.src_port, op::RW, length));
        bench.send_buffers(&[(at, 49, false)]);
        assert_eq!(bench.expect(op::RST).0.src_port, request.src_port);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "nothing of it arrived");
    }
}

#[test]
fn a_guest_that_takes_no_answers_waits() {
    let mut bench = Bench::new(false);
    // It took eight answers' worth of buffers away and offers no more.
    let at = BUFFERS + 0x10_0000;
    let packet = from_guest(1, 2, op::RW, 0);
    bench.driver.memory.write_slice(&packet.bytes(), GuestAddress(at)).unwrap();
    for _ in 0..8 + 256 {
        bench.send_buffers(&[(at, 44, false)]);
    }
    let before = bench.driver.queues[TRANSMIT].used().len();
    bench.driver.queues[TRANSMIT].offer(&[(at, 44, false)]);
    bench.driver.kick(1);
    // Every answer that it takes now lets one more of its packets in.
    for _ in 0..8 + 256 + 1 {
        assert_eq!(bench.receive().0.op, op::RST);
    }
    bench.driver.wait(|driver| driver.queues[TRANSMIT].used().len() > before);
}

#[test]
fn a_reset_closes_every_connection() {
    let mut bench = Bench::new(false);
    let (mut client, _) = bench.connect(1);
    bench.driver.reset();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    // A client may come before the driver is back.
    let mut early = UnixStream::connect(bench.path()).unwrap();
    early.write_all(b"CONNECT 7\n").unwrap();
    bench.driver.start(0);
    (bench.seen, bench.rooms) = (0, Vec::new());
    for slot in 0..8 {
        bench.offer_room(slot);
    }
    assert_eq!(bench.expect(op::REQUEST).0.dst_port, 7);
}

#[test]
fn clients_that_say_nothing_dont_keep_others_out() {
    let mut bench = Bench::new(false);
    // More than may wait for their line: the rest waits in the backlog until one leaves.
    let mut silent: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(bench.path()).unwrap()).collect();
    let path = bench.path();
    let last = std::thread::spawn(move || {
        let mut client = UnixStream::connect(path).unwrap();
        client.write_all(b"CONNECT 9\n").unwrap();
        client
    });
    let client = last.join().unwrap();
    silent.clear();
    assert_eq!(bench.expect(op::REQUEST).0.dst_port, 9);
    drop(client);
}
