//! `org.zos.Init` on `/run/zos/init.sock`: varlink without a runtime.
//!
//! ```text
//!  accept ─▶ Peer { connection, uid, watching } ─ message ─▶ access (may this uid?) ─▶ methods ─▶ reply
//!                                          units changed ─▶ those who watch: the newest snapshot, when
//!                                                           they have read the last
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use zos_host::poll::{Interest, Poll};
use zos_host::varlink::{Call, Connection, Received, Reply};
use zos_host::{Context, Result};

use crate::run::{Node, Readiness, Token};

mod access;
mod methods;

/// The socket.
const SOCKET: &str = "/run/zos/init.sock";
/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 256;
/// Replies that a peer may leave unread, bytes; more, and it is dropped.
const MAX_UNREAD: usize = 4 << 20;

/// The listening socket and its connections.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    peers: HashMap<u32, Peer>,
    next: u32,
}

#[derive(Debug)]
struct Peer {
    connection: Connection,
    uid: u32,
    /// It called `WatchUnits`.
    watching: bool,
    /// It has not been told of the newest change.
    behind: bool,
}

impl Control {
    /// Listens.
    pub(crate) fn open(poll: &Poll) -> Result<Self> {
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).during("bind", SOCKET)?;
        fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o666)).during("open up", SOCKET)?;
        listener.set_nonblocking(true).during("set up", SOCKET)?;
        poll.add(&listener, Token::Listener.number(), Interest::READ)?;
        Ok(Self { listener, peers: HashMap::new(), next: 0 })
    }

    /// Takes new connections.
    pub(crate) fn accept(&mut self, poll: &Poll) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.peers.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let connection = Connection::new(stream.into());
            let Ok(credentials) = connection.peer() else { continue };
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let token = Token::Connection(number).number();
            if poll.add(connection.as_fd(), token, Interest::READ).is_ok() {
                let peer =
                    Peer { connection, uid: credentials.uid, watching: false, behind: false };
                self.peers.insert(number, peer);
            }
        }
    }

    /// Reads, answers and sends what a connection has for us; a broken one is dropped.
    pub(crate) fn serve(&mut self, number: u32, ready: Readiness, node: &mut Node) {
        let Some(mut peer) = self.peers.remove(&number) else { return };
        let alive = peer.serve(ready, node) && peer.catch_up(node);
        if alive && peer.connection.unsent() <= MAX_UNREAD {
            let write = peer.connection.unsent() > 0;
            let interest = Interest { read: true, write };
            let token = Token::Connection(number).number();
            if node.poll().change(peer.connection.as_fd(), token, interest).is_ok() {
                self.peers.insert(number, peer);
            }
        }
    }

    /// Tells those who watch.
    pub(crate) fn units_changed(&mut self, node: &mut Node) {
        let watching = |(number, peer): (&u32, &mut Peer)| {
            peer.behind = peer.watching;
            peer.watching.then_some(*number)
        };
        let numbers: Vec<u32> = self.peers.iter_mut().filter_map(watching).collect();
        for number in numbers {
            let ready = Readiness { token: 0, readable: false, writable: true };
            self.serve(number, ready, node);
        }
    }
}

impl Peer {
    /// False: the connection is over.
    fn serve(&mut self, ready: Readiness, node: &mut Node) -> bool {
        if ready.writable && self.connection.flush().is_err() {
            return false;
        }
        if !ready.readable {
            return true;
        }
        match self.connection.receive() {
            Ok(Received::Some) => {}
            Ok(Received::Nothing) => return true,
            Ok(Received::Closed) | Err(_) => return false,
        }
        while let Some(message) = self.connection.message() {
            // What isn't a call can't be answered.
            let Ok(call) = serde_json::from_slice::<Call>(&message) else { return false };
            if !self.answer(&call, node) {
                return false;
            }
        }
        true
    }

    fn answer(&mut self, call: &Call, node: &mut Node) -> bool {
        let reply = if access::may(self.uid, &call.method) {
            let fds = &mut |count| self.connection.take_fds(count);
            methods::call(call, fds, node, self.uid)
        } else {
            let why = format!("uid {} may not call {}", self.uid, call.method);
            Reply::error("org.zos.Error.Denied", why)
        };
        self.watching |= reply.continues;
        call.oneway || self.connection.send(&reply, Vec::new()).is_ok()
    }

    /// Sends the newest snapshot once the last is out, so that a slow reader costs no memory.
    fn catch_up(&mut self, node: &Node) -> bool {
        if !self.behind || self.connection.unsent() > 0 {
            return true;
        }
        self.behind = false;
        self.connection.send(&Reply::continuing(methods::units(node)), Vec::new()).is_ok()
    }
}
