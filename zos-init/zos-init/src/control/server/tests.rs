use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use zos_host::varlink::{CallError, Client, object};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers `x.Echo` with its parameters, `x.Big` with so many bytes; `x.Follow` counts up to `x.Count`'s `to`, with so
/// many bytes each; `x.Held` tells what all peers have cost at most.
struct Fake {
    poll: Poll,
    count: u64,
    most: usize,
    stop: bool,
}

impl Service for Fake {
    fn poll(&self) -> &Poll {
        &self.poll
    }

    fn descriptors(&self, _: u32) -> usize {
        0
    }

    fn call(
        &mut self,
        _: u32,
        call: &Call,
        _: &mut dyn FnMut(usize) -> Option<Vec<OwnedFd>>,
    ) -> Answer {
        let number = |name: &str| call.parameters.get(name).and_then(Value::as_u64).unwrap_or(0);
        let value = match call.method.as_str() {
            "x.Echo" => Value::Object(call.parameters.clone()),
            "x.Big" => json!({ "text": "x".repeat(usize::try_from(number("size")).unwrap()) }),
            "x.Count" => {
                self.count = number("to");
                json!({})
            }
            "x.Held" => json!({ "most": self.most }),
            "x.Follow" => return Answer::Stream(Stream::Units { seen: None }),
            "x.Stop" => {
                self.stop = true;
                json!({})
            }
            other => panic!("{other}"),
        };
        Answer::Reply(Reply::ok(object(&value)))
    }

    fn news(&self, stream: &mut Stream) -> Option<Reply> {
        let Stream::Units { seen } = stream else { return None };
        let next = seen.unwrap_or(0) + 1;
        if next > self.count {
            return None;
        }
        *seen = Some(next);
        Some(Reply::continuing(object(&json!({ "n": next, "text": "x".repeat(1000) }))))
    }
}

struct Running {
    path: PathBuf,
    _dir: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.sock");
        let mut fake = Fake { poll: Poll::new().unwrap(), count: 0, most: 0, stop: false };
        let mut server = Server::open(&fake.poll, &path).unwrap();
        let thread = std::thread::spawn(move || {
            while !fake.stop {
                for happened in fake.poll.wait().unwrap() {
                    match Token::of(happened.token) {
                        Some(Token::Listener) => server.accept(&fake),
                        Some(Token::Connection(number)) => {
                            server.serve(number, happened, &mut fake);
                        }
                        other => panic!("{other:?}"),
                    }
                    let unsent = |peer: &Peer| peer.connection.unsent();
                    fake.most = fake.most.max(server.peers.values().map(unsent).sum());
                }
                server.tell(&fake);
            }
        });
        Self { path, _dir: dir, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path, PATIENCE).unwrap()
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    }

    fn echoes(&self, client: &mut Client) {
        let value = json!({ "a": [1, null, "x"] });
        assert_eq!(call(client, "x.Echo", value.clone()), value);
    }

    /// Somebody new is answered.
    fn lives(&self) {
        self.echoes(&mut self.client());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        call(&mut self.client(), "x.Stop", json!({}));
        self.thread.take().unwrap().join().unwrap();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a literal at each call")]
fn call(client: &mut Client, method: &str, parameters: Value) -> Value {
    client.call(method, &parameters, Vec::new()).unwrap()
}

/// Whether the other side has closed, after what it may still have said.
fn is_closed(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn what_is_no_call_ends_the_connection_and_nothing_else() {
    let running = Running::start();
    let mut before = running.client();
    let garbage: [&[u8]; 7] = [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"{\"method\":7}\0",
        b"[]\0",
        b"\xff\xfe{\0",
        b"{\"method\":\"x.Echo\",\"parameters\":[]}\0",
        b"{\"method\":\"x.Echo\"}\0null\0",
    ];
    for bytes in garbage {
        let mut stream = running.raw();
        stream.write_all(bytes).unwrap();
        assert!(is_closed(&mut stream), "{}", String::from_utf8_lossy(bytes));
        running.echoes(&mut before);
    }
    // 10 MB that never become a message.
    let mut stream = running.raw();
    let spaces = vec![b' '; 65_536];
    let sent = (0..160).take_while(|_| stream.write_all(&spaces).is_ok()).count();
    assert!(sent < 10, "{sent} times 64 KiB were taken");
    running.lives();
    // Deep enough to be a bomb for a parser that recurses.
    let mut stream = running.raw();
    stream.write_all(&[vec![b'['; MAX_CALL - 1], vec![0]].concat()).unwrap();
    assert!(is_closed(&mut stream));
    running.lives();
}

#[test]
fn half_a_call_waits_for_its_other_half() {
    let running = Running::start();
    let mut stream = running.raw();
    stream.write_all(b"{\"method\":\"x.Ec").unwrap();
    running.lives();
    stream.write_all(b"ho\",\"oneway\":true}\0{\"method\":\"x.Echo\"}\0").unwrap();
    let mut reply = [0; 18];
    stream.read_exact(&mut reply).unwrap();
    // One reply: the first call wanted none.
    assert_eq!(&reply, b"{\"parameters\":{}}\0");
}

#[test]
fn who_never_reads_costs_one_reply() {
    const SIZE: usize = 1_000_000;
    let running = Running::start();
    let mut greedy = running.raw();
    let big = format!("{{\"method\":\"x.Big\",\"parameters\":{{\"size\":{SIZE}}}}}\0").repeat(50);
    let calls = (0..100).take_while(|_| greedy.write_all(big.as_bytes()).is_ok()).count();
    assert!(calls < 100, "5,000 calls were read from who doesn't read");
    running.lives();
    let most = call(&mut running.client(), "x.Held", json!({}))["most"].as_u64().unwrap();
    assert!(most < 2 * SIZE as u64, "{most}");
    // It gets each answer when it reads after all.
    let mut one = vec![0; "{\"parameters\":{\"text\":\"\"}}0".len() + SIZE];
    for _ in 0..3 {
        greedy.read_exact(&mut one).unwrap();
        assert!(one.starts_with(b"{\"parameters\":{\"text\":\"xx") && one.ends_with(b"x\"}}\0"));
    }
}

#[test]
fn a_stream_goes_as_fast_as_it_is_read_and_misses_nothing() {
    let running = Running::start();
    let mut hand = running.client();
    let mut client = running.client();
    let mut replies = client.watch("x.Follow", &json!({})).unwrap();
    let mut slow = running.raw();
    slow.write_all(b"{\"method\":\"x.Follow\",\"more\":true}\0").unwrap();
    for to in [1_u64, 2, 700, 5_000] {
        call(&mut hand, "x.Count", json!({ "to": to }));
    }
    for n in 1..=5_000 {
        assert_eq!(replies.reply::<Value>().unwrap().unwrap()["n"], n);
    }
    let most = call(&mut hand, "x.Held", json!({}))["most"].as_u64().unwrap();
    assert!(most < 10_000, "{most} bytes for one who doesn't read");
    let mut bytes = Vec::new();
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = slow.read_to_end(&mut bytes);
    assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 5_000);
    // Nothing can be asked of a stream that goes on.
    slow.write_all(b"{\"method\":\"x.Echo\"}\0").unwrap();
    assert!(is_closed(&mut slow));
    running.lives();
}

#[test]
fn a_thousand_connections_and_room_for_the_next() {
    let running = Running::start();
    let mut before = running.client();
    let mut follower = running.client();
    let mut replies = follower.watch("x.Follow", &json!({})).unwrap();
    call(&mut running.client(), "x.Count", json!({ "to": 1 }));
    assert_eq!(replies.reply::<Value>().unwrap().unwrap()["n"], 1);
    let many: Vec<UnixStream> = (0..1000)
        .map(|_| {
            let mut stream = running.raw();
            // Each is a half call; one that was closed meanwhile can't be written to.
            let _ = stream.write_all(b"{\"meth");
            stream
        })
        .collect();
    running.lives();
    // It was quiet the longest, so it went; who follows something stays.
    assert!(matches!(
        before.call::<_, Value>("x.Echo", &json!({}), Vec::new()),
        Err(CallError::Transport(_))
    ));
    call(&mut running.client(), "x.Count", json!({ "to": 2 }));
    assert_eq!(replies.reply::<Value>().unwrap().unwrap()["n"], 2);
    drop(many);
    running.lives();
}

#[test]
fn no_user_takes_the_room_of_another() {
    let daemons = user::NAMES.iter().filter(|(name, _)| *name != "root").count();
    assert!(ROOTS + daemons * DAEMONS + STRANGERS <= MAX_CONNECTIONS);

    let dir = tempfile::tempdir().unwrap();
    let poll = Poll::new().unwrap();
    let mut server = Server::open(&poll, &dir.path().join("s")).unwrap();
    let mut ends = Vec::new();
    let add = |server: &mut Server, uid: u32, following: bool, ends: &mut Vec<UnixStream>| {
        let room = server.make_room(uid);
        if room {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ends.push(theirs);
            let connection = Connection::new(ours.into());
            let stream = following.then_some(Stream::Units { seen: None });
            let heard = u64::from(server.next);
            let peer = Peer { connection, uid, stream, interest: Interest::READ, heard };
            server.peers.insert(server.next, peer);
            server.next += 1;
        }
        room
    };
    let count = |server: &Server, uid| server.peers.values().filter(|p| p.uid == uid).count();
    // One that follows things keeps what it has, and gets no more.
    let taken = (0..100).filter(|_| add(&mut server, 118, true, &mut ends)).count();
    assert_eq!(taken, DAEMONS);
    // Strangers share one allowance, and their own quietest go.
    for uid in 20_000..20_100 {
        assert!(add(&mut server, uid, false, &mut ends));
    }
    assert_eq!(server.peers.len(), DAEMONS + STRANGERS);
    assert_eq!((count(&server, 20_000), count(&server, 20_099)), (0, 1));
    for (uid, most) in [(0, ROOTS), (110, DAEMONS), (115, DAEMONS)] {
        for _ in 0..500 {
            assert!(add(&mut server, uid, false, &mut ends));
        }
        assert_eq!(count(&server, uid), most);
    }
    assert_eq!(count(&server, 118), DAEMONS);
}
