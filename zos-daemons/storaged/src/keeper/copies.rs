//! The copies of the node's state: which pools carry them, what their headers are to say, where they are shown.
//!
//! ```text
//!  Set (the rule) ── Write ──▶ Inscribe ──▶ Inscribed ──▶ Set
//!       │                                                  │
//!       └── a copy to fill ──▶ Show at the free place ─────┴──▶ StateCopies, which the daemons follow
//! ```
//! What the set says is told only once it stands in the headers.

mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zos_api::local::User;
use zos_api::local::storage::{StateCopies, StateCopy};
use zos_types::Fault;
use zos_types::deployment::Class;

use super::{DiskKey, Entry, Job, Keeper, KnownCopy, Leading, Phase, RETRY, Work, sooner};
use crate::copies::set::{Copy, Loss};
use crate::copies::{Generation, Mark, Set, Write};
use crate::disk::header::{Header, Stage};
use crate::disk::judge::Verdict;
use crate::pool;

/// What the keeper knows of the copies.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// None: the state lies in memory, or it isn't known yet.
    set: Option<Set>,
    /// Where each pool's copy is shown.
    places: BTreeMap<String, usize>,
    /// The disks that the copies were on when they came.
    on: BTreeMap<String, DiskKey>,
    /// What an earlier storaged of this boot knew, until the set is known again.
    known: Vec<KnownCopy>,
    /// The pool whose header the set has written.
    writing: Option<String>,
    /// The pool that is being shown.
    showing: Option<String>,
    /// Whether a place is being emptied.
    hiding: bool,
    /// Why copies were lost, by pool.
    lost: BTreeMap<String, String>,
    /// When a pool that failed may be filled again.
    again: BTreeMap<String, Duration>,
}

impl Copies {
    pub(super) fn of(known: Vec<KnownCopy>) -> Self {
        Self { known, ..Self::default() }
    }
}

impl Keeper {
    /// Where the state's copies lie, once that is known.
    pub fn copies(&self) -> Option<StateCopies> {
        let settled = self.settled.as_ref()?;
        if !settled.durable {
            let (pool, coming) = (String::new(), String::new());
            let copy = StateCopy { pool, coming, path: settled.path.clone(), current: true };
            return Some(StateCopies { durable: false, copies: vec![copy] });
        }
        let set = self.copies.set.as_ref()?;
        let tell = |copy: &Copy, current| {
            if self.copies.showing.as_ref() == Some(&copy.pool) {
                return None;
            }
            let place = *self.copies.places.get(&copy.pool)?;
            let (pool, path) = (copy.pool.clone(), self.paths[place].clone());
            Some(StateCopy { pool, coming: copy.coming.to_string(), path, current })
        };
        let members = set.members().iter().filter_map(|copy| tell(copy, true));
        let filling = set.filling().and_then(|copy| tell(copy, false));
        Some(StateCopies { durable: true, copies: members.chain(filling).collect() })
    }

    /// The pools that the state lies on.
    pub(super) fn state_pools(&self) -> Option<Vec<String>> {
        let set = self.copies.set.as_ref()?;
        Some(set.members().iter().map(|copy| copy.pool.clone()).collect())
    }

    /// Whether a pool carries the state that is in use.
    pub(super) fn is_copy(&self, pool: &str) -> bool {
        let is_it = |copy: &KnownCopy| copy.pool == pool && copy.coming.is_some();
        self.copies.known.iter().any(is_it)
            || self.copies.set.as_ref().is_some_and(|set| set.coming(pool).is_some())
    }

    /// At a boot: the state is served from these from now on.
    pub(super) fn begin_copies(&mut self, lead: &Leading) {
        let Some(mark) = self.header_of(&lead.pool).map(Mark::of) else { return };
        let mut members = Vec::new();
        for (place, pool) in std::iter::once(&lead.pool).chain(&lead.second).enumerate() {
            members.push(Copy { pool: pool.clone(), coming: Generation::draw() });
            self.copies.places.insert(pool.clone(), place);
            self.note_disk(pool);
        }
        self.copies.set = Some(Set::new(mark, members));
    }

    fn note_disk(&mut self, pool: &str) {
        if let Some(key) = self.holder(pool).map(|entry| entry.key.clone()) {
            self.copies.on.insert(pool.to_owned(), key);
        }
    }

    fn header_of(&self, pool: &str) -> Option<&Header> {
        match &self.holder(pool)?.verdict {
            Some(Verdict::Ours(header)) => Some(header),
            _ => None,
        }
    }

    /// At a boot: the headers of those that are set aside are written, then that of the pool that goes on without
    /// another, and then it is opened.
    pub(super) fn renew(&mut self, mut lead: Leading, jobs: &mut Vec<Job>) {
        if let Some(pool) = lead.aside.pop() {
            let header = self.header_of(&pool);
            let write = header.map(|header| Write {
                pool: pool.clone(),
                mark: Mark::of(header).filling(),
                members: header.state_pools.clone(),
            });
            write.map(|write| self.inscribe(&write, jobs));
            self.phase = Phase::Renewing { lead, writing: pool };
        } else if let Some(mark) = lead.renewed.take() {
            self.inscribe_first(&lead.pool, *mark, jobs);
            self.phase = Phase::Renewing { writing: lead.pool.clone(), lead };
        } else {
            self.open_leading(lead, jobs);
        }
    }

    /// The header of the pool that goes on without another is written.
    pub(super) fn inscribe_first(&mut self, pool: &str, mark: Mark, jobs: &mut Vec<Job>) {
        let write = Write { pool: pool.to_owned(), mark, members: vec![pool.to_owned()] };
        self.inscribe(&write, jobs);
    }

    /// Writes a header, if its disk is here and no other is being written to it.
    fn inscribe(&mut self, write: &Write, jobs: &mut Vec<Job>) -> bool {
        let instead_of = self.instead_of();
        let Some(entry) = self.holder_mut(&write.pool) else {
            return false;
        };
        let Some(Verdict::Ours(header)) = &entry.verdict else { return false };
        let header = Header {
            state: true,
            copy: Some(write.mark.clone()),
            state_pools: write.members.clone(),
            instead_of: header.instead_of.clone().or(instead_of),
            ..(**header).clone()
        };
        jobs.push(Job::Inscribe(entry.key.clone(), Box::new(header)));
        entry.work = if entry.is_open() { Work::Open { owning: true } } else { Work::Owning };
        true
    }

    /// What the leading copies say they were made in place of: each copy says it.
    fn instead_of(&self) -> Option<Vec<zos_types::NodeId>> {
        let set = self.copies.set.as_ref()?;
        let headers = set.members().iter().filter_map(|copy| self.header_of(&copy.pool));
        headers.into_iter().find_map(|header| header.instead_of.clone())
    }

    pub(super) fn inscribed(
        &mut self,
        now: Duration,
        key: &DiskKey,
        result: Result<Box<Header>, String>,
    ) {
        let decides = matches!(&self.phase, Phase::Renewing { writing, .. }
            if self.holder(writing).is_some_and(|entry| &entry.key == key));
        let (mut pool, done) = (None, result.is_ok());
        if let Some(entry) = self.entry(key) {
            let open = entry.is_open();
            entry.work = if open { Work::Open { owning: false } } else { Work::None };
            if let Some(Verdict::Ours(header)) = &entry.verdict {
                pool = Some(header.pool.clone());
            }
            match result {
                Ok(header) => entry.verdict = Some(Verdict::Ours(header)),
                Err(error) if decides => entry.work = Work::Failed("mark", error),
                Err(error) => tracing::error!("{}: write the pool's header: {error}", key.name),
            }
        }
        if !done && let Some(pool) = &pool {
            self.copies.again.insert(pool.clone(), now + RETRY);
        }
        if self.copies.writing.is_some() && self.copies.writing == pool {
            self.copies.writing = None;
            if let Some(set) = &mut self.copies.set {
                set.written(done);
            }
        }
    }

    pub(super) fn shown(&mut self, now: Duration, pool: &str, result: Result<(), String>) {
        if let Phase::Showing { lead } = &self.phase {
            let lead = lead.clone();
            self.copies.showing = None;
            match result {
                Ok(()) => self.has_settled(Some(&lead), None),
                Err(error) => {
                    tracing::error!("show the state's other copy: {error}");
                    if let Some(entry) = self.holder_mut(pool) {
                        entry.work = Work::Failed("mount", error);
                    }
                    self.phase = Phase::Settling;
                }
            }
            return;
        }
        if self.copies.showing.as_deref() == Some(pool) {
            self.copies.showing = None;
        }
        match result {
            Ok(()) => {}
            Err(error) => self.lose(now, pool, error),
        }
    }

    pub(super) fn hidden(&mut self, place: usize, result: Result<(), String>) {
        self.copies.hiding = false;
        self.copies.places.retain(|_, used| *used != place);
        if let Err(error) = result {
            tracing::warn!("hide a lost copy of the state: {error}");
        }
    }

    pub(super) fn state_lost(&mut self, now: Duration, pool: &str, coming: &str, reason: String) {
        let set = self.copies.set.as_ref();
        let known = set.and_then(|set| set.coming(pool)).map(|coming| coming.to_string());
        if known.as_deref() == Some(coming) {
            self.lose(now, pool, reason);
        }
    }

    fn lose(&mut self, now: Duration, pool: &str, reason: String) {
        let Some(set) = &mut self.copies.set else { return };
        let loss = set.lose(pool);
        tracing::error!("the copy of the state on pool {pool} is lost ({loss:?}): {reason}");
        if loss != Loss::Last {
            self.copies.lost.insert(pool.to_owned(), reason);
            self.copies.again.insert(pool.to_owned(), now + RETRY);
        }
    }

    pub(super) fn state_joined(&mut self, pool: &str, coming: &str, who: User) {
        if let (Some(set), Ok(coming)) = (&mut self.copies.set, coming.parse()) {
            set.joined(pool, coming, who);
        }
    }

    /// Brings the headers and the places to what the set says, one step at a time.
    pub(super) fn keep_copies(
        &mut self,
        now: Duration,
        jobs: &mut Vec<Job>,
        wake: &mut Option<Duration>,
    ) {
        match self.phase.clone() {
            Phase::Renewing { lead, writing } => {
                // One that can't be set aside is looked past at the next look, as unreadable.
                let another = writing != lead.pool;
                match self.holder(&writing).map(|entry| entry.work.clone()) {
                    Some(Work::None | Work::Open { owning: false }) => self.renew(lead, jobs),
                    Some(Work::Failed(_, error)) => {
                        let why = format!("the state's disk can't be written to: {error}");
                        self.led_in_vain(another, why, jobs);
                    }
                    None => {
                        let why = "the disk with the node's state went away".to_owned();
                        self.led_in_vain(another, why, jobs);
                    }
                    Some(_) => {}
                }
                if let Phase::Settling = self.phase {
                    sooner(wake, now);
                }
            }
            Phase::Showing { lead } if self.copies.showing.is_none() => {
                self.copies.showing.clone_from(&lead.second);
                jobs.extend(lead.second.map(|pool| Job::Show(pool, 1)));
            }
            Phase::Settled { pool: Some(_) } => {
                self.resume(now, jobs, wake);
                self.see_losses(now);
                self.write_next(jobs);
                self.hide_lost(jobs);
                self.fill(now, jobs, wake);
                self.show_filling(jobs);
                self.write_records(now, jobs, wake);
            }
            _ => {}
        }
    }

    /// Copies whose disks went.
    fn see_losses(&mut self, now: Duration) {
        let Some(set) = &self.copies.set else { return };
        if set.members().len() == 2 {
            self.copies.lost.clear();
        }
        let went = |pool: &&str| {
            let here = self.holder(pool).map(|entry| &entry.key);
            self.copies.on.get(*pool).is_some_and(|on| here != Some(on))
        };
        let leaves = |pool: &str| {
            self.header_of(pool).is_some_and(|h| h.stage == Stage::Leaving) && self.may_leave(pool)
        };
        let all = set.members().iter().chain(set.filling()).map(|copy| &*copy.pool);
        let why = |pool: &str| {
            let left = leaves(pool).then_some("its disk is being released");
            went(&pool).then_some("its disk went away").or(left)
        };
        let lost: Vec<(String, &str)> =
            all.filter_map(|pool| Some((pool.to_owned(), why(pool)?))).collect();
        for (pool, why) in lost {
            let told = self.copies.again.get(&pool).is_some_and(|again| *again > now);
            if !told || !self.copies.lost.contains_key(&pool) {
                self.lose(now, &pool, why.to_owned());
                // It may come again at any time.
                self.copies.again.insert(pool, now);
            }
        }
    }

    fn write_next(&mut self, jobs: &mut Vec<Job>) {
        while self.copies.writing.is_none() {
            let busy: BTreeSet<String> = self
                .entries
                .values()
                .filter(|entry| matches!(entry.work, Work::Open { owning: true } | Work::Owning))
                .filter_map(|entry| entry.header().map(|header| header.pool.clone()))
                .collect();
            let Some(set) = &mut self.copies.set else { return };
            let mut next = set.clone();
            let write = next.next(Generation::draw());
            if write.as_ref().is_some_and(|write| busy.contains(&write.pool)) {
                return;
            }
            *set = next;
            let Some(write) = write else { return };
            self.begin_write(&write, jobs);
        }
    }

    fn begin_write(&mut self, write: &Write, jobs: &mut Vec<Job>) {
        if self.inscribe(write, jobs) {
            self.copies.writing = Some(write.pool.clone());
        } else if let Some(set) = &mut self.copies.set {
            set.written(false);
        }
    }

    /// What is lost, and told as lost, is shown no longer: else its file system would live on, and the disk could
    /// neither be given back nor be known again when it comes back.
    fn hide_lost(&mut self, jobs: &mut Vec<Job>) {
        let Some(set) = &self.copies.set else { return };
        if self.copies.hiding || self.copies.showing.is_some() {
            return;
        }
        let lost = self.copies.places.iter().find(|(pool, _)| set.coming(pool).is_none());
        if let Some((_, place)) = lost {
            self.copies.hiding = true;
            jobs.push(Job::Hide(*place));
        }
    }

    /// Whether a pool is or was a copy whose place is shown still.
    pub(super) fn is_shown(&self, pool: &str) -> bool {
        let known = self.copies.known.iter().any(|copy| copy.pool == pool);
        known || self.copies.places.contains_key(pool)
    }

    /// Another pool becomes a copy when one is missed: one that was, solid state before rotating, the larger.
    fn fill(&mut self, now: Duration, jobs: &mut Vec<Job>, wake: &mut Option<Duration>) {
        let Some(set) = self.copies.set.as_ref().filter(|set| set.is_open()) else { return };
        let lead = set.members()[0].pool.clone();
        let Some((node, false)) = self.node else { return };
        // A copy without an owner would be another node's, or nobody's, at the next boot.
        if self.header_of(&lead).and_then(|header| header.owner) != Some(node) {
            return;
        }
        let fits = |entry: &&Entry| {
            let Some(header) = entry.header() else { return false };
            let idle = entry.work == Work::Open { owning: false };
            let mark = header.state.then(|| Mark::of(header));
            let other = set.coming(&header.pool).is_none() && header.owner == Some(node);
            idle && other && entry.may_carry() && set.takes(mark.as_ref())
        };
        let rank = |entry: &&Entry| {
            let was = entry.header().is_some_and(|header| header.state);
            (was, pool::class(&entry.disk) == Class::Ssd, entry.disk.size)
        };
        let mut candidates: Vec<&Entry> = self.entries.values().filter(fits).collect();
        candidates.retain(|entry| self.single(entry));
        // Where an earlier coming of it was is over first.
        candidates.retain(|entry| entry.header().is_some_and(|h| !self.is_shown(&h.pool)));
        candidates.sort_by_key(rank);
        let mut chosen = None;
        for entry in candidates.into_iter().rev() {
            let Some(header) = entry.header() else { continue };
            match self.copies.again.get(&header.pool) {
                Some(again) if *again > now => sooner(wake, *again),
                _ => {
                    chosen = Some(header.pool.clone());
                    break;
                }
            }
        }
        let Some(pool) = chosen else { return };
        self.note_disk(&pool);
        let copy = Copy { pool, coming: Generation::draw() };
        let write = self.copies.set.as_mut().and_then(|set| set.fill(copy));
        if let Some(write) = write {
            tracing::info!("pool {} becomes a copy of the state", write.pool);
            self.begin_write(&write, jobs);
        }
    }

    /// Whether the state can do without this pool's copy: another one holds all of it.
    pub(super) fn may_leave(&self, pool: &str) -> bool {
        let Some(set) = &self.copies.set else { return false };
        set.members().iter().any(|copy| copy.pool != pool)
    }

    fn single(&self, entry: &Entry) -> bool {
        let pool = entry.header().map_or("", |header| &header.pool);
        self.entries.values().filter(|other| other.holds(pool)).count() == 1
    }

    fn show_filling(&mut self, jobs: &mut Vec<Job>) {
        let Some(set) = &self.copies.set else { return };
        let Some(filling) = set.filling().map(|copy| copy.pool.clone()) else { return };
        let taken: Vec<&String> = set.members().iter().map(|copy| &copy.pool).collect();
        let busy = self.copies.showing.is_some() || self.copies.hiding;
        if busy || self.copies.places.contains_key(&filling) {
            return;
        }
        self.copies.places.retain(|pool, _| taken.contains(&pool));
        let used: Vec<usize> = self.copies.places.values().copied().collect();
        let place = usize::from(used.contains(&0));
        self.copies.showing = Some(filling.clone());
        jobs.push(Job::Show(filling.clone(), place));
        self.copies.places.insert(filling, place);
    }

    /// What other pools say of where the state lies; and one that is behind, and isn't needed, says so.
    fn write_records(&mut self, now: Duration, jobs: &mut Vec<Job>, wake: &mut Option<Duration>) {
        let Some(set) = &self.copies.set else { return };
        if set.filling().is_some() || self.copies.writing.is_some() {
            return;
        }
        let Some((node, false)) = self.node else { return };
        let members: Vec<String> = set.members().iter().map(|copy| copy.pool.clone()).collect();
        let full = members.len() == 2;
        let mut due = Vec::new();
        for entry in self.entries.values().filter(|e| e.work == Work::Open { owning: false }) {
            let Some(header) = entry.header().filter(|header| header.owner == Some(node)) else {
                continue;
            };
            if members.contains(&header.pool) || !self.single(entry) {
                continue;
            }
            let leaving = header.stage == Stage::Leaving;
            let retires = header.state && (full || leaving) && set.takes(Some(&Mark::of(header)));
            let outdated = !header.state && header.state_pools != members;
            if !retires && !outdated {
                continue;
            }
            match self.copies.again.get(&header.pool) {
                Some(again) if *again > now => sooner(wake, *again),
                _ => due.push(Header {
                    state: false,
                    copy: None,
                    state_pools: members.clone(),
                    ..header.clone()
                }),
            }
        }
        for header in due {
            if let Some(entry) = self.holder_mut(&header.pool) {
                entry.work = Work::Open { owning: true };
                jobs.push(Job::Inscribe(entry.key.clone(), Box::new(header)));
            }
        }
    }

    pub(super) fn copy_faults(&self) -> Vec<Fault> {
        let Some(set) = &self.copies.set else { return Vec::new() };
        let mut faults = Vec::new();
        if let [only] = set.members()
            && !set.mark().past.is_empty()
        {
            let why: Vec<String> =
                self.copies.lost.iter().map(|(pool, why)| format!("pool {pool}: {why}")).collect();
            let why = if why.is_empty() { "one was not here".into() } else { why.join("; ") };
            let waits: Vec<String> = set.waits().map(|user| format!("{user:?}")).collect();
            let next = match set.filling() {
                Some(copy) => format!("pool {} is being filled ({})", copy.pool, waits.join(", ")),
                None => "connect its disk again, or an empty one".to_owned(),
            };
            faults.push(Fault::new(
                "storage.state-copy-lost",
                format!("the node's state lies on pool {} alone ({why}); {next}", only.pool),
            ));
        }
        for entry in self.entries.values() {
            let Some(header) = entry.header().filter(|header| header.state) else { continue };
            let mark = Mark::of(header);
            let ours = header.owner.is_some() && header.owner == self.node.map(|(node, _)| node);
            if !ours || set.coming(&header.pool).is_some() || set.takes(Some(&mark)) {
                continue;
            }
            faults.push(Fault::new(
                format!("storage.state-conflict:{}", entry.key.name),
                format!(
                    "the disk holds a state of this node that went on without the one in use, and is left \
                     alone; to go on with it instead, set zos.state={} and boot; to give it up, remove it \
                     and wipe it elsewhere",
                    mark.generation
                ),
            ));
        }
        faults
    }
}
