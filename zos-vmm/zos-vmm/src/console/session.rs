//! Who sits at a console: whoever connected to its socket last, or the developer's terminal.
//!
//! ```text
//!  listener ── accept ──▶ client (one at a time; a new one takes over)
//!                          ├─ reads ──▶ typed ──▶ the guest, as it has room
//!                          └─ writes ◀─ wire ◀── output since it connected
//! ```
//!
//! | A client may try | What happens |
//! |---|---|
//! | read nothing | it loses output, told in a line; the guest goes on |
//! | type more than the guest reads | it isn't read from until the guest has |
//! | say nothing more, and listen | it listens on |

use super::{Port, Wire};
use crate::virtio::{Activation, Backend, Broken, Share, Waits};
use rustix::event::PollFlags;
use rustix::io::{Errno, read, write};
use rustix::net::{SocketFlags, accept_with};
use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes typed that are held.
const TYPED: usize = 4 << 10;
/// Bytes on their way to the client.
const GOING: usize = 4 << 10;
/// A port that took nothing is asked again after this time, should it not ring.
const AGAIN: Duration = Duration::from_millis(100);
/// How often output is written before others get their turn.
const TURNS: usize = 16;

const BELL: u32 = 0;
const LISTENER: u32 = 1;
const CLIENT: u32 = 2;

/// The interactive side of a console.
#[derive(Debug)]
pub struct Session {
    wire: Arc<Wire>,
    seat: Seat,
    typed: Vec<u8>,
    /// What was taken from the wire and not written yet.
    going: Vec<u8>,
    /// What of the client is waited for now, besides its end.
    asked: Cell<PollFlags>,
}

#[derive(Debug)]
enum Seat {
    Socket {
        listener: OwnedFd,
        client: Option<Client>,
    },
    /// Input only: output goes to stdout as the console's sink.
    Terminal {
        input: OwnedFd,
        ended: bool,
    },
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// It types nothing more.
    ended: bool,
}

impl Session {
    /// Over a listening Unix socket that doesn't block.
    #[must_use]
    pub fn socket(wire: Arc<Wire>, listener: OwnedFd) -> Self {
        Self::new(wire, Seat::Socket { listener, client: None })
    }

    /// A developer's terminal that types; what the guest writes goes there without us.
    #[must_use]
    pub fn terminal(wire: Arc<Wire>, input: OwnedFd) -> Self {
        Self::new(wire, Seat::Terminal { input, ended: false })
    }

    fn new(wire: Arc<Wire>, seat: Seat) -> Self {
        let asked = Cell::new(PollFlags::empty());
        Self { wire, seat, typed: Vec::new(), going: Vec::new(), asked }
    }

    /// The way to it, for the console's output.
    #[must_use]
    pub fn wire(&self) -> Arc<Wire> {
        self.wire.clone()
    }

    /// Bytes for the guest.
    #[must_use]
    pub fn typed(&self) -> &[u8] {
        &self.typed
    }

    /// The guest took so many of them.
    pub fn taken(&mut self, count: usize) {
        self.typed.drain(..count.min(self.typed.len()));
    }

    /// What to wait for.
    pub fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        waits.add(BELL, self.wire.bell().as_fd(), PollFlags::IN);
        let flags = self.client_flags();
        self.asked.set(flags);
        match &self.seat {
            Seat::Socket { listener, client } => {
                waits.add(LISTENER, listener.as_fd(), PollFlags::IN);
                if let Some(client) = client {
                    waits.add(CLIENT, client.socket.as_fd(), flags);
                }
            }
            // A terminal has no end that would have to be heard of.
            Seat::Terminal { input, .. } if !flags.is_empty() => {
                waits.add(CLIENT, input.as_fd(), flags);
            }
            Seat::Terminal { .. } => {}
        }
    }

    fn client_flags(&self) -> PollFlags {
        let ended = match &self.seat {
            Seat::Socket { client, .. } => client.as_ref().is_none_or(|client| client.ended),
            Seat::Terminal { ended, .. } => *ended,
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.typed.is_empty() && !ended);
        flags.set(PollFlags::OUT, !self.going.is_empty() || self.wire.has_output());
        flags
    }

    /// One of the descriptors is ready: the one of this token.
    pub fn ready(&mut self, token: u32) {
        match token {
            BELL => {
                self.wire.bell().clear();
                self.write();
            }
            LISTENER => self.accept(),
            CLIENT => {
                if self.asked.get().is_empty() {
                    // It was waited for its end alone.
                    self.leave();
                }
                // Less than was asked for, when the bell has done a part of it.
                let flags = self.client_flags();
                if flags.contains(PollFlags::IN) {
                    self.read();
                }
                if flags.contains(PollFlags::OUT) {
                    self.write();
                }
            }
            _ => {}
        }
    }

    /// Writes what waits, as far as the client takes it now.
    pub fn flush(&mut self) {
        self.write();
    }

    fn accept(&mut self) {
        let Seat::Socket { listener, client } = &mut self.seat else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(socket) = accept_with(listener, flags) {
            *client = Some(Client { socket, ended: false });
            self.going.clear();
            self.wire.watch(true);
        }
    }

    fn leave(&mut self) {
        match &mut self.seat {
            Seat::Socket { client, .. } => *client = None,
            Seat::Terminal { ended, .. } => *ended = true,
        }
        self.going.clear();
        self.wire.watch(false);
    }

    fn read(&mut self) {
        let (input, ended) = match &mut self.seat {
            Seat::Socket { client: Some(client), .. } => (&client.socket, &mut client.ended),
            Seat::Socket { client: None, .. } => return,
            Seat::Terminal { input, ended } => (&*input, ended),
        };
        let mut bytes = [0; TYPED];
        match read(input, &mut bytes) {
            Ok(0) => *ended = true,
            Ok(count) => self.typed.extend_from_slice(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.leave(),
        }
    }

    fn write(&mut self) {
        let Seat::Socket { client: Some(client), .. } = &self.seat else { return };
        for _ in 0..TURNS {
            if self.going.is_empty() {
                let mut bytes = [0; GOING];
                let count = self.wire.take(&mut bytes);
                self.going.extend_from_slice(&bytes[..count]);
            }
            if self.going.is_empty() {
                return;
            }
            match write(&client.socket, &self.going) {
                Ok(count) => drop(self.going.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.leave(),
            }
        }
    }
}

/// The session of a port that has no thread of its own, such as the serial port's: a desk without
/// queues.
pub struct PortSeat {
    session: Session,
    port: Arc<dyn Port>,
    again: Option<Instant>,
}

impl PortSeat {
    /// For the worker's `attend`.
    #[must_use]
    pub fn new(session: Session, port: Arc<dyn Port>) -> Self {
        Self { session, port, again: None }
    }

    fn feed(&mut self) {
        self.again = None;
        if self.session.typed().is_empty() {
            return;
        }
        // First, so that a guest which reads in between isn't missed.
        self.session.wire.wait_for_room(true);
        let taken = self.port.input(self.session.typed());
        self.session.taken(taken);
        if self.session.typed().is_empty() {
            self.session.wire.wait_for_room(false);
        } else {
            self.again = Some(Instant::now() + AGAIN);
        }
    }
}

impl Backend for PortSeat {
    fn activate(&mut self, _: Activation) -> Result<(), Broken> {
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<Share, Broken> {
        Ok(Share::Done)
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        self.session.outside(waits);
    }

    fn ready(&mut self, token: u32) -> Result<(), Broken> {
        self.session.ready(token);
        self.feed();
        Ok(())
    }

    fn alarm(&self) -> Option<Instant> {
        self.again
    }

    fn rang(&mut self) -> Result<(), Broken> {
        self.feed();
        Ok(())
    }

    /// The thread ends: the guest's last words go out.
    fn reset(&mut self) {
        self.session.flush();
    }
}

#[cfg(test)]
mod tests;
