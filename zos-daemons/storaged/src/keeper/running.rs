//! After the boot: the node's pools are opened, and empty disks become more of them.

use zos_types::NodeId;

use super::{DiskKey, Job, Keeper, Phase, Work};
use crate::disk::header::Header;
use crate::disk::judge::Verdict;
use crate::pool::Plan;

/// What is to be done with a disk.
enum Step {
    Nothing,
    Own(NodeId),
    Open,
    Adopt(NodeId),
}

impl Keeper {
    /// Once the state has its place: each disk that can be used is.
    pub(super) fn use_disks(&mut self, jobs: &mut Vec<Job>) {
        let Phase::Settled { pool: state_pool } = self.phase.clone() else { return };
        let state_pools = self.state_pools();
        let state_pools = state_pools.unwrap_or_else(|| state_pool.iter().cloned().collect());
        let keys: Vec<DiskKey> = self.entries.values().map(|entry| entry.key.clone()).collect();
        for key in keys {
            let step = self.step(&key, state_pool.as_deref());
            let Some(entry) = self.entries.get_mut(&key.name) else { continue };
            match (step, &entry.verdict) {
                (Step::Own(node), Some(Verdict::Ours(header))) => {
                    jobs.push(Job::Own(key, header.clone(), node));
                    let open = matches!(entry.work, Work::Open { .. });
                    entry.work = if open { Work::Open { owning: true } } else { Work::Owning };
                }
                (Step::Open, Some(Verdict::Ours(header))) => {
                    self.gone.remove(&header.pool);
                    jobs.push(Job::Open(key, header.clone()));
                    entry.work = Work::Opening;
                }
                (Step::Adopt(node), _) => {
                    let plan = Plan {
                        owner: Some(node),
                        state: false,
                        state_pools: state_pools.clone(),
                        instead_of: None,
                    };
                    self.adopt(&key.name, plan, jobs);
                }
                _ => {}
            }
        }
    }

    fn step(&self, key: &DiskKey, state_pool: Option<&str>) -> Step {
        let entry = &self.entries[&key.name];
        // An identity that ends with this boot owns nothing.
        let node = self.node.and_then(|(node, ephemeral)| (!ephemeral).then_some(node));
        match (&entry.verdict, &entry.work) {
            (Some(Verdict::Ours(header)), Work::None | Work::Open { owning: false }) => {
                if self.entries.values().filter(|other| other.holds(&header.pool)).count() > 1 {
                    return Step::Nothing;
                }
                let open = entry.work != Work::None;
                self.step_of_pool(header, open, node, state_pool)
            }
            (Some(Verdict::Empty | Verdict::Unfinished(_)), Work::None) => match node {
                Some(node) if state_pool.is_some() && self.may_adopt(entry) => Step::Adopt(node),
                _ => Step::Nothing,
            },
            _ => Step::Nothing,
        }
    }

    fn step_of_pool(
        &self,
        header: &Header,
        open: bool,
        node: Option<NodeId>,
        state_pool: Option<&str>,
    ) -> Step {
        let is_state = state_pool == Some(&header.pool) || self.is_copy(&header.pool);
        // A state that isn't in use may hold the key of a node unknown: it isn't ours to take.
        let may_own = state_pool.is_some() && (is_state || !header.state);
        match (header.owner, node) {
            (None, Some(node)) if may_own => Step::Own(node),
            (Some(owner), Some(node)) if owner == node && !open => Step::Open,
            // After a restart of storaged, before it is told who the node is.
            _ if is_state && !open => Step::Open,
            _ => Step::Nothing,
        }
    }
}
