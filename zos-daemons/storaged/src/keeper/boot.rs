//! The boot: from disks that come to a state that has its place.

use std::time::Duration;

use zos_api::local::storage::Settled;
use zos_types::NodeId;
use zos_types::deployment::Class;

use super::{Entry, Job, Keeper, Phase, Work, sooner};
use crate::disk::judge::Verdict;
use crate::pool::{self, Plan};
use crate::settle::{self, Choice, Outcome, Seen};

impl Keeper {
    pub(super) fn decide(
        &mut self,
        now: Duration,
        jobs: &mut Vec<Job>,
        wake: &mut Option<Duration>,
    ) {
        if let Phase::Settling = self.phase {
            let seen: Vec<Seen<'_>> = self
                .entries
                .values()
                .filter(|entry| !entry.boot_medium)
                .map(|entry| Seen {
                    name: &entry.key.name,
                    arrived: entry.arrived,
                    verdict: entry.verdict.as_ref(),
                })
                .collect();
            match settle::settle(now, Duration::ZERO, &seen, self.settings.wanted) {
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
        if let Phase::Opening { pool, refusal } = &self.phase {
            let (pool, refusal) = (pool.clone(), refusal.clone());
            match self.holder(&pool).map(|entry| entry.work.clone()) {
                Some(Work::Open { .. }) => self.prepare(Some(pool), refusal, jobs),
                Some(Work::Failed(_, error)) => {
                    let why = format!("the pool with the node's state can't be opened: {error}");
                    self.prepare(None, Some(why), jobs);
                }
                None => {
                    let why = "the disk with the node's state went away".to_owned();
                    self.prepare(None, Some(why), jobs);
                }
                Some(_) => {}
            }
        }
    }

    fn choose(&mut self, choice: Choice, jobs: &mut Vec<Job>) {
        tracing::info!("the disks have settled: {choice}");
        match choice {
            Choice::Pool { pool, refusal } => {
                if let Some(entry) = self.entries.values_mut().find(|entry| entry.holds(&pool))
                    && let Some(Verdict::Ours(header)) = &entry.verdict
                {
                    jobs.push(Job::Open(entry.key.clone(), header.clone()));
                    entry.work = Work::Opening;
                }
                self.phase = Phase::Opening { pool, refusal };
            }
            Choice::Fresh { instead_of } => self.phase = Phase::Choosing { instead_of },
            Choice::Memory { refusal } => self.prepare(None, Some(refusal), jobs),
        }
    }

    /// Takes an empty disk for the state: solid state before rotating, then the larger.
    fn choose_disk(&mut self, instead_of: Option<Vec<NodeId>>, jobs: &mut Vec<Job>) {
        let made = self.entries.values().find_map(|entry| match (&entry.work, &entry.verdict) {
            (Work::Open { .. }, Some(Verdict::Ours(header))) => Some(header.pool.clone()),
            _ => None,
        });
        if let Some(pool) = made {
            self.prepare(Some(pool), None, jobs);
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

    fn prepare(&mut self, pool: Option<String>, refusal: Option<String>, jobs: &mut Vec<Job>) {
        jobs.push(Job::Prepare(pool.clone()));
        self.phase = Phase::Preparing { pool, refusal };
    }

    pub(super) fn prepared(&mut self, result: Result<(), String>) {
        let Phase::Preparing { pool, refusal } = self.phase.clone() else { return };
        let (pool, refusal) = match result {
            Ok(()) => (pool, refusal),
            Err(error) => {
                tracing::error!("prepare the place of the state: {error}");
                (None, Some(format!("the place of the node's state could not be made: {error}")))
            }
        };
        self.settled = Some(Settled {
            path: self.state_path.clone(),
            durable: pool.is_some(),
            identity_refusal: refusal,
        });
        self.phase = Phase::Settled { pool };
    }
}
