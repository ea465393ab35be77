//! Clients that behave, and those that don't, over real sockets.

use super::*;
use crate::api::http::{BODY_BYTES, HEAD_BYTES};
use crate::api::{Answer, Ping};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const PING: &[u8] = b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n";
const LAST: &[u8] = b"GET /api/v1/vmm.ping HTTP/1.1\r\nConnection: close\r\n\r\n";

/// A server, and a main thread that answers everything the same.
struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    main: Option<JoinHandle<()>>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let listener = UnixListener::bind(&path).unwrap();
        let calls = Server::spawn(listener.into(), limits, || {}).unwrap();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, asks) = (stop.clone(), asked.clone());
        let main = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let Some((ticket, request)) = calls.take() else {
                    std::thread::sleep(Duration::from_micros(100));
                    continue;
                };
                asks.fetch_add(1, Ordering::SeqCst);
                calls.answer(ticket, Ok(reply(&request)));
            }
        });
        Self { _folder: folder, path, stop, asked, main: Some(main) }
    }

    fn client(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// Somebody is served.
    fn serves(&self) {
        let text = said(self.client(), LAST);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("words"), "{text}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.main.take().unwrap().join().unwrap();
    }
}

fn reply(request: &Request) -> Answer {
    match request {
        Request::Ping => Answer::Ping(Ping {
            build_version: "words".into(),
            version: String::new(),
            pid: 1,
            features: Vec::new(),
        }),
        _ => Answer::Done,
    }
}

/// All that the server says until it ends the connection.
fn said(mut client: UnixStream, bytes: &[u8]) -> String {
    // It may have ended already.
    let _ = client.write_all(bytes);
    let mut text = String::new();
    let _ = client.read_to_string(&mut text);
    text
}

fn short() -> Limits {
    let (busy, idle) = (Duration::from_millis(80), Duration::from_millis(80));
    Limits { connections: 4, busy, idle }
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let world = World::new(Limits::default());
    let mut text = Vec::new();
    for _ in 0..50 {
        text.extend_from_slice(PING);
        text.extend_from_slice(b"PUT /api/v1/vm.fly HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        text.extend_from_slice(b"PUT /api/v1/vm.pause HTTP/1.1\r\n\r\n");
    }
    text.extend_from_slice(LAST);
    let text = said(world.client(), &text);
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]).collect();
    assert_eq!(statuses, [["200", "404", "204"].repeat(50), vec!["200"]].concat());
    assert_eq!(world.asked.load(Ordering::SeqCst), 101);
}

#[test]
fn a_request_byte_by_byte_is_one() {
    let world = World::new(Limits::default());
    let mut client = world.client();
    for byte in LAST {
        client.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(said(client, b"").contains("words"));
}

#[test]
fn who_asks_first_is_told_to_go_on() {
    let world = World::new(Limits::default());
    let mut client = world.client();
    let head = "PUT /api/v1/vm.resize HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\n";
    let body = r#"{"desired_balloon": 5}"#;
    write!(client, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    let mut told = [0; 25];
    client.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(said(client, body.as_bytes()).starts_with("HTTP/1.1 204"));
}

#[test]
fn a_body_may_have_four_mebibytes_and_no_more() {
    let world = World::new(Limits::default());
    for (bytes, status) in [(BODY_BYTES, "400"), (BODY_BYTES + 1, "413")] {
        let head = "PUT /api/v1/vm.create HTTP/1.1\r\nConnection: close\r\n";
        let mut text = format!("{head}Content-Length: {bytes}\r\n\r\n").into_bytes();
        text.resize(text.len() + bytes, b' ');
        let answer = said(world.client(), &text);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[test]
fn what_is_not_http_is_refused_and_others_are_served() {
    let world = World::new(Limits::default());
    for (text, status) in [
        (&b"\x16\x03\x01\x02\x00"[..], "400"),
        (b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501"),
        (b"PUT /a HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n", "413"),
        (b"DELETE /api/v1/vm.delete HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (&vec![b'a'; HEAD_BYTES + 1], "431"),
    ] {
        let answer = said(world.client(), text);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("Connection: close\r\n") && answer.ends_with("\"]"), "{answer}");
        world.serves();
    }
}

#[test]
fn a_client_that_dies_in_its_body_or_before_its_answer_harms_nobody() {
    let world = World::new(Limits::default());
    for text in [
        &b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{\"cpus"[..],
        b"PUT /api/v1/vm.cre",
        PING,
        &PING.repeat(200),
    ] {
        for _ in 0..20 {
            world.client().write_all(text).unwrap();
        }
        world.serves();
    }
}

#[test]
fn a_hundred_connections_of_garbage_keep_nobody_out() {
    let world = World::new(Limits::default());
    let mut held = Vec::new();
    for number in 0..100u8 {
        let mut client = world.client();
        // Some are complete nonsense, some never say more.
        let text: &[u8] = if number % 2 == 0 { &[number; 300] } else { b"GET /api" };
        let _ = client.write_all(text);
        held.push(client);
        if number % 10 == 0 {
            world.serves();
        }
    }
    world.serves();
}

#[test]
fn who_is_slow_or_silent_is_dropped() {
    let world = World::new(short());
    let half = said(world.client(), b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Le");
    assert!(half.starts_with("HTTP/1.1 408 "), "{half}");
    assert_eq!(said(world.client(), b""), "");
    // It says one thing, and then nothing.
    let text = said(world.client(), PING);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("keep-alive"), "{text}");
}

/// A client that asks and never reads gets no more than a socket holds, and holds up nobody.
#[test]
fn who_never_reads_is_served_no_further() {
    let world = World::new(Limits { connections: 4, ..Limits::default() });
    let mut greedy = world.client();
    greedy.set_nonblocking(true).unwrap();
    let many = PING.repeat(100);
    let mut sent = 0;
    for _ in 0..2000 {
        match greedy.write(&many) {
            Ok(bytes) => sent += bytes,
            Err(_) => std::thread::sleep(Duration::from_micros(100)),
        }
    }
    world.serves();
    let asked = world.asked.load(Ordering::SeqCst);
    assert!(asked < sent / PING.len(), "{asked} of {sent} bytes");
}

#[test]
fn silent_clients_make_room() {
    let world = World::new(Limits { connections: 4, ..Limits::default() });
    let mut held: Vec<UnixStream> = (0..12).map(|_| world.client()).collect();
    world.serves();
    // The newest are still there.
    let mut last = held.pop().unwrap();
    last.write_all(LAST).unwrap();
    assert!(said(last, b"").contains("words"));
}

#[test]
fn last_words_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api");
    let listener = UnixListener::bind(&path).unwrap();
    let calls = Server::spawn(listener.into(), Limits::default(), || {}).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"PUT /api/v1/vmm.shutdown HTTP/1.1\r\n\r\n").unwrap();
    let (ticket, request) = loop {
        if let Some(call) = calls.take() {
            break call;
        }
        std::thread::yield_now();
    };
    assert_eq!(request, Request::End);
    calls.answer(ticket, Ok(Answer::Done));
    drop(calls);
    assert!(said(client, b"").starts_with("HTTP/1.1 204 No Content\r\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever clients send, in whatever pieces: the next one is served.
    #[test]
    fn any_bytes_in_any_pieces(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                Just(PING.to_vec()),
                Just(b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 7\r\n\r\n".to_vec()),
                Just(b"Expect: 100-continue\r\n\r\n".to_vec()),
                Just(b"{}".to_vec()),
            ],
            0..8,
        ),
    ) {
        let world = World::new(Limits::default());
        let mut client = world.client();
        for piece in &pieces {
            let _ = client.write_all(piece);
        }
        world.serves();
    }
}
