use super::super::{Console, Sink};
use super::*;
use crate::jail::{Kind, Seccomp};
use crate::virtio::Worker;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;

/// A UART of four bytes.
#[derive(Default)]
struct Small(Mutex<Vec<u8>>);

impl Port for Small {
    fn input(&self, bytes: &[u8]) -> usize {
        let mut fifo = self.0.lock().unwrap();
        let count = bytes.len().min(4 - fifo.len());
        fifo.extend_from_slice(&bytes[..count]);
        count
    }
}

struct Bench {
    console: Console,
    port: Arc<Small>,
    path: std::path::PathBuf,
    _worker: Worker,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let wire = Arc::new(Wire::new().unwrap());
        let session = Session::socket(wire.clone(), listener.into());
        let port = Arc::new(Small::default());
        let mut worker = Worker::spawn("test", || Seccomp::On.enter(Kind::Shared)).unwrap();
        worker.attend(Box::new(PortSeat::new(session, port.clone())));
        let console = Console::new(Sink::Nowhere, None, Some(wire));
        Self { console, port, path, _worker: worker, _folder: folder }
    }

    /// Connects, and returns once it is heard.
    fn connect(&mut self) -> UnixStream {
        connect(&self.path, |hello| self.console.write_all(hello).unwrap())
    }

    /// What the guest reads: `count` bytes.
    fn guest_reads(&self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            all.append(&mut self.port.0.lock().unwrap());
            self.console.read_by_guest();
            std::thread::yield_now();
        }
        all
    }
}

fn connect(path: &Path, mut write: impl FnMut(&[u8])) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_nonblocking(true).unwrap();
    loop {
        write(b"~");
        match stream.read(&mut [0; 64]) {
            Ok(count) if count > 0 => break,
            _ => std::thread::yield_now(),
        }
    }
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Reads up to a mark, without the marks of `connect`.
fn until(stream: &mut UnixStream, mark: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(mark.as_bytes()) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap().trim_start_matches('~').to_owned()
}

#[test]
fn output_and_input_go_through() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    bench.console.write_all(b"login: ").unwrap();
    assert_eq!(until(&mut stream, ": "), "login: ");
    // More than the FIFO holds arrives whole, as the guest reads.
    stream.write_all(b"root, and a long password").unwrap();
    assert_eq!(bench.guest_reads(25), b"root, and a long password");
}

#[test]
fn a_new_client_takes_over() {
    let mut bench = Bench::new();
    let mut first = bench.connect();
    let mut second = bench.connect();
    bench.console.write_all(b"for the second\n").unwrap();
    assert_eq!(until(&mut second, "\n"), "for the second\n");
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == b'~'));
    drop(second);
    let mut third = bench.connect();
    bench.console.write_all(b"again\n").unwrap();
    assert_eq!(until(&mut third, "\n"), "again\n");
}

#[test]
fn who_types_nothing_more_still_listens() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    stream.write_all(b"ls").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.guest_reads(2), b"ls");
    bench.console.write_all(b"file\n").unwrap();
    assert_eq!(until(&mut stream, "\n"), "file\n");
}

#[test]
fn a_reader_that_never_reads_doesnt_stop_the_guest() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    // Far more than the socket and the wire hold: every write returns.
    let flood = vec![b'x'; 1 << 20];
    for _ in 0..16 {
        bench.console.write_all(&flood).unwrap();
    }
    // The reader catches up: what it didn't get is told.
    let mut text = String::new();
    while account(&text) < 16 << 20 {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(text.len() < 4 << 20, "{}", text.len());
    bench.console.write_all(b"\nafter\n").unwrap();
    assert!(until(&mut stream, "after\n").ends_with("after\n"));
}

/// Bytes of a flood that a reader got, and those that it was told of.
fn account(text: &str) -> usize {
    let lines = text.split("[zos-vmm: ").skip(1).filter_map(|line| line.split_once(" bytes lost"));
    let told: usize = lines.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    told + text.bytes().filter(|byte| *byte == b'x').count()
}

#[test]
fn a_guest_that_never_reads_holds_one_buffer() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    stream.set_nonblocking(true).unwrap();
    // The socket fills, since nobody takes what is typed.
    let mut typed = 0;
    let mut refused = 0;
    while refused < 1000 {
        match stream.write(&[b'k'; 4096]) {
            Ok(count) => (typed, refused) = (typed + count, 0),
            Err(_) => {
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
    let all = bench.guest_reads(typed);
    assert_eq!(all.len(), typed);
}
