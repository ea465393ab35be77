//! The threads of devices. A thread has desks; at each sits the part of a device that works on some of
//! its queues.
//!
//! ```text
//!  Worker (thread)                      a desk:
//!   ├─ desk 0: disk, queue 0             idle ── start(activation) ──▶ working ── stop ──▶ idle
//!   └─ desk 1: ...                                                       └─ broken ring: needs reset,
//!  loop: poll(commands, kicks, outside, alarms) ─▶ shares of work              waits for stop
//! ```
//!
//! A desk without queues (the serial port's socket) works from the first moment to the last.
//!
//! Threads are made before the guest runs, so that no thread has to make one later, and none may.
//! Small devices share one; a disk's queue or a net's pair of queues has one of its own.

use super::{Activation, Backend, Broken, Interrupt, Share};
use crate::event::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a thread is told; each is answered when it is done, but for those without an answer.
enum Command {
    Sit(Box<Seat>),
    Start(usize, Box<Activation>),
    Stop(usize, SyncSender<()>),
    Pause(SyncSender<()>),
    Resume,
    Quit,
}

/// A device thread. It ends with the last who holds it.
#[derive(Debug)]
pub struct Worker {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    desks: usize,
}

#[derive(Debug)]
struct Mailbox {
    commands: Sender<Command>,
    wake: Event,
}

/// Why a worker can't be had.
#[derive(Debug, thiserror::Error)]
#[error("start the device thread {name}")]
pub struct WorkerError {
    /// The thread.
    pub name: String,
    /// Cause.
    pub source: io::Error,
}

/// A device part's place in a thread, as its transport holds it.
#[derive(Debug)]
pub struct Desk {
    mailbox: Arc<Mailbox>,
    number: usize,
    working: bool,
}

impl Worker {
    /// Makes the thread; it runs `enter` (its jail) first, then waits.
    ///
    /// # Errors
    /// No thread or descriptor left.
    pub fn spawn(name: &str, enter: impl FnOnce() + Send + 'static) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError { name: name.to_owned(), source };
        let (commands, inbox) = channel();
        let wake = Event::new().map_err(failed)?;
        let mailbox = Arc::new(Mailbox { commands, wake });
        let office = Office { mailbox: mailbox.clone(), inbox, seats: Vec::new(), paused: false };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                enter();
                office.run();
            })
            .map_err(failed)?;
        Ok(Self { mailbox, thread: Some(thread), desks: 0 })
    }

    /// Gives a device's part a desk, with a kick for each of its queues, unless it takes them.
    pub fn seat(&mut self, backend: Box<dyn Backend>, kicks: Vec<Arc<Event>>) -> Desk {
        let kicks = if backend.takes_kicks() { Vec::new() } else { kicks };
        let number = self.desks;
        self.desks += 1;
        self.mailbox.send(Command::Sit(Box::new(Seat::new(backend, kicks))));
        Desk { mailbox: self.mailbox.clone(), number, working: false }
    }

    /// Gives a desk to what has no queues, and so no driver: it works from now until the thread
    /// ends.
    pub fn attend(&mut self, backend: Box<dyn Backend>) {
        self.desks += 1;
        let seat = Seat { standing: true, ..Seat::new(backend, Vec::new()) };
        self.mailbox.send(Command::Sit(Box::new(seat)));
    }

    /// Brings all its devices to rest: when this returns, the thread touches no guest memory.
    pub fn pause(&self) {
        self.mailbox.ask(Command::Pause);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.mailbox.send(Command::Resume);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.mailbox.send(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Desk {
    /// Hands the queues over.
    pub fn start(&mut self, activation: Activation) {
        self.stop();
        self.mailbox.send(Command::Start(self.number, Box::new(activation)));
        self.working = true;
    }

    /// Takes the queues away: when this returns, the part touches no guest memory. It waits for the
    /// requests at hand.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.working) {
            let number = self.number;
            self.mailbox.ask(|done| Command::Stop(number, done));
        }
    }
}

impl Mailbox {
    fn send(&self, command: Command) {
        // A thread that is gone hears nothing, and needn't.
        let _ = self.commands.send(command);
        self.wake.signal();
    }

    fn ask(&self, command: impl FnOnce(SyncSender<()>) -> Command) {
        let (done, answer) = sync_channel(1);
        self.send(command(done));
        // An error means that the thread is gone, which is as good.
        let _ = answer.recv();
    }
}

/// The thread's side.
struct Office {
    mailbox: Arc<Mailbox>,
    inbox: Receiver<Command>,
    seats: Vec<Seat>,
    paused: bool,
}

impl Office {
    fn run(mut self) {
        loop {
            if self.wait() && !self.obey() {
                return;
            }
            if !self.paused {
                self.seats.iter_mut().for_each(Seat::work);
            }
        }
    }

    /// Waits for something to do, and notes at each seat what it is; tells of commands.
    fn wait(&mut self) -> bool {
        let (woken, marks) = {
            let (mut fds, mut marks) = (Vec::with_capacity(16), Vec::with_capacity(16));
            let mut waits = Waits::default();
            let (mut until, mut at_once) = (None, false);
            fds.push(PollFd::new(&self.mailbox.wake, PollFlags::IN));
            for (number, seat) in self.seats.iter().enumerate() {
                if self.paused || !seat.works() {
                    continue;
                }
                at_once |= seat.due != Due::default();
                until = until.into_iter().chain(seat.backend.alarm()).min();
                for (queue, kick) in seat.kicks.iter().enumerate() {
                    fds.push(PollFd::new(&**kick, PollFlags::IN));
                    marks.push((number, Mark::Kick(queue)));
                }
                seat.backend.outside(&mut waits);
                for (token, fd, flags) in waits.0.drain(..) {
                    fds.push(PollFd::from_borrowed_fd(fd, flags));
                    marks.push((number, Mark::Outside(token)));
                }
            }
            let pause = if at_once { Some(Duration::ZERO) } else { until.map(from_now) };
            let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
            if poll(&mut fds, pause.as_ref()).is_err() {
                // Interrupted: look again.
                return false;
            }
            let woken: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            (woken, marks)
        };
        let (commands, others) = woken.split_first().map_or((false, &[][..]), |(c, o)| (*c, o));
        for ((number, mark), _) in marks.iter().zip(others).filter(|(_, woken)| **woken) {
            self.seats[*number].note(*mark);
        }
        for seat in self.seats.iter_mut().filter(|seat| seat.works()) {
            seat.due.alarm = seat.backend.alarm().is_some_and(|at| from_now(at).is_zero());
        }
        commands
    }

    /// Does what was told; false: the end.
    fn obey(&mut self) -> bool {
        self.mailbox.wake.clear();
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Sit(seat) => self.seats.push(*seat),
                Command::Start(number, activation) => {
                    if let Some(seat) = self.seats.get_mut(number) {
                        seat.start(*activation);
                    }
                }
                Command::Stop(number, done) => {
                    if let Some(seat) = self.seats.get_mut(number) {
                        seat.stop();
                    }
                    let _ = done.send(());
                }
                Command::Pause(done) => {
                    self.paused = true;
                    self.seats.iter_mut().for_each(Seat::rest);
                    let _ = done.send(());
                }
                Command::Resume => {
                    if std::mem::take(&mut self.paused) {
                        self.seats.iter_mut().for_each(Seat::go_on);
                    }
                }
                Command::Quit => {
                    self.seats.iter_mut().for_each(Seat::stop);
                    return false;
                }
            }
        }
        true
    }
}

#[derive(Clone, Copy)]
enum Mark {
    Kick(usize),
    Outside(u32),
}

/// What a seat has to do at its next turn.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// Queues, a bit each.
    queues: u64,
    outside: Vec<u32>,
    alarm: bool,
}

struct Seat {
    backend: Box<dyn Backend>,
    kicks: Vec<Arc<Event>>,
    /// Works without a driver.
    standing: bool,
    /// Some while it works for a driver.
    interrupt: Option<Arc<Interrupt>>,
    broken: bool,
    due: Due,
}

impl Seat {
    fn new(backend: Box<dyn Backend>, kicks: Vec<Arc<Event>>) -> Self {
        let due = Due::default();
        Self { backend, kicks, standing: false, interrupt: None, broken: false, due }
    }

    fn works(&self) -> bool {
        (self.standing || self.interrupt.is_some()) && !self.broken
    }

    fn start(&mut self, activation: Activation) {
        self.interrupt = Some(activation.interrupt.clone());
        let result = self.backend.activate(activation);
        // The driver may have filled queues and kicked before it said that it is ready.
        self.due.queues = (1 << self.kicks.len()) - 1;
        self.check(result);
    }

    fn stop(&mut self) {
        if self.interrupt.take().is_some() || self.standing {
            self.backend.reset();
        }
        self.broken = false;
        self.due = Due::default();
    }

    fn rest(&mut self) {
        if self.works() {
            let result = self.backend.rest();
            self.check(result);
        }
    }

    fn go_on(&mut self) {
        if self.works() {
            let result = self.backend.go_on();
            self.check(result);
        }
    }

    fn note(&mut self, mark: Mark) {
        match mark {
            Mark::Kick(queue) if self.kicks[queue].clear() => self.due.queues |= 1 << queue,
            Mark::Kick(_) => {}
            Mark::Outside(token) => self.due.outside.push(token),
        }
    }

    fn work(&mut self) {
        if self.works() {
            let due = std::mem::take(&mut self.due);
            let result = self.share(&due);
            self.check(result);
        }
    }

    fn share(&mut self, due: &Due) -> Result<(), Broken> {
        for queue in (0..self.kicks.len()).filter(|queue| due.queues & 1 << queue != 0) {
            if self.backend.kicked(queue)? == Share::More {
                self.due.queues |= 1 << queue;
            }
        }
        for token in &due.outside {
            self.backend.ready(*token)?;
        }
        if due.alarm { self.backend.rang() } else { Ok(()) }
    }

    fn check(&mut self, result: Result<(), Broken>) {
        if result.is_err() {
            self.broken = true;
            self.interrupt.iter().for_each(|interrupt| interrupt.need_reset());
        }
    }
}

fn from_now(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now())
}

/// The descriptors of the outside world that a backend waits for now, each with a number of the
/// backend's by which it hears of it.
#[derive(Debug, Default)]
pub struct Waits<'a>(Vec<(u32, BorrowedFd<'a>, PollFlags)>);

impl<'a> Waits<'a> {
    /// One more.
    pub fn add(&mut self, token: u32, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.0.push((token, fd, flags));
    }
}
