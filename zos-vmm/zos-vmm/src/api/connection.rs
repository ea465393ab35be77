//! One client: what came, what goes, and how long that may take.
//!
//! ```text
//!  Reading ── a whole request ──▶ Waiting ── answer ──▶ Reading │ Ending
//!     └─ refused, or not understood ──────────────────────────▶ Ending ── written ──▶ Lingering
//! ```
//!
//! One request at a time: those behind it wait in the buffer, and a client that sends more than fits
//! waits in the socket.

use super::http::{self, BODY_BYTES, CONTINUE, HEAD_BYTES, Head, Parsed};
use super::message::{Refusal, Reply};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;
/// How long an ending connection takes what is still on its way, so that the answer isn't lost.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    /// The request is with the machine.
    Waiting,
    /// The last answer is being written.
    Ending,
    /// It is written; what still comes is thrown away.
    Lingering,
    Gone,
}

/// A client's connection.
pub(super) struct Connection {
    socket: OwnedFd,
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    keep_alive: bool,
    /// Whether the client was told to send the body.
    told: bool,
    /// Since when its stage, or the writing, goes on.
    since: Instant,
    /// When anything last went through.
    heard: Instant,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Self {
        Self {
            socket,
            stage: Stage::Reading,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            keep_alive: true,
            told: false,
            since: now,
            heard: now,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to wait for; a hang-up is always told.
    pub(super) fn wants(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        let reads = self.stage == Stage::Lingering
            || self.stage == Stage::Reading && self.output.is_empty();
        flags.set(PollFlags::IN, reads);
        flags.set(PollFlags::OUT, !self.output.is_empty());
        flags
    }

    /// When it is too late: for a request that has begun and an answer that isn't taken, after
    /// `busy`; for a client that says nothing, after `idle`.
    pub(super) fn deadline(&self, busy: Duration, idle: Duration) -> Option<Instant> {
        match self.stage {
            Stage::Waiting => None,
            Stage::Lingering => Some(self.since + LINGER.min(busy)),
            Stage::Reading if self.output.is_empty() && self.input.is_empty() => {
                Some(self.since + idle)
            }
            Stage::Reading | Stage::Ending | Stage::Gone => Some(self.since + busy),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Whether everything for it was written.
    pub(super) fn is_written(&self) -> bool {
        self.output.is_empty()
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    pub(super) fn end(&mut self) {
        self.stage = Stage::Gone;
    }

    /// It took too long: a request half sent is told so, anything else just ends.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.stage == Stage::Reading && !self.input.is_empty() && self.output.is_empty() {
            self.refuse(Refusal::new(408, "the request took too long"), now);
        } else {
            self.end();
        }
    }

    /// Moves bytes, as far as they move.
    pub(super) fn work(&mut self, ready: PollFlags, now: Instant) {
        if ready.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return self.end();
        }
        if ready.contains(PollFlags::OUT) {
            self.write(now);
        }
        if ready.contains(PollFlags::IN) {
            self.read(now);
        } else if ready.contains(PollFlags::HUP) {
            self.end();
        }
    }

    fn read(&mut self, now: Instant) {
        let mut piece = [0; PIECE];
        match rustix::io::read(&self.socket, &mut piece) {
            Ok(0) => self.end(),
            Ok(_) if self.stage == Stage::Lingering => {}
            Ok(length) => {
                if self.input.is_empty() {
                    self.since = now;
                }
                self.heard = now;
                self.input.extend_from_slice(&piece[..length]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.end(),
        }
    }

    fn write(&mut self, now: Instant) {
        match rustix::io::write(&self.socket, &self.output[self.sent..]) {
            Ok(length) => {
                self.sent += length;
                self.heard = now;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.end(),
        }
        if self.sent < self.output.len() {
            return;
        }
        self.output = Vec::new();
        self.sent = 0;
        self.since = now;
        if self.stage == Stage::Ending {
            // The client may still be sending: it reads the answer only if we take the rest.
            self.stage = Stage::Lingering;
            if rustix::net::shutdown(&self.socket, Shutdown::Write).is_err() {
                self.end();
            }
        }
    }

    /// The next whole request, once the answer to the one before is written.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Head, Vec<u8>)> {
        if self.stage != Stage::Reading || !self.output.is_empty() || self.input.is_empty() {
            return None;
        }
        match http::parse(&self.input) {
            Ok(Parsed::Whole { head, body }) => {
                let text = self.input[body.clone()].to_vec();
                self.input.drain(..body.end);
                self.input.shrink_to(PIECE);
                self.stage = Stage::Waiting;
                self.keep_alive = head.keep_alive;
                self.told = false;
                self.since = now;
                Some((head, text))
            }
            Ok(Parsed::Partial { asks }) => {
                if asks && !std::mem::replace(&mut self.told, true) {
                    self.output.extend_from_slice(CONTINUE);
                }
                // Never: a request that is longer was refused by its head.
                if self.input.len() > HEAD_BYTES + BODY_BYTES {
                    self.end();
                }
                None
            }
            Err(refusal) => {
                self.refuse(refusal, now);
                None
            }
        }
    }

    /// The answer to the request at hand.
    pub(super) fn answer(&mut self, reply: &Reply, now: Instant) {
        self.stage = if self.keep_alive { Stage::Reading } else { Stage::Ending };
        self.put(reply, now);
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.keep_alive = false;
        self.stage = Stage::Ending;
        self.input = Vec::new();
        self.put(&Err(refusal), now);
    }

    fn put(&mut self, reply: &Reply, now: Instant) {
        self.output.extend(http::answer(reply, self.keep_alive));
        self.since = now;
        self.write(now);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closing alone says nothing while another process, forked meanwhile, holds a copy.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}
