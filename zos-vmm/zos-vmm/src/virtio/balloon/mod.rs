//! virtio-balloon (virtio 1.2, 5.5): the guest gives memory back, and tells what it does with the
//! rest.
//!
//! ```text
//!  API ── set_target ─▶ num_pages, interrupt ─▶ driver ── inflate: page numbers ─▶ pages of the
//!      ◀─ counters ─── actual ◀──────────────── driver    report: free ranges ──▶  memfd go back
//!      ── ask_stats ─▶ the statistics buffer goes back ─▶ driver ── new numbers ─▶ counters
//! ```
//!
//! Which queue is whose: inflate 0, deflate 1, statistics 2. The specification gives reporting
//! number 4; Linux counts only the queues whose features were agreed on. Both are understood: a
//! driver that enables queue 4 reports there, else right behind those that it has.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | page numbers outside its memory, twice, in any order | skipped, counted once a step, sorted |
//! | a range that isn't whole host pages | only the whole ones inside it go back |
//! | a chain of thousands of numbers, or gigabytes | done in bounded steps, over many turns |
//! | more numbers than its memory has pages | the rest is ignored |
//! | statistics of megabytes, or without end | 64 of them; the former buffer goes back |
//! | any number as `actual` | shown as at most its memory |
//! | pages that it still uses | it reads zeros: its own loss |

mod handle;
mod pages;
mod stats;

pub use handle::{BalloonHandle, TargetError};

use super::{
    Activation, ActiveQueue, Backend, Broken, Chain, ConfigSpace, Counters, F_RING, Interrupt,
    Profile, Share, Waits,
};
use crate::event::Event;
use crate::memory::{GuestMemory, IoVecs};
use rustix::event::PollFlags;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

const KIND: u16 = 5;
const CLASS: u32 = 0xff_0000;
const QUEUE_SIZE: u16 = 128;
/// Bytes of a page of the balloon, whatever pages the host has.
const PAGE: u64 = 4096;

/// Features (5.5.3).
const F_STATS: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_POISON: u64 = 1 << 4;
const F_REPORTING: u64 = 1 << 5;

/// The configuration (5.5.4): pages wanted, pages given, a field of hinting, the poison.
const NUM_PAGES: usize = 0;
const ACTUAL: usize = 4;
const POISON: usize = 12;
const CONFIG: usize = 16;

/// Queues by number.
const STATS_QUEUE: usize = 2;
const REPORT_QUEUE: usize = 4;

/// Work of one turn: calls that give a range back, and chains.
const TURN: usize = 512;
/// Most bytes that one call gives back.
const MOST: usize = 64 << 20;

/// Counters by their indices, those of `stats` behind them.
const TARGET_BYTES: usize = 0;
const ACTUAL_BYTES: usize = 1;
const INFLATED_BYTES: usize = 2;
const REPORTED_BYTES: usize = 3;
const STATS_ANSWERS: usize = 4;
const FIRST_STAT: usize = 5;
const COUNTERS: [&str; FIRST_STAT] =
    ["target_bytes", "actual_bytes", "inflated_bytes", "reported_bytes", "stats_answers"];

/// What the balloon is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes that the guest shall give back at its start.
    pub target: u64,
    /// The guest takes memory back rather than run out of it.
    pub deflate_on_oom: bool,
    /// The guest tells which pages are free.
    pub reporting: bool,
}

/// The balloon's work.
#[derive(Debug)]
pub struct Balloon {
    options: Options,
    handle: BalloonHandle,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    lines: Vec<Option<Line>>,
    scratch: IoVecs,
    /// What a reported page is expected to hold: we only have zeros.
    keep_reported: bool,
    /// Page numbers that a chain may have.
    most_pages: usize,
}

/// A queue and what is being done for it.
#[derive(Debug)]
struct Line {
    role: Role,
    queue: ActiveQueue,
    chain: Chain,
    /// The chain is being worked on.
    busy: bool,
    /// A statistics buffer that waits for being asked for.
    held: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Report,
}

impl Balloon {
    /// One for a guest with so much memory.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(options: Options, memory: u64) -> io::Result<Self> {
        let names: Vec<_> = COUNTERS.into_iter().chain(stats::NAMES).collect();
        let counters = Counters::new(&names);
        let mut config = vec![0; CONFIG];
        put(&mut config, NUM_PAGES, handle::pages(options.target));
        counters.set(TARGET_BYTES, options.target);
        let config = ConfigSpace::writable(config, ACTUAL..CONFIG);
        let written = counters.clone();
        config.when_written(move |bytes| {
            let actual = u64::from(word(bytes, ACTUAL)) * PAGE;
            written.set(ACTUAL_BYTES, actual.min(memory));
        });
        let ask = Arc::new(Event::new()?);
        let handle = BalloonHandle::new(config, counters, ask, memory);
        Ok(Self { options, handle, active: None })
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let Options { deflate_on_oom, reporting, .. } = self.options;
        let optional = |there: bool, bits: u64| if there { bits } else { 0 };
        let features = F_RING
            | F_STATS
            | optional(deflate_on_oom, F_DEFLATE_ON_OOM)
            | optional(reporting, F_REPORTING | F_PAGE_POISON);
        let queues = if reporting { REPORT_QUEUE + 1 } else { STATS_QUEUE + 1 };
        Profile {
            kind: KIND,
            class: CLASS,
            features,
            queues: vec![QUEUE_SIZE; queues],
            config: self.handle.config.clone(),
            counters: self.handle.counters.clone(),
        }
    }

    /// How others reach it while it works in its thread.
    #[must_use]
    pub fn handle(&self) -> BalloonHandle {
        self.handle.clone()
    }

    /// The number of the queue of this role, as the driver counts.
    fn number(activation: &Activation, role: Role) -> Option<usize> {
        match role {
            Role::Inflate => Some(0),
            Role::Deflate => Some(1),
            Role::Stats => activation.has(F_STATS).then_some(STATS_QUEUE),
            Role::Report => activation.has(F_REPORTING).then(|| {
                let by_the_book = activation.queues.get(REPORT_QUEUE).is_some_and(Option::is_some);
                let counted = STATS_QUEUE + usize::from(activation.has(F_STATS));
                if by_the_book { REPORT_QUEUE } else { counted }
            }),
        }
    }
}

impl Backend for Balloon {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let memory = activation.memory.clone();
        let mut lines: Vec<Option<Line>> = activation.queues.iter().map(|_| None).collect();
        for role in [Role::Inflate, Role::Deflate, Role::Stats, Role::Report] {
            let Some(number) = Self::number(&activation, role) else { continue };
            let queue = activation.queues.get_mut(number).and_then(Option::take);
            if let (Some(queue), Some(line)) = (queue, lines.get_mut(number)) {
                let chain = Chain::new(&memory);
                *line = Some(Line { role, queue, chain, busy: false, held: None });
            }
        }
        let mut poison = [0; 4];
        self.handle.config.read(POISON, &mut poison);
        let bytes: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
        self.active = Some(Active {
            keep_reported: activation.has(F_PAGE_POISON) && poison != [0; 4],
            most_pages: usize::try_from(bytes / PAGE).unwrap_or(usize::MAX),
            scratch: IoVecs::new(memory.clone()),
            interrupt: activation.interrupt,
            memory,
            lines,
        });
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<Share, Broken> {
        let counters = self.handle.counters.clone();
        self.active.as_mut().map_or(Ok(Share::Done), |active| active.turn(queue, &counters))
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        waits.add(0, self.handle.ask.as_fd(), PollFlags::IN);
    }

    /// Somebody asks for statistics: the driver gets its buffer back, and fills it anew. One that
    /// has none with us is about to send one.
    fn ready(&mut self, _: u32) -> Result<(), Broken> {
        self.handle.ask.clear();
        let Some(Active { memory, interrupt, lines, .. }) = &mut self.active else { return Ok(()) };
        for line in lines.iter_mut().flatten() {
            if let Some(head) = line.held.take() {
                line.queue.give_back(memory, head, 0)?;
                line.queue.notify(memory, interrupt)?;
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        // The next driver begins with nothing in its balloon.
        self.handle.config.write(ACTUAL, &[0; CONFIG - ACTUAL]);
    }
}

impl Active {
    fn turn(&mut self, number: usize, counters: &Counters) -> Result<Share, Broken> {
        let Self { memory, interrupt, lines, scratch, keep_reported, most_pages } = self;
        let Some(Some(line)) = lines.get_mut(number) else { return Ok(Share::Done) };
        line.queue.quiet(memory)?;
        let mut left = TURN;
        while left > 0 {
            if !line.busy {
                let Some(loaded) = line.queue.next(memory, &mut line.chain)? else { break };
                line.busy = true;
                if loaded.is_err() {
                    line.chain.readable.clear();
                    line.chain.writable.clear();
                }
                let numbers = &mut line.chain.readable;
                numbers.shorten(numbers.bytes().saturating_sub(*most_pages * pages::NUMBER));
            }
            let calls = match line.role {
                Role::Inflate => pages::give_back(&mut line.chain.readable, scratch, counters),
                Role::Report if !*keep_reported => {
                    counters.add(
                        REPORTED_BYTES,
                        line.chain.writable.discard(MOST).try_into().unwrap_or(0),
                    );
                    1
                }
                Role::Stats => stats::note(&mut line.chain.readable, counters),
                Role::Deflate | Role::Report => 1,
            };
            left = left.saturating_sub(calls.max(1));
            line.finish(memory, *keep_reported)?;
        }
        line.queue.notify(memory, interrupt)?;
        if left == 0 {
            return Ok(Share::More);
        }
        Ok(if line.queue.listen(memory)? { Share::More } else { Share::Done })
    }
}

impl Line {
    /// Gives the chain back if nothing of it is left to be done.
    fn finish(&mut self, memory: &GuestMemory, keep_reported: bool) -> Result<(), Broken> {
        let left = match self.role {
            Role::Inflate => self.chain.readable.bytes() >= pages::NUMBER,
            Role::Report => !keep_reported && self.chain.writable.bytes() > 0,
            Role::Deflate | Role::Stats => false,
        };
        if left {
            return Ok(());
        }
        self.busy = false;
        let head = match self.role {
            Role::Stats => self.held.replace(self.chain.head),
            _ => Some(self.chain.head),
        };
        head.map_or(Ok(()), |head| self.queue.give_back(memory, head, 0))
    }
}

/// A little-endian word of the configuration.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
