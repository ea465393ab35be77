//! The farmer's word: which disk may be taken over or given back, and what becomes of it.
//!
//! ```text
//!  take      idle, not in use by us ─▶ Take ─▶ Open | nothing was written: judged again | Failed
//!  release   Open ─▶ header "leaving" ─▶ Drain, again and again ─▶ Wipe ─▶ Released: empty, and left alone
//! ```
//! Both go on after a restart and after a reboot: the pool's header says how far they are.

use std::time::Duration;

use zos_host::block;
use zos_types::disk::Disk;

use super::{DiskKey, Entry, Job, Keeper, Phase, RETRY, Work, sooner};
use crate::disk::header::{Header, Stage};
use crate::disk::judge::Verdict;
use crate::pool::Plan;

/// A disk that the farmer speaks of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which coming of it.
    pub key: DiskKey,
    /// As the kernel shows it.
    pub disk: block::Disk,
    /// As it is told.
    pub report: Disk,
    /// Its pool, if it is in use.
    pub pool: Option<String>,
}

/// How far a pool is emptied.
#[derive(Clone, Debug, Default)]
pub(super) struct Drain {
    /// Whether it is being worked on.
    busy: bool,
    /// When it is tried again, if something stayed.
    again: Option<Duration>,
    /// How far it is, or what stayed, in words.
    pub(super) told: String,
}

impl Keeper {
    /// A disk by the kernel's name or by its stable id.
    pub fn subject(&self, disk: &str) -> Option<Subject> {
        let named = self.entries.get(disk);
        let entry = named.or_else(|| self.entries.values().find(|entry| entry.disk.id == disk))?;
        let open = matches!(entry.work, Work::Open { .. });
        let pool = entry.header().filter(|_| open).map(|header| header.pool.clone());
        let (key, disk) = (entry.key.clone(), entry.disk.clone());
        Some(Subject { key, disk, report: self.disk_report(entry), pool })
    }

    /// What a pool over this disk would be, or why the disk can't be taken over.
    pub fn may_take(&self, key: &DiskKey) -> Result<Plan, String> {
        let name = &key.name;
        let entry = self.entries.get(name).filter(|entry| &entry.key == key);
        let entry = entry.ok_or_else(|| format!("{name} is gone"))?;
        if entry.boot_medium {
            return Err(format!("{name} is what the node was booted from"));
        }
        if let Some(misfit) = entry.misfit() {
            return Err(format!("{name} can't be a pool: {misfit}"));
        }
        match (&entry.verdict, &entry.work) {
            (_, Work::Open { .. } | Work::Opening | Work::Owning) => {
                return Err(format!(
                    "{name} holds a pool of this node; `zos disk release {name}` empties it first"
                ));
            }
            (_, Work::Adopting | Work::Probing | Work::Sampling | Work::Wiping) | (None, _) => {
                return Err(format!("{name} is being worked on; ask again in a moment"));
            }
            (Some(Verdict::Ours(header)), Work::None)
                if !self.is_other(entry, header) && !self.is_doubled(entry) =>
            {
                return Err(format!("{name} holds a pool of this node, which is not open yet"));
            }
            _ => {}
        }
        let Phase::Settled { pool } = &self.phase else {
            return Err("the disks have not settled yet; ask again in a minute".to_owned());
        };
        let owner = self.node.and_then(|(node, ephemeral)| (!ephemeral).then_some(node));
        if pool.is_some() && owner.is_none() {
            return Err("the node's identity is not known yet; ask again in a minute".to_owned());
        }
        // Without a disk for the state the first one that is given becomes it, at the next boot.
        let waiting = self.entries.values().filter_map(Entry::header);
        let waiting = waiting.filter(|header| header.owner.is_none() && header.state);
        let waiting: Vec<String> = waiting.map(|header| header.pool.clone()).collect();
        let state = pool.is_none() && waiting.is_empty();
        let in_use = self.state_pools().unwrap_or_else(|| pool.iter().cloned().collect());
        let state_pools = in_use.into_iter().chain(waiting).collect();
        let owner = owner.filter(|_| pool.is_some());
        Ok(Plan { owner, state, state_pools, instead_of: None })
    }

    /// Whether a pool in use may be emptied and its disk given back; else why not.
    pub fn may_release(&self, key: &DiskKey) -> Result<Box<Header>, String> {
        let name = &key.name;
        let entry = self.entries.get(name).filter(|entry| &entry.key == key);
        let entry = entry.ok_or_else(|| format!("{name} is gone"))?;
        let (Some(header), Work::Open { owning: false }) = (entry.header(), &entry.work) else {
            return Err(format!(
                "{name} holds no pool that is in use: {}",
                self.disk_report(entry).reason
            ));
        };
        if header.stage == Stage::Leaving {
            return Err(format!("{name} is being released already: {}", entry.drain.told));
        }
        if header.state && !self.may_leave(&header.pool) {
            return Err(format!(
                "the node's state lies on {name}, and no other disk can take it: it would be lost"
            ));
        }
        Ok(Box::new(header.clone()))
    }

    pub(super) fn take_over(&mut self, key: &DiskKey, word: String) -> Result<Job, String> {
        let plan = self.may_take(key)?;
        let entry = self.entry(key).ok_or_else(|| format!("{} is gone", key.name))?;
        entry.work = Work::Adopting;
        Ok(Job::Take(key.clone(), plan, word))
    }

    pub(super) fn give_back(&mut self, key: &DiskKey) -> Result<Job, String> {
        let header = self.may_release(key)?;
        let entry = self.entry(key).ok_or_else(|| format!("{} is gone", key.name))?;
        entry.work = Work::Open { owning: true };
        Ok(Job::Leave(key.clone(), header))
    }

    /// Pools that leave are emptied, and disks whose pools are empty wiped.
    pub(super) fn release(
        &mut self,
        now: Duration,
        jobs: &mut Vec<Job>,
        wake: &mut Option<Duration>,
    ) {
        if !matches!(self.phase, Phase::Settled { .. }) {
            return;
        }
        let node = self.node.map(|(node, _)| node);
        let leaves = |header: &Header| header.stage == Stage::Leaving && !header.state;
        let ready = self.entries.values().filter_map(Entry::header);
        let ready = ready.filter(|header| leaves(header) && !self.is_shown(&header.pool));
        let ready: Vec<String> = ready.map(|header| header.pool.clone()).collect();
        for entry in self.entries.values_mut() {
            match (&entry.verdict, &entry.work) {
                (Some(Verdict::Ours(header)), Work::Open { owning: false })
                    if ready.contains(&header.pool) && !entry.drain.busy =>
                {
                    match entry.drain.again {
                        Some(again) if again > now => sooner(wake, again),
                        _ => {
                            entry.drain.busy = true;
                            jobs.push(Job::Drain(entry.key.clone(), header.pool.clone()));
                        }
                    }
                }
                // Whatever it was on which it failed: from the disk as it is now.
                (_, Work::Failed("release", _)) => match entry.drain.again {
                    Some(again) if again > now => sooner(wake, again),
                    _ => {
                        entry.drain = Drain::default();
                        entry.work = Work::Probing;
                        jobs.push(Job::Probe(entry.key.clone()));
                    }
                },
                // Cut short: nothing was left on it then.
                (Some(Verdict::Wiping(header)), Work::None)
                    if header.owner.is_some() && header.owner == node =>
                {
                    jobs.push(Job::Wipe(entry.key.clone(), header.clone()));
                    entry.work = Work::Wiping;
                }
                _ => {}
            }
        }
    }

    pub(super) fn drained(
        &mut self,
        now: Duration,
        key: &DiskKey,
        result: Result<(), String>,
    ) -> Option<Job> {
        let entry = self.entry(key)?;
        entry.drain.busy = false;
        match (result, &entry.verdict) {
            (Ok(()), Some(Verdict::Ours(header))) if header.stage == Stage::Leaving => {
                let job = Job::Wipe(key.clone(), header.clone());
                entry.work = Work::Wiping;
                Some(job)
            }
            (Err(left), _) => {
                entry.drain.again = Some(now + RETRY);
                entry.drain.told = left;
                None
            }
            _ => None,
        }
    }

    pub(super) fn told(&mut self, key: &DiskKey, words: String) {
        if let Some(entry) = self.entry(key) {
            entry.drain.told = words;
        }
    }

    pub(super) fn wiped(
        &mut self,
        now: Duration,
        key: &DiskKey,
        result: Result<Box<Header>, String>,
    ) {
        let Some(entry) = self.entry(key) else { return };
        entry.drain = Drain::default();
        match result {
            Ok(header) => {
                tracing::info!("{}: released", key.name);
                entry.work = Work::None;
                entry.verdict = Some(Verdict::Released(header));
            }
            Err(error) => {
                entry.work = Work::Failed("release", error);
                entry.drain.again = Some(now + RETRY);
            }
        }
    }

    /// Whether the pool on a disk is on another one, too.
    fn is_doubled(&self, entry: &Entry) -> bool {
        let Some(Verdict::Ours(header)) = &entry.verdict else { return false };
        self.entries.values().any(|other| other.key != entry.key && other.holds(&header.pool))
    }
}
