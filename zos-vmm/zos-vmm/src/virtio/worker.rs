//! The thread of a device.
//!
//! ```text
//!  parked ── Start(activation) ──▶ running: poll(control, kicks, outside) ── stop ──▶ parked
//!    └── Quit ──▶ gone                └─ broken ring ──▶ needs reset: waits for stop alone
//! ```
//!
//! Threads are made before the guest runs, so that no thread has to make one later, and none may.

use super::{Activation, Backend, Broken, Share};
use crate::event::Event;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

enum Message {
    Start(Activation),
    Quit,
}

/// Our side of a device's thread.
#[derive(Debug)]
pub struct Worker {
    messages: Sender<Message>,
    parked: Receiver<()>,
    stop: Arc<Event>,
    thread: Option<JoinHandle<()>>,
    running: bool,
}

/// Why a worker can't be had.
#[derive(Debug, thiserror::Error)]
#[error("start the thread of device {name}")]
pub struct WorkerError {
    /// The device.
    pub name: String,
    /// Cause.
    pub source: io::Error,
}

impl Worker {
    /// Makes the thread; it runs `enter` (its jail) first, then waits.
    ///
    /// # Errors
    /// No thread or descriptor left.
    pub fn spawn(
        name: &str,
        backend: Box<dyn Backend>,
        kicks: Vec<Arc<Event>>,
        enter: impl FnOnce() + Send + 'static,
    ) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError { name: name.to_owned(), source };
        let stop = Arc::new(Event::new().map_err(failed)?);
        let (messages, inbox) = channel();
        let (ack, parked) = sync_channel(1);
        let seat = Seat { backend, kicks, stop: stop.clone(), inbox, ack };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                enter();
                seat.run();
            })
            .map_err(failed)?;
        Ok(Self { messages, parked, stop, thread: Some(thread), running: false })
    }

    /// Hands the queues over.
    pub fn start(&mut self, activation: Activation) {
        self.stop();
        self.running = self.messages.send(Message::Start(activation)).is_ok();
    }

    /// Takes the queues away: when this returns, the thread touches no guest memory. It waits for
    /// the request at hand.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.running) {
            self.stop.signal();
            // An error means that the thread is gone, which is as good.
            let _ = self.parked.recv();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        let _ = self.messages.send(Message::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Seat {
    backend: Box<dyn Backend>,
    kicks: Vec<Arc<Event>>,
    stop: Arc<Event>,
    inbox: Receiver<Message>,
    ack: SyncSender<()>,
}

impl Seat {
    fn run(mut self) {
        while let Ok(Message::Start(activation)) = self.inbox.recv() {
            let interrupt = activation.interrupt.clone();
            if self.work(activation).is_err() {
                interrupt.need_reset();
                self.wait_for_stop();
            }
            self.backend.reset();
            drop(interrupt);
            if self.ack.send(()).is_err() {
                return;
            }
        }
    }

    fn work(&mut self, activation: Activation) -> Result<(), Broken> {
        self.backend.activate(activation)?;
        // The driver may have filled queues and kicked before it said that it is ready.
        let mut unfinished: u64 = (1 << self.kicks.len()) - 1;
        loop {
            let woken = self.wait(unfinished != 0);
            if woken.stop {
                self.stop.clear();
                return Ok(());
            }
            for queue in 0..self.kicks.len() {
                let bit = 1 << queue;
                let kicked = woken.kicks & bit != 0 && self.kicks[queue].clear();
                if kicked || unfinished & bit != 0 {
                    unfinished &= !bit;
                    if self.backend.kicked(queue)? == Share::More {
                        unfinished |= bit;
                    }
                }
            }
            if woken.outside {
                self.backend.outside_ready()?;
            }
        }
    }

    fn wait(&self, only_look: bool) -> Woken {
        let mut fds = Vec::with_capacity(self.kicks.len() + 2);
        fds.push(PollFd::new(&*self.stop, PollFlags::IN));
        fds.extend(self.kicks.iter().map(|kick| PollFd::new(&**kick, PollFlags::IN)));
        let outside: Option<(BorrowedFd<'_>, PollFlags)> = self.backend.outside();
        fds.extend(outside.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, only_look.then_some(&at_once)).is_err() {
            return Woken::default();
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let kicks = fds[1..=self.kicks.len()].iter().enumerate();
        Woken {
            stop: ready(&fds[0]),
            kicks: kicks.fold(0, |set, (index, fd)| set | u64::from(ready(fd)) << index),
            outside: fds.get(self.kicks.len() + 1).is_some_and(ready),
        }
    }

    fn wait_for_stop(&self) {
        while !self.stop.clear() {
            let _ = poll(&mut [PollFd::new(&*self.stop, PollFlags::IN)], None);
        }
    }
}

#[derive(Default)]
struct Woken {
    stop: bool,
    kicks: u64,
    outside: bool,
}
