//! The thread that serves clients, and the main thread's end of it.

use super::connection::Connection;
use super::message::{Refusal, Reply, Request};
use super::routes;
use crate::event::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a listening socket that can't accept is left alone, such as without descriptors.
const DEAF: Duration = Duration::from_millis(100);
/// How long the last answers may take when the VMM ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
const STACK: usize = 256 << 10;

/// How much clients may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; each may hold a request of 4 MiB.
    pub connections: usize,
    /// For a request from its first byte to its last, and for a client to take its answer.
    pub busy: Duration,
    /// For a client to say something.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 8, busy: Duration::from_secs(10), idle: Duration::from_mins(10) }
    }
}

/// Which connection a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The main thread's end: requests come, replies go. Dropped, the server says its last words and
/// ends.
#[derive(Debug)]
pub struct Calls {
    requests: Receiver<(Ticket, Request)>,
    replies: Option<Sender<(Ticket, Reply)>>,
    wake: Arc<Event>,
    server: Arc<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Calls {
    /// Becomes readable when a request comes.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.wake
    }

    /// The next request.
    #[must_use]
    pub fn take(&self) -> Option<(Ticket, Request)> {
        self.wake.clear();
        let taken = self.requests.try_recv().ok();
        if taken.is_some() {
            // There may be more.
            self.wake.signal();
        }
        taken
    }

    /// Answers it.
    pub fn answer(&self, ticket: Ticket, reply: Reply) {
        if let Some(replies) = &self.replies {
            let _ = replies.send((ticket, reply));
        }
        self.server.signal();
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.replies = None;
        self.server.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The server's thread.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Serves a listening socket from a thread of its own, which runs `enter` (its jail) first.
    ///
    /// # Errors
    /// No thread or descriptor left, or no socket.
    pub fn spawn(
        listener: OwnedFd,
        limits: Limits,
        enter: impl FnOnce() + Send + 'static,
    ) -> io::Result<Calls> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let (requests, inbox) = channel();
        let (replies, answers) = channel();
        let (wake, server) = (Arc::new(Event::new()?), Arc::new(Event::new()?));
        let main = wake.clone();
        let hall = Hall {
            listener,
            limits,
            connections: BTreeMap::new(),
            next: 0,
            deaf_until: None,
            requests,
            main,
            answers,
            wake: server.clone(),
        };
        let thread = std::thread::Builder::new().name("api".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || {
            enter();
            hall.run();
        })?;
        let (replies, thread) = (Some(replies), Some(thread));
        Ok(Calls { requests: inbox, replies, wake, server, thread })
    }
}

/// Where all clients are.
struct Hall {
    listener: OwnedFd,
    limits: Limits,
    connections: BTreeMap<Ticket, Connection>,
    next: u64,
    deaf_until: Option<Instant>,
    requests: Sender<(Ticket, Request)>,
    main: Arc<Event>,
    answers: Receiver<(Ticket, Reply)>,
    wake: Arc<Event>,
}

impl Hall {
    fn run(mut self) {
        while self.turn() {}
        // The VMM ends: who got an answer shall be able to read it.
        let until = Instant::now() + LAST_WORDS;
        self.connections.retain(|_, connection| !connection.is_written());
        while !self.connections.is_empty() && Instant::now() < until {
            let mut fds: Vec<_> = self.connections.values().map(watch).collect();
            let _ = poll(&mut fds, timespec(Some(until)).as_ref());
            let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            let now = Instant::now();
            for (connection, ready) in self.connections.values_mut().zip(ready) {
                connection.work(ready, now);
            }
            self.connections.retain(|_, gone| !gone.is_gone() && !gone.is_written());
        }
    }

    /// Waits, and does what there is to do; false: the VMM ends.
    fn turn(&mut self) -> bool {
        let (called, visited, ready) = self.wait();
        let now = Instant::now();
        let goes_on = !called || self.reply(now);
        for (ticket, ready) in ready {
            if let Some(connection) = self.connections.get_mut(&ticket) {
                connection.work(ready, now);
            }
        }
        if visited {
            self.admit(now);
        }
        let Limits { busy, idle, .. } = self.limits;
        for (ticket, connection) in &mut self.connections {
            if connection.deadline(busy, idle).is_some_and(|at| at <= now) {
                connection.expire(now);
            }
            // Refused at once, a request makes room for the one behind it.
            while let Some((head, body)) = connection.next(now) {
                match routes::route(&head, &body) {
                    Ok(request) => {
                        if self.requests.send((*ticket, request)).is_err() {
                            let refusal = Refusal::new(503, "the VMM is ending");
                            connection.answer(&Err(refusal), now);
                        }
                        self.main.signal();
                    }
                    Err(refusal) => connection.answer(&Err(refusal), now),
                }
            }
        }
        self.connections.retain(|_, connection| !connection.is_gone());
        goes_on
    }

    /// Tells whether main called, whether somebody is at the door, and what each client is ready for.
    fn wait(&mut self) -> (bool, bool, Vec<(Ticket, PollFlags)>) {
        let now = Instant::now();
        self.deaf_until = self.deaf_until.filter(|until| *until > now);
        let listens = if self.deaf_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut fds =
            vec![PollFd::new(&self.wake, PollFlags::IN), PollFd::new(&self.listener, listens)];
        fds.extend(self.connections.values().map(watch));
        let Limits { busy, idle, .. } = self.limits;
        let deadlines = self.connections.values().filter_map(|c| c.deadline(busy, idle));
        let until = deadlines.chain(self.deaf_until).min();
        if poll(&mut fds, timespec(until).as_ref()).is_err() {
            return (false, false, Vec::new());
        }
        let mut flags = fds.iter().map(PollFd::revents);
        let called = flags.next().is_some_and(|flags| !flags.is_empty());
        let visited = flags.next().is_some_and(|flags| flags.contains(PollFlags::IN));
        (called, visited, self.connections.keys().copied().zip(flags).collect())
    }

    /// Hands main's replies on; false: there will be none any more.
    fn reply(&mut self, now: Instant) -> bool {
        self.wake.clear();
        loop {
            match self.answers.try_recv() {
                Ok((ticket, reply)) => {
                    // A client that is gone hears nothing.
                    let client = self.connections.get_mut(&ticket);
                    if let Some(connection) = client.filter(|client| client.is_waiting()) {
                        connection.answer(&reply, now);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Lets in who is at the door.
    fn admit(&mut self, now: Instant) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..self.limits.connections {
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    if self.connections.len() >= self.limits.connections && !self.make_room() {
                        // All wait for the machine: this one comes again.
                        continue;
                    }
                    self.connections.insert(Ticket(self.next), Connection::new(socket, now));
                    self.next += 1;
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    self.deaf_until = Some(now + DEAF);
                    return;
                }
            }
        }
    }

    /// Drops the client that was silent for longest and waits for nothing.
    fn make_room(&mut self) -> bool {
        let silent = self.connections.iter().filter(|(_, client)| !client.is_waiting());
        let silent = silent.min_by_key(|(_, client)| client.heard()).map(|(ticket, _)| *ticket);
        silent.and_then(|ticket| self.connections.remove(&ticket)).is_some()
    }
}

fn watch(connection: &Connection) -> PollFd<'_> {
    PollFd::from_borrowed_fd(connection.fd(), connection.wants())
}

fn timespec(until: Option<Instant>) -> Option<Timespec> {
    let pause = until?.saturating_duration_since(Instant::now());
    // Rounded up, so that the moment has come when the wait is over.
    Timespec::try_from(pause + Duration::from_millis(1)).ok()
}

#[cfg(test)]
mod tests;
