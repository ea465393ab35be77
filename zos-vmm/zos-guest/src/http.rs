//! HTTP on TCP port 8080: what the guest sees, and whom it can reach.
//!
//! ```text
//!  GET /                    the report as JSON
//!  GET /reach?to=IP:PORT    tries a TCP connection for 3 s: connected | refused | timeout |
//!                           unreachable: a twin's network check
//!  GET /write?seconds=N     writes numbers to the disk for so long, see `writer`: a twin's disk check
//! ```
//!
//! One request a connection, at most 4 KiB, at most 16 connections at once.

use crate::report::Report;
use crate::writer::{LONGEST, Writer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(5);
const REACH_PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_REQUEST: usize = 4096;
const MOST_CONNECTIONS: usize = 16;
const NO_DISK: &str = "there is no writable disk with room of ours";

/// Starts to serve.
pub(crate) fn spawn(
    see: impl Fn() -> Report + Clone + Send + 'static,
    writer: Option<Writer>,
) -> io::Result<()> {
    thread::Builder::new().name("http".into()).spawn(move || {
        loop {
            match TcpListener::bind(("::", PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))
            {
                Ok(listener) => serve(&listener, &see, writer.as_ref()),
                Err(error) => println!("hello: can't listen on port {PORT}: {error}"),
            }
            thread::sleep(Duration::from_secs(1));
        }
    })?;
    Ok(())
}

fn serve(
    listener: &TcpListener,
    see: &(impl Fn() -> Report + Clone + Send + 'static),
    writer: Option<&Writer>,
) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (see, writer, counted) = (see.clone(), writer.cloned(), open.clone());
        let spawned = thread::Builder::new().name("request".into()).spawn(move || {
            // A client that went away is no matter.
            let _ = answer(stream, see, writer.as_ref());
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(
    mut stream: TcpStream,
    see: impl Fn() -> Report,
    writer: Option<&Writer>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let (status, body) = match route(&head) {
        Route::Report => ("200 OK", serde_json::to_string(&see()).unwrap_or_default()),
        Route::Reach(to) => {
            let result = reach(to);
            let body = serde_json::json!({ "to": to.to_string(), "result": result });
            ("200 OK", body.to_string())
        }
        Route::Write(time) => match writer {
            Some(writer) => {
                ("200 OK", serde_json::to_string(&writer.ask(time)).unwrap_or_default())
            }
            None => ("409 Conflict", serde_json::json!({ "error": NO_DISK }).to_string()),
        },
        Route::Wrong(status, why) => (status, serde_json::json!({ "error": why }).to_string()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads up to the empty line.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut piece = [0; 512];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        head.extend_from_slice(&piece[..count]);
        if count == 0 || head.len() > LONGEST_REQUEST {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map_err(|_| ErrorKind::InvalidData.into())
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Report,
    Reach(SocketAddr),
    Write(Duration),
    Wrong(&'static str, &'static str),
}

fn route(head: &str) -> Route {
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let (Some("GET"), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Route::Wrong("405 Method Not Allowed", "only GET is answered");
    };
    if !version.starts_with("HTTP/1.") {
        return Route::Wrong("505 HTTP Version Not Supported", "speak HTTP/1.1");
    }
    match target.split_once('?').unwrap_or((target, "")) {
        ("/", _) => Route::Report,
        ("/reach", query) => {
            let to = query.split('&').find_map(|pair| pair.strip_prefix("to="));
            // The one character that clients may escape in an address.
            let to = to.map(|to| to.replace("%3A", ":").replace("%3a", ":"));
            let to = to.and_then(|to| to.parse().ok());
            to.map_or(Route::Wrong("400 Bad Request", "write /reach?to=IP:PORT"), Route::Reach)
        }
        ("/write", query) => {
            let seconds = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
            let time = seconds.and_then(|text| text.parse().ok()).map(Duration::from_secs);
            let time = time.filter(|time| *time <= LONGEST);
            time.map_or(
                Route::Wrong("400 Bad Request", "write /write?seconds=0..600"),
                Route::Write,
            )
        }
        _ => Route::Wrong("404 Not Found", "there are /, /reach?to=IP:PORT and /write?seconds=N"),
    }
}

fn reach(to: SocketAddr) -> &'static str {
    match TcpStream::connect_timeout(&to, REACH_PATIENCE) {
        Ok(_) => "connected",
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "refused",
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
            _ => "unreachable",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn routes() {
        let to = |text: &str| Route::Reach(text.parse().unwrap());
        let status = |head: &str| match route(head) {
            Route::Wrong(status, _) => status[..3].to_owned(),
            right => panic!("{right:?}"),
        };
        assert_eq!(route("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), Route::Report);
        assert_eq!(route("GET /?x=1 HTTP/1.0\r\n\r\n"), Route::Report);
        assert_eq!(route("GET /reach?to=10.0.0.1:80 HTTP/1.1\r\n"), to("10.0.0.1:80"));
        assert_eq!(route("GET /reach?a=b&to=10.0.0.1%3A80 HTTP/1.1\r\n"), to("10.0.0.1:80"));
        assert_eq!(route("GET /reach?to=[fe80::1]:80 HTTP/1.1\r\n"), to("[fe80::1]:80"));
        let write = route("GET /write?seconds=60 HTTP/1.1\r\n");
        assert_eq!(write, Route::Write(Duration::from_secs(60)));
        for (head, expected) in [
            ("GET /write HTTP/1.1\r\n", "400"),
            ("GET /write?seconds=601 HTTP/1.1\r\n", "400"),
            ("GET /write?seconds=-1 HTTP/1.1\r\n", "400"),
            ("POST / HTTP/1.1\r\n", "405"),
            ("GET /", "405"),
            ("", "405"),
            ("GET / HTTP/2\r\n", "505"),
            ("GET /reach HTTP/1.1\r\n", "400"),
            ("GET /reach?to=example.org:80 HTTP/1.1\r\n", "400"),
            ("GET /etc/passwd HTTP/1.1\r\n", "404"),
        ] {
            assert_eq!(status(head), expected, "{head}");
        }
    }

    #[test]
    fn a_head_has_an_end() {
        assert!(read_head(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).is_ok());
        assert!(read_head(&mut &b"GET / HTTP/1.1\r\n"[..]).is_err());
        assert!(read_head(&mut io::repeat(b'a')).is_err());
    }

    #[test]
    fn reaching_tells_connected_from_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(reach(address), "connected");
        drop(listener);
        assert_eq!(reach(address), "refused");
    }

    proptest! {
        #[test]
        fn any_head(head in any::<String>()) {
            route(&head);
        }
    }
}
