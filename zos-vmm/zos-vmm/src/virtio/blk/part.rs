//! One queue of a disk, in its thread.
//!
//! ```text
//!  queue ─▶ load ─▶ rate ──▶ barrier ──▶ (aligned buffer) ──▶ engine ─┐
//!             │      └▶ held: alarm          ▲ what is left           │ finished
//!             │ answered at once             └──────── settle ◀───────┘
//!             └───────────────────────────▶ used, all at once ◀─┘ done: one message
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a head again while its request is under way | the queue is broken: needs reset. Each request has its own copy of what it points to, so nothing is freed or mixed up |
//! | more requests than the engine's depth | the rest waits in the ring |
//! | a reset or a pause with requests under way | waits for them first |
//! | a queue that it breaks with requests under way | they are waited for, then the device needs a reset |

use super::barrier::Barrier;
use super::bounce::Bounce;
use super::count;
use super::disk::Disk;
use super::engine::Engine;
use super::request::{Loaded, Request, Status, Step, Work};
use crate::memory::GuestMemory;
use crate::rate::{Limiter, Moment, Verdict};
use crate::virtio::{
    Activation, ActiveQueue, Backend, Broken, Counters, Interrupt, SHARE, Share, Used, Waits,
};
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When to hand on again what the kernel didn't take.
const PRESS_AGAIN: Duration = Duration::from_millis(1);

/// What works on a queue.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) disk: Arc<Disk>,
    pub(super) engine: Box<dyn Engine>,
    pub(super) limiter: Limiter,
    pub(super) counters: Counters,
    /// There if the disk wants aligned memory, and no request has it.
    pub(super) bounce: Option<Bounce>,
    pub(super) active: Option<Active>,
}

/// What it has while a driver is there.
#[derive(Debug)]
pub(super) struct Active {
    memory: GuestMemory,
    queue: ActiveQueue,
    interrupt: Arc<Interrupt>,
    /// The driver knows no flush.
    durable: bool,
    /// Requests to use again.
    #[expect(clippy::vec_box, reason = "a box goes from hand to hand, a request would be copied")]
    pool: Vec<Box<Request>>,
    /// Heads under way, a bit each.
    heads: [u64; HEAD_WORDS],
    /// Requests that were loaded and aren't answered.
    under_way: usize,
    /// One that waits for its rate; nothing is loaded meanwhile.
    held: Option<Box<Request>>,
    barrier: Barrier,
    /// Those that wait for the aligned buffer.
    unaligned: VecDeque<Box<Request>>,
    /// What goes back to the driver next.
    used: Vec<Used>,
    /// When to go on by itself.
    alarm: Option<Instant>,
}

const HEAD_WORDS: usize = super::QUEUE as usize / 64;

impl Part {
    /// Does a share of what is there.
    fn work(&mut self) -> Result<Share, Broken> {
        let Some(mut active) = self.active.take() else { return Ok(Share::Done) };
        let result = self.turn(&mut active);
        if result.is_err() {
            self.drain();
        }
        self.active = Some(active);
        result
    }

    fn turn(&mut self, active: &mut Active) -> Result<Share, Broken> {
        active.alarm = None;
        active.queue.quiet(&active.memory)?;
        self.reap(active);
        self.try_held(active);
        let mut taken = 0;
        loop {
            let before = taken;
            while taken < SHARE && active.held.is_none() && active.under_way < self.engine.depth() {
                if !self.take(active)? {
                    break;
                }
                taken += 1;
            }
            // What is done at once may be followed by what waited for it.
            loop {
                if !self.engine.submit() {
                    active.alarm = Some(Instant::now() + PRESS_AGAIN);
                }
                if !self.reap(active) {
                    break;
                }
            }
            active.give_back()?;
            if taken == before || taken == SHARE {
                break;
            }
        }
        if active.held.is_some() || active.under_way >= self.engine.depth() {
            // Time or a completion brings us back; until then kicks tell nothing.
            return Ok(Share::Done);
        }
        let more = taken == SHARE || active.queue.listen(&active.memory)?;
        if more {
            active.alarm = Some(Instant::now());
        }
        Ok(if more { Share::More } else { Share::Done })
    }

    /// Loads a request and sends it on its way; false: there is none.
    fn take(&mut self, active: &mut Active) -> Result<bool, Broken> {
        let mut request =
            active.pool.pop().unwrap_or_else(|| Box::new(Request::new(&active.memory)));
        let Some(loaded) = active.queue.next(&active.memory, &mut request.chain)? else {
            active.pool.push(request);
            return Ok(false);
        };
        active.claim(request.chain.head)?;
        active.under_way += 1;
        if loaded.is_err() {
            // A chain that is none can't even be refused: it goes back empty.
            self.counters.add(count::FAILED, 1);
            active.finish(request, None);
            return Ok(true);
        }
        match request.load(&self.disk, active.durable) {
            Loaded::Answer(status) => {
                self.counters.add(count::FAILED, (status != Status::Ok).into());
                active.finish(request, Some(status));
            }
            Loaded::Work => {
                active.held = Some(request);
                self.try_held(active);
                self.counters.add(count::THROTTLED, active.held.is_some().into());
            }
        }
        Ok(true)
    }

    /// Starts the held request if its rate allows it.
    fn try_held(&mut self, active: &mut Active) {
        let Some(mut request) = active.held.take() else { return };
        if !self.limiter.is_unlimited() {
            let verdict = self.limiter.take(Moment::now(), request.bytes(), 1);
            if let Verdict::At(moment) = verdict {
                active.alarm = Some(moment.instant());
                active.held = Some(request);
                return;
            }
        }
        if request.is_change() {
            request.turn = active.barrier.begin();
        }
        let request = match request.work {
            Work::Flush => active.barrier.hold(request),
            _ => Some(request),
        };
        if let Some(request) = request {
            self.launch(active, request);
        }
    }

    /// Gives a request to the engine, by way of the aligned buffer if it needs one.
    fn launch(&mut self, active: &mut Active, mut request: Box<Request>) {
        if request.is_unaligned(&self.disk) {
            request.bounce = self.bounce.take();
            if request.bounce.is_none() {
                active.unaligned.push_back(request);
                return;
            }
        }
        request.prepare();
        self.engine.start(request);
    }

    /// Takes what the engine has done: goes on with it, or answers. Tells whether something was
    /// started.
    fn reap(&mut self, active: &mut Active) -> bool {
        let mut started = false;
        while let Some((mut request, result)) = self.engine.finished() {
            match request.settle(&self.disk, result) {
                Step::Again => {
                    self.launch(active, request);
                    started = true;
                }
                Step::Done(status) => {
                    let (change, turn) = (request.is_change(), request.turn);
                    let bounce = request.bounce.take();
                    self.count(&request, status);
                    active.finish(request, Some(status));
                    if change {
                        active.barrier.end(turn);
                    }
                    while let Some(flush) = active.barrier.release() {
                        self.launch(active, flush);
                        started = true;
                    }
                    if bounce.is_some() {
                        self.bounce = bounce;
                        if let Some(next) = active.unaligned.pop_front() {
                            self.launch(active, next);
                            started = true;
                        }
                    }
                }
            }
        }
        started
    }

    fn count(&self, request: &Request, status: Status) {
        if status != Status::Ok {
            self.counters.add(count::FAILED, 1);
            return;
        }
        let (operations, bytes) = match request.work {
            Work::Read { .. } => (count::READ_OPS, Some(count::READ_BYTES)),
            Work::Write { .. } => (count::WRITE_OPS, Some(count::WRITE_BYTES)),
            Work::Flush => (count::FLUSHES, None),
            Work::Discard => (count::DISCARDS, None),
            Work::WriteZeroes => (count::WRITE_ZEROES, None),
        };
        self.counters.add(operations, 1);
        if let Some(bytes) = bytes {
            self.counters.add(bytes, request.bytes());
        }
    }

    /// Waits until the engine holds nothing, and forgets what it had.
    fn drain(&mut self) {
        while self.engine.holds() > 0 {
            self.engine.wait();
            while let Some((mut request, _)) = self.engine.finished() {
                self.bounce = self.bounce.take().or(request.bounce.take());
            }
        }
    }
}

impl Active {
    fn claim(&mut self, head: u16) -> Result<(), Broken> {
        let word = self.heads.get_mut(usize::from(head / 64)).ok_or(Broken::Ring)?;
        let bit = 1 << (head % 64);
        if *word & bit != 0 {
            return Err(Broken::Twice);
        }
        *word |= bit;
        Ok(())
    }

    /// Answers a request, or gives it back empty, with the next batch.
    fn finish(&mut self, mut request: Box<Request>, status: Option<Status>) {
        let written = status.map_or(0, |status| request.answer(status));
        let head = request.chain.head;
        self.heads[usize::from(head / 64)] &= !(1 << (head % 64));
        self.used.push(Used { head, written });
        self.under_way -= 1;
        request.chain.readable.shrink();
        request.chain.writable.shrink();
        self.pool.push(request);
    }

    fn give_back(&mut self) -> Result<(), Broken> {
        if self.used.is_empty() {
            return Ok(());
        }
        self.queue.give_back_all(&self.memory, &self.used)?;
        self.used.clear();
        self.queue.notify(&self.memory, &self.interrupt)
    }
}

impl Backend for Part {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let durable = !activation.has(super::F_FLUSH);
        let queue = activation.queues.first_mut().and_then(Option::take);
        let Activation { memory, interrupt, .. } = activation;
        // A driver may leave queues of a disk unused.
        self.active = queue.map(|queue| Active {
            memory,
            queue,
            interrupt,
            durable,
            pool: Vec::new(),
            heads: [0; HEAD_WORDS],
            under_way: 0,
            held: None,
            barrier: Barrier::default(),
            unaligned: VecDeque::new(),
            used: Vec::with_capacity(self.engine.depth()),
            alarm: None,
        });
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<Share, Broken> {
        self.work()
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        if let (Some(fd), true) = (self.engine.fd(), self.engine.holds() > 0) {
            waits.add(0, fd, PollFlags::IN);
        }
    }

    fn ready(&mut self, _: u32) -> Result<(), Broken> {
        self.work().map(|_| ())
    }

    fn alarm(&self) -> Option<Instant> {
        self.active.as_ref().and_then(|active| active.alarm)
    }

    fn rang(&mut self) -> Result<(), Broken> {
        self.work().map(|_| ())
    }

    fn rest(&mut self) -> Result<(), Broken> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        // What is left of requests, and those that wait for others, is started on the way.
        while self.engine.holds() > 0 {
            self.engine.wait();
            self.reap(&mut active);
        }
        let result = active.give_back();
        self.active = Some(active);
        result
    }

    fn reset(&mut self) {
        self.drain();
        self.active = None;
    }
}
