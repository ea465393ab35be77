//! The host's side: a listening Unix socket, and a socket for each connection.
//!
//! ```text
//!  accept ─▶ Line: "CONNECT <port>\n" within 10 s ─▶ Connection ─▶ closed
//!            64 at most                              "OK <host port>\n" once the guest took it
//! ```
//!
//! All wait in one epoll, edge-triggered: a socket that nobody can serve now wakes nobody again.
//!
//! | A client may try | What happens |
//! |---|---|
//! | say nothing, or something else | closed, after 10 s at the latest |
//! | say it with the first bytes behind it | those go to the guest |
//! | connect again and again | 64 lines and 1024 connections; then the rest wait in the backlog |

use super::table::Id;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, read, write};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect,
    shutdown, socket_with,
};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most clients that haven't said yet what they want.
const MOST_LINES: usize = 64;
/// Longest line: `CONNECT 4294967295`.
const LONGEST: usize = 18;
const PATIENCE: Duration = Duration::from_secs(10);
/// Events of one look.
const EVENTS: usize = 64;
const LISTENER: u64 = 0;

/// The sockets.
#[derive(Debug)]
pub(super) struct Host {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// A guest's own connections go to this path, `_` and the port.
    calls: Option<PathBuf>,
    streams: HashMap<u64, Stream>,
    tokens: HashMap<Id, u64>,
    /// Clients that haven't said yet what they want, in the order in which they came.
    lines: BTreeMap<u64, Line>,
    /// Somebody may wait in the backlog.
    knocking: bool,
    next: u64,
}

#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    /// Once the guest was asked.
    id: Option<Id>,
    /// The client is gone; its bytes may still be there.
    hung_up: bool,
    /// Its end was read.
    ended: bool,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    until: Instant,
}

/// What happened to the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A client wants this port of the guest; `Host::belongs` or `Host::dismiss` follows.
    Wants { token: u64, port: u32 },
    /// There may be bytes.
    Readable(Id),
    /// There is room for bytes.
    Writable(Id),
    /// Nothing more comes or goes.
    Gone(Id),
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// None for now.
    Nothing,
    /// The client sends no more.
    End,
    /// It takes no more either.
    Gone,
}

impl Host {
    /// Over a listening socket that doesn't block.
    ///
    /// # Errors
    /// No descriptor left.
    pub(super) fn new(listener: OwnedFd, calls: Option<PathBuf>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), flags)?;
        Ok(Self {
            epoll,
            listener,
            calls,
            streams: HashMap::new(),
            tokens: HashMap::new(),
            lines: BTreeMap::new(),
            knocking: true,
            next: LISTENER + 1,
        })
    }

    /// Whether the guest may connect to the host.
    pub(super) fn calls_out(&self) -> bool {
        self.calls.is_some()
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Closes everything but the listening socket.
    pub(super) fn reset(&mut self) {
        self.streams.clear();
        self.tokens.clear();
        self.lines.clear();
        self.knocking = true;
    }

    /// Looks what happened; `room`: connections that may still be made.
    pub(super) fn look(&mut self, room: usize, now: Instant, happened: &mut Vec<Happening>) {
        let mut events = Vec::with_capacity(EVENTS);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted: the epoll is ready still.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&at_once));
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == LISTENER {
                self.knocking = true;
            } else {
                self.note(token, flags, happened);
            }
        }
        self.accept(room, now, happened);
    }

    fn note(&mut self, token: u64, flags: epoll::EventFlags, happened: &mut Vec<Happening>) {
        let Some(stream) = self.streams.get_mut(&token) else { return };
        stream.hung_up |= flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let Some(id) = stream.id else { return self.read_line(token, happened) };
        if stream.hung_up && stream.ended {
            happened.push(Happening::Gone(id));
        } else if flags != epoll::EventFlags::OUT {
            happened.push(Happening::Readable(id));
        }
        if flags.contains(epoll::EventFlags::OUT) {
            happened.push(Happening::Writable(id));
        }
    }

    fn accept(&mut self, room: usize, now: Instant, happened: &mut Vec<Happening>) {
        while self.may_accept(room) {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    let Some(token) = self.add(socket, None) else { continue };
                    let line = Line { bytes: Vec::with_capacity(LONGEST), until: now + PATIENCE };
                    self.lines.insert(token, line);
                    self.read_line(token, happened);
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Nobody, or no descriptor left: the next who knocks or leaves brings it up again.
                Err(_) => self.knocking = false,
            }
        }
    }

    /// Whether somebody may wait in the backlog who could be let in.
    pub(super) fn may_accept(&self, room: usize) -> bool {
        self.knocking && self.lines.len() < MOST_LINES.min(room)
    }

    fn add(&mut self, socket: OwnedFd, id: Option<Id>) -> Option<u64> {
        let token = self.next;
        self.next += 1;
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(token), flags).ok()?;
        self.streams.insert(token, Stream { socket, id, hung_up: false, ended: false });
        if let Some(id) = id {
            self.tokens.insert(id, token);
        }
        Some(token)
    }

    /// Reads a client's line byte by byte: what is behind it isn't ours.
    fn read_line(&mut self, token: u64, happened: &mut Vec<Happening>) {
        let Some(stream) = self.streams.get(&token) else { return };
        let Some(line) = self.lines.get_mut(&token) else { return };
        let mut byte = [0];
        let port = loop {
            match read(&stream.socket, &mut byte) {
                Ok(1) if byte == *b"\n" => break port(&line.bytes),
                Ok(1) if line.bytes.len() < LONGEST => line.bytes.push(byte[0]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Too long, gone, broken.
                _ => break None,
            }
        };
        self.lines.remove(&token);
        match port {
            Some(port) => happened.push(Happening::Wants { token, port }),
            None => self.dismiss(token),
        }
    }

    /// The client at this token is that of a connection.
    pub(super) fn belongs(&mut self, token: u64, id: Id) {
        if let Some(stream) = self.streams.get_mut(&token) {
            stream.id = Some(id);
            self.tokens.insert(id, token);
        }
    }

    /// There is no connection for the client at this token.
    pub(super) fn dismiss(&mut self, token: u64) {
        self.knocking |= self.streams.remove(&token).is_some();
    }

    /// When the next client has said nothing for too long.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.lines.first_key_value().map(|(_, line)| line.until)
    }

    /// Lets go of them.
    pub(super) fn rang(&mut self, now: Instant) {
        while let Some(line) = self.lines.first_entry()
            && line.get().until <= now
        {
            let token = *line.key();
            line.remove();
            self.dismiss(token);
        }
    }

    /// Connects to the host's socket for a port.
    ///
    /// # Errors
    /// Nobody listens there, or the guest may not.
    pub(super) fn call(&mut self, id: Id, port: u32) -> io::Result<()> {
        let path = self.calls.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        let mut path = path.clone().into_os_string();
        path.push(format!("_{port}"));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        self.add(socket, Some(id)).map(drop).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Reads for the guest.
    pub(super) fn read(&mut self, id: Id, bytes: &mut [u8]) -> Read {
        let token = self.tokens.get(&id).copied();
        let Some(stream) = token.and_then(|token| self.streams.get_mut(&token)) else {
            return Read::Gone;
        };
        loop {
            return match read(&stream.socket, &mut *bytes) {
                Ok(0) => {
                    stream.ended = true;
                    if stream.hung_up { Read::Gone } else { Read::End }
                }
                Ok(count) => Read::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Read::Nothing,
                Err(_) => Read::Gone,
            };
        }
    }

    /// Writes the guest's bytes; tells how many, 0 when there is no room now.
    ///
    /// # Errors
    /// The client takes no more.
    pub(super) fn write(&self, id: Id, bytes: &[u8]) -> Result<usize, Errno> {
        let token = self.tokens.get(&id).ok_or(Errno::BADF)?;
        let stream = self.streams.get(token).ok_or(Errno::BADF)?;
        loop {
            match write(&stream.socket, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Tells the client that the guest reads no more, or writes no more.
    pub(super) fn shut(&self, id: Id, reading: bool, writing: bool) {
        let token = self.tokens.get(&id);
        let Some(stream) = token.and_then(|token| self.streams.get(token)) else { return };
        for (wanted, how) in [(reading, Shutdown::Read), (writing, Shutdown::Write)] {
            if wanted {
                // One that is gone knows.
                let _ = shutdown(&stream.socket, how);
            }
        }
    }

    /// Closes a connection's socket.
    pub(super) fn close(&mut self, id: Id) {
        if let Some(token) = self.tokens.remove(&id) {
            self.dismiss(token);
        }
    }
}

/// The port of a client's line.
fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_port() {
        for (line, expected) in [
            (&b"CONNECT 1024"[..], Some(1024)),
            (b"CONNECT 0", Some(0)),
            (b"CONNECT 4294967295", Some(u32::MAX)),
            (b"CONNECT 4294967296", None),
            (b"CONNECT +1", None),
            (b"CONNECT ", None),
            (b"CONNECT", None),
            (b"connect 1", None),
            (b"CONNECT 1 ", None),
            (b"", None),
        ] {
            assert_eq!(port(line), expected, "{line:?}");
        }
    }
}
