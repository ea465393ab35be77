//! The keeper: what is known of each disk, and what is to be done next. It does nothing itself.
//!
//! ```text
//!  per disk   Probing ─▶ judged ─▶ (blank: Sampling) ─▶ Adopting | Opening ─▶ Open
//!  the node   Settling ─▶ Choosing an empty disk | Opening the state ─▶ Preparing ─▶ Settled
//!
//!  handle(now, event) ─▶ jobs         a job ends with an event, on the same disk it began with
//! ```
//! Time and results are passed in, so that boots can be played through without a disk.

mod boot;
mod copies;
mod farmer;
mod report;
mod running;

use std::collections::BTreeMap;
use std::time::Duration;

use zos_api::local::User;
use zos_api::local::storage::Settled;
use zos_daemon::{Config, Reader};
use zos_host::block::{self, Kind};
use zos_types::NodeId;

use crate::copies::{Generation, Mark};
use crate::disk::header::{Header, Stage};
use crate::disk::judge::Verdict;
use crate::disk::marks::Marks;
use crate::pool::{self, Plan, Pool};
use crate::settle::Wanted;

use self::copies::Copies;
use self::farmer::Drain;
pub use self::farmer::Subject;

/// A disk that could not be read is tried again after this time.
const RETRY: Duration = Duration::from_secs(60);

/// What the farmer says, in the settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `zos.disk.adopt`: whether an empty disk is taken.
    pub adopt: bool,
    /// `zos.identity`.
    pub wanted: Wanted,
    /// `zos.state`: which history of the node's state leads, where the disks leave it open.
    pub state: Option<Generation>,
}

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let adopt = match reader.text("disk.adopt") {
            None => true,
            // A word that makes no sense takes no disk.
            Some(_) => {
                reader.choice("disk.adopt", &[("empty", true), ("none", false)]).unwrap_or(false)
            }
        };
        let wanted = reader.with("identity", "write `new` or a node's id", |text| match text {
            "new" => Some(Wanted::New),
            id => id.parse().ok().map(Wanted::Node),
        });
        let state = reader.with("state", "write 16 hexadecimal digits", |text| text.parse().ok());
        Self { adopt, wanted: wanted.unwrap_or(Wanted::Unsaid), state }
    }
}

/// A disk that came once; if it goes and comes again, it is another one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DiskKey {
    /// The kernel's name.
    pub name: String,
    /// Counts the comings.
    pub coming: u64,
}

/// News.
#[derive(Debug)]
pub enum Event {
    /// The disks that are here now, and those that went since, by name.
    Disks(Vec<block::Disk>, Vec<String>),
    /// A probe or a sampling ended.
    Judged(DiskKey, Verdict),
    /// What lies where on a disk was looked at.
    Marked(DiskKey, Marks),
    /// An adoption or an opening ended.
    Opened(DiskKey, Result<Box<Pool>, String>),
    /// A pool was given an owner.
    Owned(DiskKey, Result<Box<Header>, String>),
    /// The place of the state is ready, or why not.
    Prepared(Result<(), String>),
    /// A taking over ended.
    Taken(DiskKey, Result<Box<Pool>, NotTaken>),
    /// A pool was emptied, or what stays on it.
    Drained(DiskKey, Result<(), String>),
    /// How far the emptying or wiping of a disk is.
    Told(DiskKey, String),
    /// A disk was wiped.
    Wiped(DiskKey, Result<Box<Header>, String>),
    /// The farmer takes a disk over, by the hash of a plan.
    Take(DiskKey, String),
    /// The farmer gives a disk back.
    Release(DiskKey),
    /// The header of a pool was written, or why not.
    Inscribed(DiskKey, Result<Box<Header>, String>),
    /// The second place of the state is ready, or why not.
    Shown(String, Result<(), String>),
    /// A place of the state is empty again, or why not.
    Hidden(usize, Result<(), String>),
    /// A copy of the state failed: its pool, which coming, and what failed.
    StateLost(String, String, String),
    /// A daemon's part of a copy is whole: its pool, and which coming.
    StateJoined(String, String, User),
    /// identityd knows who the node is.
    Identity(NodeId, bool),
    /// Time passed.
    Tick,
}

/// Why a disk was not taken over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotTaken {
    /// Nothing was written; why.
    Refused(String),
    /// It went wrong half-way.
    Failed(String),
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Judge a disk by its ends.
    Probe(DiskKey),
    /// Judge a disk completely.
    Sample(DiskKey),
    /// Look what lies where on it, for people.
    Mark(DiskKey),
    /// Make a pool on it.
    Adopt(DiskKey, Plan),
    /// Make a pool over what is on it, if it is as in the plan of this hash.
    Take(DiskKey, Plan, String),
    /// Write into its header that the pool leaves.
    Leave(DiskKey, Box<Header>),
    /// Empty this pool on it.
    Drain(DiskKey, String),
    /// Wipe the disk of an empty pool.
    Wipe(DiskKey, Box<Header>),
    /// Open the pool on it.
    Open(DiskKey, Box<Header>),
    /// Give the pool on it an owner.
    Own(DiskKey, Box<Header>, NodeId),
    /// Show the state of this pool (none: memory) at its place.
    Prepare(Option<String>),
    /// Write this header of the pool on it.
    Inscribe(DiskKey, Box<Header>),
    /// Show another copy of the state, on this pool, at this place.
    Show(String, usize),
    /// Show nothing at this place any more: the copy there is lost, and its disk may go or come again.
    Hide(usize),
}

/// What goes on with a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Work {
    None,
    Probing,
    Sampling,
    Adopting,
    Opening,
    /// In use; while an owner is written too.
    Open {
        owning: bool,
    },
    Owning,
    Wiping,
    /// It went wrong and is not tried again while the disk stays.
    Failed(&'static str, String),
}

/// A disk.
#[derive(Debug)]
struct Entry {
    disk: block::Disk,
    key: DiskKey,
    arrived: Duration,
    boot_medium: bool,
    verdict: Option<Verdict>,
    judged: Duration,
    marks: Look,
    work: Work,
    drain: Drain,
}

/// What is known of a disk's marks.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Look {
    /// Nothing, or what was known has changed.
    Due,
    /// They are being looked at.
    Begun,
    /// They changed since that began.
    Again,
    Done(Marks),
}

/// Where the boot stands.
#[derive(Clone, Debug)]
enum Phase {
    Settling,
    /// An empty disk is wanted for the state.
    Choosing {
        instead_of: Option<Vec<NodeId>>,
    },
    /// Headers are being written: of pools that are set aside, then of the one that goes on without them.
    Renewing {
        lead: Leading,
        writing: String,
    },
    /// The state's pools are being opened.
    Opening {
        lead: Leading,
    },
    /// Their places are being prepared.
    Preparing {
        lead: Option<Leading>,
        refusal: Option<String>,
    },
    Showing {
        lead: Leading,
    },
    Settled {
        pool: Option<String>,
    },
}

/// The pools that the state is to lie on.
#[derive(Clone, Debug)]
struct Leading {
    pool: String,
    second: Option<String>,
    renewed: Option<Box<Mark>>,
    aside: Vec<String>,
    refusal: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    boot_partition: Option<String>,
    entries: BTreeMap<String, Entry>,
    comings: u64,
    listed: bool,
    phase: Phase,
    settled: Option<Settled>,
    node: Option<(NodeId, bool)>,
    /// Open pools whose disks went away, with the disk's name.
    gone: BTreeMap<String, String>,
    /// The state's places.
    paths: [String; 2],
    copies: Copies,
}

/// What outlives a restart of storaged within one boot.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// What was answered to `Settle`.
    pub settled: Settled,
    /// The pool that the state lies on.
    pub pool: Option<String>,
    /// The node's identity, and whether it is lost with the next boot.
    pub node: Option<(NodeId, bool)>,
    /// The copies of the state.
    #[serde(default)]
    pub copies: Vec<KnownCopy>,
}

/// A copy of the state that is shown.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct KnownCopy {
    /// Its pool.
    pub pool: String,
    /// Which coming of the pool is in use; none: the copy is lost, and its place is still to be emptied.
    pub coming: Option<Generation>,
    /// At which of the state's places it is shown.
    pub place: usize,
}

impl Keeper {
    /// A keeper at the begin of a boot or, with a memory, in the midst of one. `boot_partition` is
    /// the unique id of the partition that the firmware booted from.
    pub fn new(
        settings: Settings,
        boot_partition: Option<String>,
        paths: [String; 2],
        memory: Option<Memory>,
    ) -> Self {
        let (phase, settled, node, known) = match memory {
            Some(Memory { settled, pool, node, copies }) => {
                (Phase::Settled { pool }, Some(settled), node, copies)
            }
            None => (Phase::Settling, None, None, Vec::new()),
        };
        Self {
            settings,
            boot_partition,
            entries: BTreeMap::new(),
            comings: 0,
            listed: false,
            phase,
            settled,
            node,
            gone: BTreeMap::new(),
            paths,
            copies: Copies::of(known),
        }
    }

    /// What `Settle` answers, once it does.
    pub fn settled(&self) -> Option<&Settled> {
        self.settled.as_ref()
    }

    /// What a restarted storaged must know.
    pub fn memory(&self) -> Option<Memory> {
        let Phase::Settled { pool } = &self.phase else { return None };
        let settled = self.settled.clone()?;
        Some(Memory { settled, pool: pool.clone(), node: self.node, copies: self.known_copies() })
    }

    /// The node's identity, and whether it is lost with the next boot.
    pub fn node(&self) -> Option<(NodeId, bool)> {
        self.node
    }

    /// A disk by its key, if it is still the same.
    pub fn disk(&self, key: &DiskKey) -> Option<&block::Disk> {
        self.entries.get(&key.name).filter(|entry| &entry.key == key).map(|entry| &entry.disk)
    }

    /// Every disk that is here, and the open pool on it.
    pub fn present(&self) -> impl Iterator<Item = (&DiskKey, &block::Disk, Option<&str>)> {
        self.entries.values().map(|entry| {
            let pool = match (&entry.work, &entry.verdict) {
                (Work::Open { .. }, Some(Verdict::Ours(header))) => Some(&*header.pool),
                _ => None,
            };
            (&entry.key, &entry.disk, pool)
        })
    }

    /// Pools that were open when their disks went, once each.
    pub fn is_gone(&self, pool: &str) -> bool {
        self.gone.contains_key(pool)
    }

    /// Whether each pool that is here is open, as far as it can be: then what isn't found isn't there.
    pub fn is_steady(&self) -> bool {
        let settled = matches!(self.phase, Phase::Settled { .. });
        let waits = |entry: &Entry| {
            let pending = entry.verdict.is_none() && !entry.boot_medium;
            pending || matches!(entry.work, Work::Opening | Work::Owning)
        };
        settled && self.listed && self.node.is_some() && !self.entries.values().any(waits)
    }

    /// Takes in what happened and says what to do now, and when to look again at the latest.
    pub fn handle(&mut self, now: Duration, event: Event) -> (Vec<Job>, Option<Duration>) {
        let mut jobs = Vec::new();
        self.take(now, event, &mut jobs);
        let mut wake = None;
        self.look(now, &mut jobs, &mut wake);
        self.decide(now, &mut jobs, &mut wake);
        self.use_disks(&mut jobs);
        self.release(now, &mut jobs, &mut wake);
        self.keep_copies(now, &mut jobs, &mut wake);
        self.mark(&mut jobs);
        (jobs, wake)
    }

    fn take(&mut self, now: Duration, event: Event, jobs: &mut Vec<Job>) {
        match event {
            Event::Disks(disks, gone) => self.take_disks(now, disks, &gone),
            Event::Judged(key, verdict) => {
                if let Some(entry) = self.entry(&key) {
                    entry.work = Work::None;
                    entry.judged = now;
                    entry.look_again();
                    tracing::info!("{}: {verdict}", key.name);
                    entry.verdict = Some(verdict);
                }
            }
            Event::Marked(key, marks) => {
                if let Some(entry) = self.entry(&key) {
                    let again = entry.marks == Look::Again;
                    entry.marks = if again { Look::Due } else { Look::Done(marks) };
                }
            }
            Event::Opened(key, result) => {
                if let Some(entry) = self.entry(&key) {
                    entry.look_again();
                    match result {
                        Ok(pool) => {
                            entry.work = Work::Open { owning: false };
                            entry.verdict = Some(Verdict::Ours(Box::new(pool.header)));
                        }
                        Err(error) => {
                            let what = if entry.work == Work::Adopting { "adopt" } else { "mount" };
                            entry.work = Work::Failed(what, error);
                        }
                    }
                }
            }
            Event::Owned(key, result) => {
                if let Some(entry) = self.entry(&key) {
                    let was_open = matches!(entry.work, Work::Open { .. });
                    match result {
                        Ok(header) => {
                            entry.work =
                                if was_open { Work::Open { owning: false } } else { Work::None };
                            entry.verdict = Some(Verdict::Ours(header));
                        }
                        // An open pool stays in use; its owner is written at the next boot.
                        Err(error) if was_open => tracing::warn!("{}: {error}", key.name),
                        Err(error) => entry.work = Work::Failed("own", error),
                    }
                }
            }
            Event::Taken(key, result) => {
                if let Some(entry) = self.entry(&key) {
                    match result {
                        Ok(pool) => {
                            entry.work = Work::Open { owning: false };
                            entry.verdict = Some(Verdict::Ours(Box::new(pool.header)));
                        }
                        // Whatever changed: it is looked at anew.
                        Err(NotTaken::Refused(_)) => {
                            entry.work = Work::None;
                            entry.verdict = None;
                        }
                        Err(NotTaken::Failed(error)) => entry.work = Work::Failed("adopt", error),
                    }
                }
            }
            Event::Drained(key, result) => jobs.extend(self.drained(now, &key, result)),
            Event::Told(key, words) => self.told(&key, words),
            Event::Wiped(key, result) => self.wiped(now, &key, result),
            Event::Take(key, word) => jobs.extend(self.take_over(&key, word)),
            Event::Release(key) => jobs.extend(self.give_back(&key)),
            Event::Prepared(result) => self.prepared(result),
            Event::Inscribed(key, result) => self.inscribed(now, &key, result),
            Event::Shown(pool, result) => self.shown(now, &pool, result),
            Event::Hidden(place, result) => self.hidden(place, result),
            Event::StateLost(pool, coming, reason) => self.state_lost(now, &pool, &coming, reason),
            Event::StateJoined(pool, coming, who) => self.state_joined(&pool, &coming, who),
            Event::Identity(node, ephemeral) => self.node = Some((node, ephemeral)),
            Event::Tick => {}
        }
    }

    fn entry(&mut self, key: &DiskKey) -> Option<&mut Entry> {
        self.entries.get_mut(&key.name).filter(|entry| &entry.key == key)
    }

    fn take_disks(&mut self, now: Duration, disks: Vec<block::Disk>, gone: &[String]) {
        self.listed = true;
        // A name that is used again may be another disk's, and a medium may leave its reader: news
        // of that can be lost when many come at once.
        let is_here = |entry: &Entry| {
            let same =
                |disk: &&block::Disk| disk.name == entry.key.name && disk.id == entry.disk.id;
            disks.iter().find(same).is_some_and(|disk| disk.size > 0)
        };
        let lost: Vec<String> = self
            .entries
            .iter()
            .filter(|(name, entry)| gone.contains(name) || !is_here(entry))
            .map(|(name, _)| name.clone())
            .collect();
        for name in lost {
            let Some(entry) = self.entries.remove(&name) else { continue };
            tracing::warn!("{name} is gone");
            if let (Work::Open { .. }, Some(Verdict::Ours(header))) = (&entry.work, &entry.verdict)
            {
                self.gone.insert(header.pool.clone(), name);
            }
        }
        for disk in disks {
            if disk.kind != Kind::Disk || disk.size == 0 || self.entries.contains_key(&disk.name) {
                continue;
            }
            self.comings += 1;
            let key = DiskKey { name: disk.name.clone(), coming: self.comings };
            let boot_medium = disk.removable && disk.read_only
                || disk.partitions.iter().any(|partition| {
                    partition.uuid.is_some() && partition.uuid == self.boot_partition
                });
            self.entries.insert(
                disk.name.clone(),
                Entry {
                    disk,
                    key,
                    arrived: now,
                    boot_medium,
                    verdict: None,
                    judged: now,
                    marks: Look::Due,
                    work: Work::None,
                    drain: Drain::default(),
                },
            );
        }
    }

    /// Reads what wasn't read yet, and again what could not be.
    fn look(&mut self, now: Duration, jobs: &mut Vec<Job>, wake: &mut Option<Duration>) {
        for entry in self.entries.values_mut() {
            if entry.work != Work::None || entry.boot_medium {
                continue;
            }
            match &entry.verdict {
                None => {
                    entry.work = Work::Probing;
                    jobs.push(Job::Probe(entry.key.clone()));
                }
                Some(Verdict::Unreadable(_)) if now >= entry.judged + RETRY => {
                    entry.work = Work::Probing;
                    jobs.push(Job::Probe(entry.key.clone()));
                }
                Some(Verdict::Unreadable(_)) => sooner(wake, entry.judged + RETRY),
                Some(Verdict::Blank) if self.settings.adopt && entry.fits() => {
                    entry.work = Work::Sampling;
                    jobs.push(Job::Sample(entry.key.clone()));
                }
                Some(_) => {}
            }
        }
    }

    /// Looks what lies where, once the node has its state: no boot waits for what people read.
    fn mark(&mut self, jobs: &mut Vec<Job>) {
        if !matches!(self.phase, Phase::Settled { .. }) {
            return;
        }
        let quiet = |entry: &&mut Entry| {
            let judged = entry.verdict.is_some() || entry.boot_medium;
            let changing = matches!(entry.work, Work::Probing | Work::Adopting | Work::Opening);
            entry.marks == Look::Due && judged && !changing
        };
        for entry in self.entries.values_mut().filter(quiet) {
            entry.marks = Look::Begun;
            jobs.push(Job::Mark(entry.key.clone()));
        }
    }

    /// The disk with a pool: of two that have it, the one in use.
    fn holder(&self, pool: &str) -> Option<&Entry> {
        let holders = self.entries.values().filter(|entry| entry.holds(pool));
        holders.max_by_key(|entry| entry.is_open())
    }

    fn holder_mut(&mut self, pool: &str) -> Option<&mut Entry> {
        let holders = self.entries.values_mut().filter(|entry| entry.holds(pool));
        holders.max_by_key(|entry| entry.is_open())
    }

    /// Whether a disk is taken unasked: an empty one by the policy, one that the farmer gave and that a cut left
    /// unfinished by his word. That holds for the node that he gave it to.
    fn may_adopt(&self, entry: &Entry) -> bool {
        let node = self.node.map(|(node, _)| node);
        let may = match &entry.verdict {
            Some(Verdict::Empty) => self.settings.adopt,
            Some(Verdict::Unfinished(header)) if header.over.is_some() => {
                header.owner.is_none() || header.owner == node
            }
            Some(Verdict::Unfinished(_)) => self.settings.adopt,
            _ => false,
        };
        may && entry.fits() && entry.work == Work::None
    }
}

impl Entry {
    /// What lies on the disk may be something else now.
    fn look_again(&mut self) {
        let begun = matches!(self.marks, Look::Begun | Look::Again);
        self.marks = if begun { Look::Again } else { Look::Due };
    }

    /// Whether the disk could be a pool, were it empty.
    fn fits(&self) -> bool {
        self.misfit().is_none()
    }

    fn misfit(&self) -> Option<String> {
        let disk = &self.disk;
        if disk.size < pool::SMALLEST {
            Some(format!("it is smaller than {}", zos_types::Bytes(pool::SMALLEST)))
        } else if disk.read_only {
            Some("it refuses writes".to_owned())
        } else if !disk.holders.is_empty() {
            Some(format!("it is in use by {}", disk.holders.join(", ")))
        } else if !matches!(disk.logical_block, 512 | 4096) {
            Some(format!("it has blocks of {} bytes", disk.logical_block))
        } else {
            None
        }
    }

    /// The header of the pool on it.
    fn header(&self) -> Option<&Header> {
        match &self.verdict {
            Some(Verdict::Ours(header)) => Some(header),
            _ => None,
        }
    }

    /// Whether the pool on it is in use.
    fn is_open(&self) -> bool {
        matches!(self.work, Work::Open { .. })
    }

    /// Whether a copy of the state may be put on it.
    fn may_carry(&self) -> bool {
        let ready = self.header().is_some_and(|header| header.stage == Stage::Ready);
        ready && !self.disk.read_only
    }

    fn holds(&self, pool: &str) -> bool {
        matches!(&self.verdict, Some(Verdict::Ours(header)) if header.pool == pool)
    }
}

fn sooner(wake: &mut Option<Duration>, at: Duration) {
    *wake = Some(wake.map_or(at, |wake| wake.min(at)));
}

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod tests;
