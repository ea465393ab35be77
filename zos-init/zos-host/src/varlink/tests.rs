use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn messages_look_as_varlink_wants() {
    let call = Call::new("org.zos.Init.ListUnits", Map::new());
    assert_eq!(encode(&call).unwrap(), b"{\"method\":\"org.zos.Init.ListUnits\"}\0");
    assert_eq!(call.split(), Some(("org.zos.Init", "ListUnits")));
    let reply = Reply::error("org.zos.Error.Busy", "later");
    let text = String::from_utf8(encode(&reply).unwrap()).unwrap();
    assert_eq!(text, "{\"error\":\"org.zos.Error.Busy\",\"parameters\":{\"detail\":\"later\"}}\0");
    // Other implementations write nulls and leave members out.
    let check = |text: &str, more| {
        let call: Call = serde_json::from_str(text).unwrap();
        assert!(call.more == more && !call.oneway && call.parameters.is_empty(), "{text}");
    };
    check(r#"{"method":"a.B","more":true}"#, true);
    check(r#"{"method":"a.B","parameters":null,"more":null,"oneway":null}"#, false);
    for wrong in [r#"{"method":"a.B","parameters":[]}"#, r#"{"method":7}"#, "{}", "[]", "7", ""] {
        assert!(serde_json::from_str::<Call>(wrong).is_err(), "{wrong}");
    }
    let reply: Reply = serde_json::from_str(r#"{"parameters":null}"#).unwrap();
    assert_eq!(reply, Reply::ok(Map::new()));
}

#[test]
fn a_message_over_the_limit_breaks_the_stream() {
    let mut decoder = Decoder::new(4);
    decoder.push(b"abcd\0ab").unwrap();
    assert_eq!(decoder.message().unwrap(), b"abcd");
    assert_eq!(decoder.push(b"cde"), Err(TooLong { limit: 4 }));
}

#[test]
fn descriptors_travel_with_their_call() {
    let (a, b) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (Connection::new(a.into()), Connection::new(b.into()));
    let mut files = Vec::new();
    for text in ["one", "two"] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        files.push(OwnedFd::from(file));
    }
    a.send(&Call::new("x.First", Map::new()), Vec::new()).unwrap();
    a.send(&Call::new("x.Second", Map::new()), files).unwrap();
    let mut methods = Vec::new();
    while methods.len() < 2 {
        assert_eq!(b.receive().unwrap(), Received::Some);
        while methods.len() < 2 {
            let Some(message) = b.message() else { break };
            methods.push(serde_json::from_slice::<Call>(&message).unwrap().method);
        }
    }
    assert_eq!(methods, ["x.First", "x.Second"]);
    assert!(b.take_fds(3).is_none());
    let fds = b.take_fds(2).unwrap();
    let texts: Vec<String> = fds
        .into_iter()
        .map(|fd| std::io::read_to_string(std::fs::File::from(fd)).unwrap())
        .collect();
    assert_eq!(texts, ["one", "two"]);
    drop(a);
    assert_eq!(b.receive().unwrap(), Received::Closed);
}

#[test]
fn descriptors_that_no_call_takes_are_closed() {
    let (a, b) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (Connection::new(a.into()), Connection::new(b.into()));
    let (mut reader, writer) = std::io::pipe().unwrap();
    a.send(&Call::new("x.First", Map::new()), vec![writer.into()]).unwrap();
    b.receive().unwrap();
    assert!(b.message().is_some());
    assert!(b.message().is_none());
    // Both copies are closed, so the pipe is at its end.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_peer_without_leave_may_pass_no_descriptor() {
    let (a, b) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (Connection::new(a.into()), Connection::bounded(b.into(), 100, 0));
    a.send(&Call::new("x.First", Map::new()), Vec::new()).unwrap();
    assert_eq!(b.receive().unwrap(), Received::Some);
    assert!(b.message().is_some());
    let file = tempfile::tempfile().unwrap();
    a.send(&Call::new("x.Second", Map::new()), vec![file.into()]).unwrap();
    assert!(b.receive().is_err());
}

#[test]
fn a_client_calls_and_watches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Connection::new(listener.accept().unwrap().0.into());
        assert_eq!(peer.peer().unwrap().pid, std::process::id().cast_signed());
        while peer.receive().unwrap() == Received::Some {
            while let Some(message) = peer.message() {
                let call: Call = serde_json::from_slice(&message).unwrap();
                let number = |n| object(&json!({ "n": n }));
                match call.split().unwrap().1 {
                    "Double" => {
                        let n = call.parameters["n"].as_u64().unwrap();
                        peer.send(&Reply::ok(number(n * 2)), Vec::new()).unwrap();
                    }
                    "Count" => {
                        assert!(call.more);
                        peer.send(&Reply::continuing(number(1)), Vec::new()).unwrap();
                        peer.send(&Reply::ok(number(2)), Vec::new()).unwrap();
                    }
                    _ => {
                        let reply = Reply::error("org.varlink.service.MethodNotFound", "no");
                        peer.send(&reply, Vec::new()).unwrap();
                    }
                }
            }
        }
    });
    let mut client = Client::connect(&path, Duration::from_secs(5)).unwrap();
    let reply: Value = client.call("x.Double", &json!({"n": 21}), Vec::new()).unwrap();
    assert_eq!(reply, json!({"n": 42}));
    let mut replies = client.watch("x.Count", &json!({})).unwrap();
    assert_eq!(replies.reply::<Value>().unwrap(), Some(json!({"n": 1})));
    assert_eq!(replies.reply::<Value>().unwrap(), Some(json!({"n": 2})));
    assert_eq!(replies.reply::<Value>().unwrap(), None);
    let refused = client.call::<_, Value>("x.No", &json!({}), Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "org.varlink.service.MethodNotFound: no");
    drop(client);
    server.join().unwrap();
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        messages in proptest::collection::vec("[^\\x00]{0,40}", 0..6),
        cut in 1_usize..50,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(message.as_bytes());
            stream.push(0);
        }
        let mut decoder = Decoder::new(1000);
        let mut got = Vec::new();
        for chunk in stream.chunks(cut) {
            decoder.push(chunk).unwrap();
            while let Some(message) = decoder.message() {
                got.push(String::from_utf8(message).unwrap());
            }
        }
        prop_assert_eq!(got, messages);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn nothing_over_the_limit_is_held(bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in 0_usize..40) {
        let mut decoder = Decoder::new(limit);
        for chunk in bytes.chunks(7) {
            if decoder.push(chunk).is_err() {
                break;
            }
            while let Some(message) = decoder.message() {
                prop_assert!(message.len() <= limit);
            }
        }
    }
}
