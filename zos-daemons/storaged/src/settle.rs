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

use crate::copies::{self, Generation, Here, Lead, Mark};
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
        /// Another one with the same state.
        second: Option<String>,
        /// What the pool's header must say before anything is served: it goes on without another.
        renewed: Option<Box<Mark>>,
        /// The pools that the farmer set aside by it: their headers must say so before that.
        aside: Vec<String>,
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

/// What decides between the copies of one node's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// `zos.state`: the history that the farmer wants to lead.
    pub state: Option<Generation>,
    /// The generation that is begun, if one is.
    pub fresh: Generation,
}

/// Decides. `started` is when disks began to be looked for.
pub fn settle(
    now: Duration,
    started: Duration,
    seen: &[Seen<'_>],
    wanted: Wanted,
    word: Word,
) -> Outcome {
    let disks = Disks::sort(seen, word);
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
struct Disks<'a> {
    word: Word,
    pending: Vec<&'a str>,
    unreadable: Vec<&'a str>,
    traces: Vec<&'a str>,
    /// Pools by id, with the disk that each lies on.
    pools: BTreeMap<&'a str, (&'a str, &'a Header)>,
    /// Pools that are there more than once.
    doubled: Vec<&'a str>,
}

impl<'a> Disks<'a> {
    fn sort(seen: &[Seen<'a>], word: Word) -> Self {
        let (pending, unreadable, traces) = (Vec::new(), Vec::new(), Vec::new());
        let (pools, doubled) = (BTreeMap::new(), Vec::new());
        let mut disks = Self { word, pending, unreadable, traces, pools, doubled };
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
        let Lead::Copies { pools, renewed: None, .. } = self.lead(Some(owner)) else { return None };
        // What a copy that is behind names, is no matter.
        let counts = |header: &&Header| !header.state || pools.contains(&header.pool);
        let recorded = self.pools.values().map(|(_, header)| *header);
        let recorded = recorded.filter(|header| header.owner == Some(owner)).filter(counts);
        let mut recorded = recorded.flat_map(|header| &header.state_pools);
        let all = recorded.all(|pool| self.pools.contains_key(pool.as_str()));
        all.then(|| self.led(Some(owner))).flatten()
    }

    /// Which copies of a node's state lead.
    fn lead(&self, owner: Option<NodeId>) -> Lead {
        let states = self.states(owner);
        let marks: Vec<Mark> = states.iter().map(|header| Mark::of(header)).collect();
        let here: Vec<Here<'_>> = states
            .iter()
            .zip(&marks)
            .map(|(header, mark)| Here { pool: &header.pool, mark, members: &header.state_pools })
            .collect();
        copies::lead(&here, self.word.state, self.word.fresh)
    }

    /// The same as a choice; none when there is no copy.
    fn led(&self, owner: Option<NodeId>) -> Option<Choice> {
        match self.lead(owner) {
            Lead::None => None,
            Lead::Torn(histories) => Some(memory(self.torn(&histories))),
            Lead::Copies { pools, renewed, aside } => {
                let mut pools = pools.into_iter();
                let first = pools.next()?;
                let (_, header) = self.pools.get(first.as_str())?;
                let (second, refusal) = (pools.next(), self.refusal(header));
                let (pool, renewed) = (header.pool.clone(), renewed.map(Box::new));
                Some(Choice::Pool { pool, second, renewed, aside, refusal })
            }
        }
    }

    fn torn(&self, histories: &[(Generation, String)]) -> String {
        let named: Vec<String> = histories
            .iter()
            .map(|(generation, pool)| {
                let disk = self.pools.get(pool.as_str()).map_or("?", |(disk, _)| disk);
                format!("{generation} on {disk}")
            })
            .collect();
        let named = named.join(", ");
        if histories.len() == 1 {
            return format!(
                "the disk here holds an incomplete copy of the node's state ({named}); connect the \
                 other state disk, or go on with what it has by zos.state=<its 16 digits>"
            );
        }
        format!(
            "several disks hold a state that went on without the others ({named}); say which is to \
             lead by zos.state=<its 16 digits>: the others are set aside then, and written over"
        )
    }

    fn choose(&self, wanted: Wanted) -> Choice {
        let owners = self.owners();
        match wanted {
            Wanted::Node(node) => self.led(Some(node)).unwrap_or_else(|| {
                memory(format!("zos.identity names {node}, and no disk with its state is here"))
            }),
            Wanted::New => self.choose_new(&owners),
            Wanted::Unsaid => self.choose_unsaid(&owners),
        }
    }

    /// `new` is said once and may stay in the settings: the pool that was made for it leads from
    /// then on; of several, the one that was made in place of all others.
    fn choose_new(&self, owners: &BTreeSet<NodeId>) -> Choice {
        let states = self.pools.values().map(|(_, header)| *header).filter(|header| header.state);
        // Two copies of one node's state are one node.
        let mut known = BTreeSet::new();
        let made = states.filter(|header| header.instead_of.is_some());
        let made: Vec<&Header> =
            made.filter(|header| header.owner.is_none_or(|owner| known.insert(owner))).collect();
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
        if let Some(choice) = self.led(owners.first().copied()) {
            return choice;
        }
        match owners.first() {
            Some(owner) => memory(format!(
                "a pool of node {owner} is here, and the disk with the node's state is not; \
                 connect it and boot again, or say zos.identity=new"
            )),
            None if self.traces.is_empty() && self.doubt().is_none() => {
                Choice::Fresh { instead_of: None }
            }
            None if !self.traces.is_empty() => memory(format!(
                "{} shows a trace of a node that can't be read; {say}",
                list(&self.traces)
            )),
            None => memory(self.doubt().unwrap_or_default()),
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

    /// Why no new identity may be made beside a state.
    fn refusal(&self, state: &Header) -> Option<String> {
        state
            .owner
            .map(|owner| format!("the state belongs to node {owner}, whose key should lie in it"))
            .or_else(|| self.doubt())
            .or_else(|| {
                let others = self.owners();
                others.first().map(|owner| format!("a disk of node {owner} is here"))
            })
    }

    fn pool_for_new(&self, state: &Header) -> Choice {
        let alone = || Choice::Pool {
            pool: state.pool.clone(),
            second: None,
            renewed: None,
            aside: Vec::new(),
            refusal: None,
        };
        match state.owner {
            Some(_) => self.led(state.owner).unwrap_or_else(alone),
            None => alone(),
        }
    }
}

fn memory(refusal: String) -> Choice {
    Choice::Memory { refusal }
}

#[cfg(test)]
mod tests;
