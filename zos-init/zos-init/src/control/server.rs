//! Connections: taken, bounded, read, answered.
//!
//! ```text
//!           room for its user?         a whole call            answer
//!  accept ─────────────────────▶ Idle ──────────────▶ service ────────▶ Idle        (unsent: read no further)
//!              no: its quietest                          │ a stream
//!              idle one goes                             ▼
//!                                                    Following ── news, when the last reply is out
//! ```
//! A peer costs one call that isn't whole and one reply that isn't out, whatever it does: while a reply waits, nothing
//! more of it is read and no news is made. A call during a stream could never be answered, so it ends the connection.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use zos_host::poll::{Happened, Interest, Poll};
use zos_host::varlink::{Call, Connection, Received, Reply};
use zos_host::{Context, Result, user};

use super::stream::Stream;
use crate::run::Token;

/// Connections at once.
const MAX_CONNECTIONS: usize = 256;
/// Of them for root,
const ROOTS: usize = 64;
/// for each daemon,
const DAEMONS: usize = 16;
/// and for all users together that PID 1 doesn't know.
const STRANGERS: usize = 8;
/// Bytes of a call.
const MAX_CALL: usize = 16 << 10;
/// Connections that are taken before others get their turn.
const TURN: usize = 64;

/// Who answers.
pub(crate) trait Service {
    /// Where connections are waited for.
    fn poll(&self) -> &Poll;
    /// How many descriptors a user may send.
    fn descriptors(&self, uid: u32) -> usize;
    /// Answers a call of a user; `fds` takes descriptors that came with it.
    fn call(
        &mut self,
        uid: u32,
        call: &Call,
        fds: &mut dyn FnMut(usize) -> Option<Vec<OwnedFd>>,
    ) -> Answer;
    /// What a stream hasn't told yet, if anything.
    fn news(&self, stream: &mut Stream) -> Option<Reply>;
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One reply.
    Reply(Reply),
    /// Replies as there is news.
    Stream(Stream),
}

/// The listening socket and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    peers: HashMap<u32, Peer>,
    next: u32,
    /// Counts whatever peers do: the order in which they were last heard of.
    turn: u64,
}

#[derive(Debug)]
struct Peer {
    connection: Connection,
    uid: u32,
    stream: Option<Stream>,
    interest: Interest,
    heard: u64,
}

impl Server {
    /// Listens for anyone: callers are told apart by their credentials.
    pub(crate) fn open(poll: &Poll, path: &Path) -> Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).during("bind", path.display())?;
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(path, open).during("open up", path.display())?;
        listener.set_nonblocking(true).during("set up", path.display())?;
        poll.add(&listener, Token::Listener.number(), Interest::READ)?;
        Ok(Self { listener, peers: HashMap::new(), next: 0, turn: 0 })
    }

    /// Takes new connections.
    pub(crate) fn accept(&mut self, service: &impl Service) {
        for _ in 0..TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // No descriptor is left: who waits has one at the next turn.
                Err(_) => {
                    self.drop_quietest(|_| true);
                    return;
                }
            };
            let Ok(()) = stream.set_nonblocking(true) else { continue };
            let Ok(who) = zos_host::varlink::peer_credentials(&stream) else { continue };
            if !self.make_room(who.uid) {
                continue;
            }
            let fds = service.descriptors(who.uid);
            let connection = Connection::bounded(stream.into(), MAX_CALL, fds);
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let token = Token::Connection(number).number();
            let interest = Interest::READ;
            if service.poll().add(connection.as_fd(), token, interest).is_ok() {
                self.turn += 1;
                let heard = self.turn;
                let peer = Peer { connection, uid: who.uid, stream: None, interest, heard };
                self.peers.insert(number, peer);
            }
        }
    }

    /// Reads, answers and sends what a connection has for us; a broken one is dropped.
    pub(crate) fn serve(&mut self, number: u32, ready: Happened, service: &mut impl Service) {
        self.turn += 1;
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.heard = self.turn;
        if !(peer.serve(ready, service) && peer.attend(number, service)) {
            self.peers.remove(&number);
        }
    }

    /// Tells those who follow something what is new of it.
    pub(crate) fn tell(&mut self, service: &impl Service) {
        self.peers.retain(|number, peer| {
            peer.stream.is_none() || (peer.follow(service) && peer.attend(*number, service))
        });
    }

    /// Whether another connection of this user may be taken. Where there are too many, the one goes that was quiet
    /// the longest, unless it follows something or waits for a reply.
    fn make_room(&mut self, uid: u32) -> bool {
        let (class, room) = class(uid);
        let of_class = |peer: &Peer| self::class(peer.uid).0 == class;
        let count = self.peers.values().filter(|peer| of_class(peer)).count();
        (count < room && self.peers.len() < MAX_CONNECTIONS) || self.drop_quietest(of_class)
    }

    /// Drops the one of these peers that was quiet the longest, if one of them is idle.
    fn drop_quietest(&mut self, these: impl Fn(&Peer) -> bool) -> bool {
        let idle = self.peers.iter().filter(|(_, peer)| peer.is_idle() && these(peer));
        let quietest = idle.min_by_key(|(_, peer)| peer.heard).map(|(number, _)| *number);
        quietest.is_some_and(|number| self.peers.remove(&number).is_some())
    }
}

/// Users that share one allowance, and how many connections it is.
fn class(uid: u32) -> (Option<u32>, usize) {
    match user::name(uid) {
        Some(_) if uid == 0 => (Some(uid), ROOTS),
        Some(_) => (Some(uid), DAEMONS),
        None => (None, STRANGERS),
    }
}

impl Peer {
    /// False: the connection is over.
    fn serve(&mut self, ready: Happened, service: &mut impl Service) -> bool {
        if ready.writable && self.connection.flush().is_err() {
            return false;
        }
        if ready.readable && self.connection.unsent() == 0 {
            match self.connection.receive() {
                Ok(Received::Some | Received::Nothing) => {}
                Ok(Received::Closed) | Err(_) => return false,
            }
        }
        while self.connection.unsent() == 0 {
            let Some(message) = self.connection.message() else { break };
            // What isn't a call can't be answered, and one during a stream never will be.
            let Ok(call) = serde_json::from_slice::<Call>(&message) else { return false };
            if self.stream.is_some() || !self.answer(&call, service) {
                return false;
            }
        }
        self.follow(service)
    }

    fn answer(&mut self, call: &Call, service: &mut impl Service) -> bool {
        let fds = &mut |count| self.connection.take_fds(count);
        match service.call(self.uid, call, fds) {
            _ if call.oneway => true,
            Answer::Reply(reply) => self.connection.send(&reply, Vec::new()).is_ok(),
            Answer::Stream(stream) => {
                self.stream = Some(stream);
                true
            }
        }
    }

    /// Sends what its stream has to tell, as long as the peer reads it.
    fn follow(&mut self, service: &impl Service) -> bool {
        while self.connection.unsent() == 0 {
            let Some(stream) = &mut self.stream else { return true };
            let Some(reply) = service.news(stream) else { return true };
            if !reply.continues {
                self.stream = None;
            }
            if self.connection.send(&reply, Vec::new()).is_err() {
                return false;
            }
        }
        true
    }

    /// Waits for what the peer is to do next: to read what it was sent, else to say something.
    fn attend(&mut self, number: u32, service: &impl Service) -> bool {
        let write = self.connection.unsent() > 0;
        let interest = Interest { read: !write, write };
        if interest == self.interest {
            return true;
        }
        self.interest = interest;
        let token = Token::Connection(number).number();
        service.poll().change(self.connection.as_fd(), token, interest).is_ok()
    }

    fn is_idle(&self) -> bool {
        self.stream.is_none() && self.connection.unsent() == 0
    }
}

#[cfg(test)]
mod tests;
