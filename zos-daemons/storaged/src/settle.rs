//! When the disks have settled, and what the node's state is then: the decision alone.
//!
//! ```text
//!               every disk that is here judged, a state pool whose record is complete ─▶ at once
//!  disks come ─┤ else 5 s without a new disk                                          ─▶ then
//!               else 60 s                                                            ─▶ at the latest
//!
//!  Choice: Pool     the state lies on this pool
//!          Fresh    no disk shows a trace of ours: adopt an empty one, a new identity may be made
//!          Memory   the state lies in memory, and why no identity may be kept
//! ```
//! No clock here: times are passed in, as durations since the node started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zos_types::NodeId;

use crate::disk::header::Header;
use crate::disk::judge::Verdict;

/// Without a new disk for so long, no more are waited for.
pub const QUIET: Duration = Duration::from_secs(5);
/// Nothing is waited for longer than this.
pub const LATEST: Duration = Duration::from_secs(60);

/// `zos.identity`: what the farmer says about who the node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nothing.
    Unsaid,
    /// A new identity, whatever the disks say.
    New,
    /// This one of those on the disks.
    Node(NodeId),
}

/// A disk that is here.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// When it came.
    pub arrived: Duration,
    /// What it is; none: it is still being read.
    pub verdict: Option<&'a Verdict>,
}

/// What the state is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It lies on this pool. The refusal says why no new identity may be made there, if so.
    Pool {
        /// The pool's id.
        pool: String,
        /// As in `Settled::identity_refusal`.
        refusal: Option<String>,
    },
    /// It is to lie on an empty disk that is adopted now, in place of these nodes.
    Fresh {
        /// The nodes that the farmer passes over, if he said `new`.
        instead_of: Option<Vec<NodeId>>,
    },
    /// It lies in memory, since no choice can be made without the farmer.
    Memory {
        /// Why, and what the farmer can do.
        refusal: String,
    },
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pool { pool, .. } => write!(f, "the state lies on pool {pool}"),
            Self::Fresh { .. } => {
                f.write_str("the state will lie on an empty disk, if there is one")
            }
            Self::Memory { refusal } => write!(f, "the state lies in memory: {refusal}"),
        }
    }
}

/// The decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Not yet: ask again at this time, or when something changed.
    Wait(Duration),
    /// Settled.
    Settled(Choice),
}

/// Decides. `started` is when disks began to be looked for.
pub fn settle(now: Duration, started: Duration, seen: &[Seen<'_>], wanted: Wanted) -> Outcome {
    let disks = Disks::sort(seen);
    if disks.pending.is_empty()
        && let Some(choice) = disks.complete(wanted)
    {
        return Outcome::Settled(choice);
    }
    let last = seen.iter().map(|disk| disk.arrived).max().unwrap_or(started).max(started);
    let latest = started + LATEST;
    let due = if disks.pending.is_empty() { (last + QUIET).min(latest) } else { latest };
    if now < due { Outcome::Wait(due) } else { Outcome::Settled(disks.choose(wanted)) }
}

/// The disks by what they say about the node's identity.
#[derive(Default)]
struct Disks<'a> {
    pending: Vec<&'a str>,
    unreadable: Vec<&'a str>,
    traces: Vec<&'a str>,
    /// Pools by id, with the disk that each lies on.
    pools: BTreeMap<&'a str, (&'a str, &'a Header)>,
    /// Pools that are there more than once.
    doubled: Vec<&'a str>,
}

impl<'a> Disks<'a> {
    fn sort(seen: &[Seen<'a>]) -> Self {
        let mut disks = Self::default();
        for disk in seen {
            match disk.verdict {
                None => disks.pending.push(disk.name),
                Some(Verdict::Unreadable(_)) => disks.unreadable.push(disk.name),
                Some(Verdict::Trace(_)) => disks.traces.push(disk.name),
                Some(Verdict::Ours(header)) => {
                    if disks.pools.insert(&header.pool, (disk.name, header)).is_some() {
                        disks.doubled.push(&header.pool);
                    }
                }
                Some(
                    Verdict::Unfinished(_)
                    | Verdict::Wiping(_)
                    | Verdict::Released(_)
                    | Verdict::Foreign(_)
                    | Verdict::Blank
                    | Verdict::Empty,
                ) => {}
            }
        }
        for pool in disks.doubled.clone() {
            if let Some((name, _)) = disks.pools.remove(pool) {
                disks.traces.push(name);
            }
        }
        disks
    }

    fn owners(&self) -> BTreeSet<NodeId> {
        self.pools.values().filter_map(|(_, header)| header.owner).collect()
    }

    /// The pools that carry the state of this node, or state without a node.
    fn states(&self, owner: Option<NodeId>) -> Vec<&'a Header> {
        let all = self.pools.values().map(|(_, header)| *header);
        all.filter(|header| header.state && header.owner == owner).collect()
    }

    /// The usual boot: one node, and each pool that anybody's record names is here.
    fn complete(&self, wanted: Wanted) -> Option<Choice> {
        let mut owners = self.owners();
        if let Wanted::Node(node) = wanted {
            owners.retain(|owner| *owner == node);
        }
        let (Some(owner), None) = (owners.pop_first(), owners.pop_first()) else { return None };
        if wanted == Wanted::New {
            return None;
        }
        let [state] = self.states(Some(owner))[..] else { return None };
        let recorded = self.pools.values().filter(|(_, header)| header.owner == Some(owner));
        let mut recorded = recorded.flat_map(|(_, header)| &header.state_pools);
        recorded.all(|pool| self.pools.contains_key(pool.as_str())).then(|| self.pool(state))
    }

    fn choose(&self, wanted: Wanted) -> Choice {
        let owners = self.owners();
        match wanted {
            Wanted::Node(node) => match self.states(Some(node))[..] {
                [state] => self.pool(state),
                [] => {
                    memory(format!("zos.identity names {node}, and no disk with its state is here"))
                }
                _ => memory(format!("several disks hold a state of node {node}")),
            },
            Wanted::New => self.choose_new(&owners),
            Wanted::Unsaid => self.choose_unsaid(&owners),
        }
    }

    /// `new` is said once and may stay in the settings: the pool that was made for it leads from
    /// then on; of several, the one that was made in place of all others.
    fn choose_new(&self, owners: &BTreeSet<NodeId>) -> Choice {
        let states = self.pools.values().map(|(_, header)| *header).filter(|header| header.state);
        let made: Vec<&Header> = states.filter(|header| header.instead_of.is_some()).collect();
        let in_place_of_all = |header: &&Header| {
            let replaced = header.instead_of.as_deref().unwrap_or_default();
            owners.iter().all(|owner| Some(*owner) == header.owner || replaced.contains(owner))
        };
        let last: Vec<&Header> = made.iter().copied().filter(in_place_of_all).collect();
        match (&made[..], &last[..], &self.states(None)[..]) {
            ([state], ..) | (_, [state], _) | ([], _, [state]) => self.pool_for_new(state),
            ([], _, _) => Choice::Fresh { instead_of: Some(owners.iter().copied().collect()) },
            _ => memory(
                "several disks hold a node that was made by zos.identity=new; \
                 say which by zos.identity=<id>"
                    .to_owned(),
            ),
        }
    }

    fn choose_unsaid(&self, owners: &BTreeSet<NodeId>) -> Choice {
        let say = "say which by zos.identity=<id>, or zos.identity=new for a new one";
        let list = |names: &[&str]| names.join(", ");
        if owners.len() > 1 {
            let held: Vec<String> = self
                .pools
                .values()
                .filter_map(|(disk, header)| Some(format!("{disk} holds {}", header.owner?)))
                .collect();
            return memory(format!("disks of several nodes are here ({}); {say}", held.join("; ")));
        }
        let states = self.states(owners.first().copied());
        match (states[..].len(), owners.first()) {
            (1, _) => self.pool(states[0]),
            (0, Some(owner)) => memory(format!(
                "a pool of node {owner} is here, and the disk with the node's state is not; \
                 connect it and boot again, or say zos.identity=new"
            )),
            (0, None) if self.traces.is_empty() && self.doubt().is_none() => {
                Choice::Fresh { instead_of: None }
            }
            (0, None) if !self.traces.is_empty() => memory(format!(
                "{} shows a trace of a node that can't be read; {say}",
                list(&self.traces)
            )),
            (0, None) => memory(self.doubt().unwrap_or_default()),
            (_, _) => memory(format!("several disks hold a state; {say}")),
        }
    }

    /// Disks that may hold an identity, for all that is known.
    fn doubt(&self) -> Option<String> {
        let doubtful: Vec<&str> = self.pending.iter().chain(&self.unreadable).copied().collect();
        (!doubtful.is_empty()).then(|| {
            format!(
                "{} can't be read and may hold the node's identity; \
                 remove it, or say zos.identity=new",
                doubtful.join(", ")
            )
        })
    }

    fn pool(&self, state: &Header) -> Choice {
        let refusal = state
            .owner
            .map(|owner| format!("the state belongs to node {owner}, whose key should lie in it"))
            .or_else(|| self.doubt())
            .or_else(|| {
                let others = self.owners();
                others.first().map(|owner| format!("a disk of node {owner} is here"))
            });
        Choice::Pool { pool: state.pool.clone(), refusal }
    }

    fn pool_for_new(&self, state: &Header) -> Choice {
        match state.owner {
            Some(_) => self.pool(state),
            None => Choice::Pool { pool: state.pool.clone(), refusal: None },
        }
    }
}

fn memory(refusal: String) -> Choice {
    Choice::Memory { refusal }
}

#[cfg(test)]
mod tests;
