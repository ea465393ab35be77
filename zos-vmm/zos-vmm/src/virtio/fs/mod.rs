//! virtio-fs (virtio 1.2, 5.11): a folder of the host, served by a process of its own over
//! vhost-user.
//!
//! ```text
//!  guest ── kick: KVM writes the very eventfd ──────────▶ back-end (zos-virtiofsd, its own jail)
//!        ◀─ MSI-X ── this thread ◀─ call: an eventfd ──┘     │ reads and writes the guest's memory
//!                        └──── Unix socket: rings, memory ───┘
//! ```
//!
//! Requests never pass through this process. It parses nothing that a guest writes here, and of
//! the back-end only answers of fixed length ([`connection`]).
//!
//! | A back-end may try | What happens |
//! |---|---|
//! | end, hang, lie | the device needs a reset, one line in the log; the guest goes on |
//! | make the guest's memory shorter, so that we die of it | the memfd is sealed |
//! | take the wake of an event before us, or make its descriptor block | we never read from it: an edge of epoll |
//! | wake without end | the guest is interrupted, on its own CPU time |
//! | anything with the guest's memory | it can: a back-end serves one VM |
//!
//! | A guest may try | What happens |
//! |---|---|
//! | leave queues alone | they aren't started |
//! | reset in a loop | rings stop and start; a back-end that doesn't follow is given up, for good |

mod connection;
mod front_end;

pub use connection::TalkError;

use super::queue::Rings;
use super::{
    Activation, Backend, Broken, ConfigSpace, Counters, F_EVENT_IDX, F_INDIRECT_DESC, F_RING,
    F_VERSION_1, Interrupt, Profile, Share, Waits,
};
use crate::event::Event;
use front_end::{FrontEnd, PATIENCE, Start};
use rustix::event::{PollFlags, Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

const KIND: u16 = 26;
/// A mass storage controller of no other kind.
const CLASS: u32 = 0x01_8000;
const QUEUE_SIZE: u16 = 1024;
/// Bytes of the tag in the configuration (5.11.4); the number of request queues follows.
const TAG: usize = 36;

/// What is waited for.
const CALLS: u32 = 0;
const SOCKET: u32 = 1;

/// Counters by their indices.
const COUNTERS: &[&str] = &["interrupts"];
const INTERRUPTS: usize = 0;

/// Why a folder can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The back-end.
    #[error("share {tag}")]
    Talk {
        /// Which share.
        tag: String,
        /// Cause.
        source: TalkError,
    },
    /// It is too old.
    #[error("share {tag}: the back-end doesn't speak virtio 1")]
    Old {
        /// Which share.
        tag: String,
    },
    /// It has fewer queues than are wanted.
    #[error("share {tag}: {wanted} request queues are wanted, the back-end has {has}")]
    Queues {
        /// Which share.
        tag: String,
        /// What the spec says.
        wanted: u16,
        /// What the back-end says.
        has: u64,
    },
    /// Descriptors.
    #[error("share {tag}: make its event descriptors")]
    Events {
        /// Which share.
        tag: String,
        /// Cause.
        source: io::Error,
    },
}

/// A shared folder.
#[derive(Debug)]
pub struct Fs {
    tag: String,
    features: u64,
    config: ConfigSpace,
    counters: Counters,
    /// None once the back-end has failed us.
    front: Option<FrontEnd>,
    calls: Calls,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    interrupt: Arc<Interrupt>,
    kicks: Vec<Arc<Event>>,
    /// The queues that the driver enabled, and where each one goes on.
    rings: Vec<(usize, Rings, u16)>,
}

/// The events by which the back-end tells of used buffers, one for each queue.
#[derive(Debug)]
struct Calls {
    events: Vec<Event>,
    edges: OwnedFd,
}

impl Fs {
    /// Greets the back-end at the other end of a socket.
    ///
    /// # Errors
    /// It isn't one, or not as is needed.
    pub fn new(tag: &str, queues: u16, socket: UnixStream) -> Result<Self, FsError> {
        Self::greet(tag, queues, socket, PATIENCE)
    }

    fn greet(
        tag: &str,
        queues: u16,
        socket: UnixStream,
        patience: Duration,
    ) -> Result<Self, FsError> {
        let tag = tag.to_owned();
        let (front, offered, has) = match FrontEnd::greet(socket, patience) {
            Ok(greeted) => greeted,
            Err(source) => return Err(FsError::Talk { tag, source }),
        };
        if offered & F_VERSION_1 == 0 {
            return Err(FsError::Old { tag });
        }
        // One that doesn't count has a queue for requests and one for what can't wait.
        let has = has.unwrap_or(2).saturating_sub(1);
        if u64::from(queues) > has {
            return Err(FsError::Queues { tag, wanted: queues, has });
        }
        let mut config = tag.as_bytes().to_vec();
        config.resize(TAG, 0);
        config.extend_from_slice(&u32::from(queues).to_le_bytes());
        let calls = match Calls::new(usize::from(queues) + 1) {
            Ok(calls) => calls,
            Err(source) => return Err(FsError::Events { tag, source }),
        };
        Ok(Self {
            tag,
            features: F_VERSION_1 | offered & (F_INDIRECT_DESC | F_EVENT_IDX),
            config: ConfigSpace::new(config),
            counters: Counters::new(COUNTERS),
            front: Some(front),
            calls,
            active: None,
        })
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            kind: KIND,
            class: CLASS,
            features: self.features & F_RING,
            queues: vec![QUEUE_SIZE; self.calls.events.len()],
            config: self.config.clone(),
            counters: self.counters.clone(),
        }
    }

    /// Does something with the back-end. One that fails is given up, with a word in the log.
    fn talk<T>(
        &mut self,
        talk: impl FnOnce(&FrontEnd, Vec<Start<'_>>) -> Result<T, TalkError>,
    ) -> Result<T, Broken> {
        let Self { front, calls, active, .. } = self;
        let starts = active.iter().flat_map(|active| active.starts(calls)).collect();
        let front = front.as_ref().ok_or(Broken::Backing)?;
        let result = talk(front, starts);
        result.map_err(|error| self.give_up(&error))
    }

    fn give_up(&mut self, error: &TalkError) -> Broken {
        if self.front.take().is_some() {
            eprintln!("zos-vmm: share {}: {error}; the guest has lost it", self.tag);
        }
        Broken::Backing
    }

    /// Stops all rings, and notes where they were.
    fn stop(&mut self) -> Result<(), Broken> {
        let bases =
            self.talk(|front, starts| front.stop(starts.iter().map(|start| start.index)))?;
        let rings = self.active.iter_mut().flat_map(|active| &mut active.rings);
        rings.zip(bases).for_each(|((_, _, place), base)| *place = base);
        Ok(())
    }
}

impl Backend for Fs {
    fn takes_kicks(&self) -> bool {
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let Activation { memory, queues, features, interrupt, kicks } = activation;
        let rings = queues.iter().enumerate();
        let rings = rings.filter_map(|(index, queue)| Some((index, queue.as_ref()?.rings(), 0)));
        self.active = Some(Active { interrupt, kicks, rings: rings.collect() });
        self.talk(|front, starts| front.start(features, &memory, &starts))
    }

    fn kicked(&mut self, _: usize) -> Result<Share, Broken> {
        Ok(Share::Done)
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        waits.add(CALLS, self.calls.edges.as_fd(), PollFlags::IN);
        if let Some(front) = &self.front {
            waits.add(SOCKET, front.as_fd(), PollFlags::IN);
        }
    }

    fn ready(&mut self, token: u32) -> Result<(), Broken> {
        if token == SOCKET {
            // We asked nothing.
            return Err(self.give_up(&TalkError::Gone));
        }
        let Some(active) = &self.active else { return Ok(()) };
        self.calls.each(|index| {
            self.counters.add(INTERRUPTS, 1);
            active.interrupt.queue(index);
        });
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Broken> {
        self.stop()
    }

    fn go_on(&mut self) -> Result<(), Broken> {
        self.talk(|front, starts| front.start_again(&starts))
    }

    fn reset(&mut self) {
        // One that failed is given up by now, and that is all that can be done.
        let _ = self.stop();
        self.active = None;
    }
}

impl Active {
    fn starts<'a>(&'a self, calls: &'a Calls) -> impl Iterator<Item = Start<'a>> {
        self.rings.iter().filter_map(|(index, rings, base)| {
            let (call, kick) = (calls.events.get(*index)?, self.kicks.get(*index)?);
            let (rings, base) = (*rings, *base);
            Some(Start { index: u32::try_from(*index).ok()?, rings, base, call, kick })
        })
    }
}

impl Calls {
    fn new(count: usize) -> io::Result<Self> {
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events: Vec<Event> = (0..count).map(|_| Event::new()).collect::<io::Result<_>>()?;
        for (index, event) in events.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&edges, event, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        }
        Ok(Self { events, edges })
    }

    /// Tells of each event that was written since the last time.
    fn each(&self, mut tell: impl FnMut(usize)) {
        let mut ready = [const { std::mem::MaybeUninit::uninit() }; 32];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted call is done again at the next turn.
        if let Ok((ready, _)) = epoll::wait(&self.edges, &mut ready, Some(&now)) {
            ready.iter().filter_map(|e| usize::try_from(e.data.u64()).ok()).for_each(&mut tell);
        }
    }
}

#[cfg(test)]
mod tests;
