//! The boot: from disks that come to a state that has its place.

use std::time::Duration;

use zos_api::local::storage::Settled;
use zos_types::NodeId;
use zos_types::deployment::Class;

use super::{Entry, Job, Keeper, Leading, Phase, Work, sooner};
use crate::copies::Generation;
use crate::disk::judge::Verdict;
use crate::pool::{self, Plan};
use crate::settle::{self, Choice, Outcome, Seen, Word};

impl Keeper {
    pub(super) fn decide(
        &mut self,
        now: Duration,
        jobs: &mut Vec<Job>,
        wake: &mut Option<Duration>,
    ) {
        if let Phase::Settling = self.phase {
            // One that failed to be opened or written is as good as unreadable.
            let failed: Vec<Option<Verdict>> = self
                .entries
                .values()
                .map(|entry| match &entry.work {
                    Work::Failed(_, error) => Some(Verdict::Unreadable(error.clone())),
                    _ => None,
                })
                .collect();
            let seen: Vec<Seen<'_>> = self
                .entries
                .values()
                .zip(&failed)
                .filter(|(entry, _)| !entry.boot_medium)
                .map(|(entry, failed)| Seen {
                    name: &entry.key.name,
                    arrived: entry.arrived,
                    verdict: failed.as_ref().or(entry.verdict.as_ref()),
                })
                .collect();
            let word = Word { state: self.settings.state, fresh: Generation::draw() };
            match settle::settle(now, Duration::ZERO, &seen, self.settings.wanted, word) {
                Outcome::Wait(until) => {
                    sooner(wake, until);
                    return;
                }
                Outcome::Settled(choice) => self.choose(choice, jobs),
            }
        }
        if let Phase::Choosing { instead_of } = &self.phase {
            let instead_of = instead_of.clone();
            self.choose_disk(instead_of, jobs);
        }
        if let Phase::Opening { lead } = &self.phase {
            let lead = lead.clone();
            self.wait_for(lead, jobs);
        }
    }

    /// Goes on once the pools that lead are open; if one of two fails, the disks are looked at anew.
    fn wait_for(&mut self, lead: Leading, jobs: &mut Vec<Job>) {
        let mut all = true;
        for pool in std::iter::once(&lead.pool).chain(&lead.second) {
            let why = match self.holder(pool).map(|entry| entry.work.clone()) {
                Some(Work::Open { .. }) => continue,
                Some(Work::Failed(_, error)) => {
                    format!("the pool with the node's state can't be opened: {error}")
                }
                None => "the disk with the node's state went away".to_owned(),
                Some(_) => {
                    all = false;
                    continue;
                }
            };
            return self.led_in_vain(lead.second.is_some(), why, jobs);
        }
        if all {
            self.prepare(Some(lead), None, jobs);
        }
    }

    /// The state can't be had as it was chosen: from another copy, or not at all.
    pub(super) fn led_in_vain(&mut self, another: bool, why: String, jobs: &mut Vec<Job>) {
        if another {
            tracing::error!("{why}; the other copy is looked for");
            self.phase = Phase::Settling;
        } else {
            self.prepare(None, Some(why), jobs);
        }
    }

    fn choose(&mut self, choice: Choice, jobs: &mut Vec<Job>) {
        tracing::info!("the disks have settled: {choice}");
        match choice {
            Choice::Pool { pool, second, renewed, aside, refusal } => {
                self.renew(Leading { pool, second, renewed, aside, refusal }, jobs);
            }
            Choice::Fresh { instead_of } => self.phase = Phase::Choosing { instead_of },
            Choice::Memory { refusal } => self.prepare(None, Some(refusal), jobs),
        }
    }

    pub(super) fn open_leading(&mut self, lead: Leading, jobs: &mut Vec<Job>) {
        for pool in std::iter::once(&lead.pool).chain(&lead.second) {
            if let Some(entry) = self.holder_mut(pool)
                && let Some(Verdict::Ours(header)) = &entry.verdict
                && !matches!(entry.work, Work::Open { .. })
            {
                jobs.push(Job::Open(entry.key.clone(), header.clone()));
                entry.work = Work::Opening;
            }
        }
        self.phase = Phase::Opening { lead };
    }

    /// Takes an empty disk for the state: solid state before rotating, then the larger.
    fn choose_disk(&mut self, instead_of: Option<Vec<NodeId>>, jobs: &mut Vec<Job>) {
        let made = self.entries.values().find_map(|entry| match (&entry.work, &entry.verdict) {
            (Work::Open { .. }, Some(Verdict::Ours(header))) => Some(header.pool.clone()),
            _ => None,
        });
        if let Some(pool) = made {
            let (renewed, aside) = (None, Vec::new());
            let lead = Leading { pool, second: None, renewed, aside, refusal: None };
            self.prepare(Some(lead), None, jobs);
            return;
        }
        if self.entries.values().any(|entry| entry.work == Work::Adopting) {
            return;
        }
        let rank = |entry: &&Entry| (pool::class(&entry.disk) == Class::Ssd, entry.disk.size);
        let ready = self.entries.values().filter(|entry| self.may_adopt(entry)).max_by_key(rank);
        let coming =
            self.entries.values().filter(|entry| entry.work == Work::Sampling).max_by_key(rank);
        match (ready, coming) {
            (Some(ready), coming)
                if coming.is_none_or(|coming| rank(&coming).0 <= rank(&ready).0) =>
            {
                let plan = Plan { owner: None, state: true, state_pools: Vec::new(), instead_of };
                let name = ready.key.name.clone();
                self.adopt(&name, plan, jobs);
            }
            (_, Some(_)) => {}
            _ => self.prepare(None, None, jobs),
        }
    }

    pub(super) fn adopt(&mut self, name: &str, plan: Plan, jobs: &mut Vec<Job>) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.work = Work::Adopting;
            jobs.push(Job::Adopt(entry.key.clone(), plan));
        }
    }

    fn prepare(&mut self, lead: Option<Leading>, refusal: Option<String>, jobs: &mut Vec<Job>) {
        jobs.push(Job::Prepare(lead.as_ref().map(|lead| lead.pool.clone())));
        self.phase = Phase::Preparing { lead, refusal };
    }

    pub(super) fn prepared(&mut self, result: Result<(), String>) {
        let Phase::Preparing { lead, refusal } = self.phase.clone() else { return };
        match (result, lead) {
            (Ok(()), Some(lead)) if lead.second.is_some() => self.phase = Phase::Showing { lead },
            (Ok(()), Some(lead)) => self.has_settled(Some(&lead), None),
            (Ok(()), None) => self.has_settled(None, refusal),
            (Err(error), _) => {
                tracing::error!("prepare the place of the state: {error}");
                let why = format!("the place of the node's state could not be made: {error}");
                self.has_settled(None, Some(why));
            }
        }
    }

    /// The state has its place: from now on it is served.
    pub(super) fn has_settled(&mut self, lead: Option<&Leading>, refusal: Option<String>) {
        let pool = lead.map(|lead| lead.pool.clone());
        let refusal = lead.map_or(refusal, |lead| lead.refusal.clone());
        if let Some(lead) = lead {
            self.begin_copies(lead);
        }
        self.settled = Some(Settled {
            path: self.paths[0].clone(),
            durable: pool.is_some(),
            identity_refusal: refusal,
        });
        self.phase = Phase::Settled { pool };
    }
}
