//! The copies while the node runs: who is in, who is being filled, and what is written down before it counts.
//!
//! ```text
//!   {P} ── fill R: R not whole ─▶ {P} +R ── all joined ─▶ P names P, R ─▶ R whole ─▶ {P, R}
//!    ▲                              │ R fails: forgotten                                │
//!    └──────────────────────────────┴──── a copy fails: the other, epoch + 1, alone ◀───┘
//! ```
//! One header is written at a time. A loss is answered when it is written, so that nothing is
//! acknowledged on a copy less before its mark says so.

use std::collections::{BTreeSet, VecDeque};

use zos_api::local::User;

use super::mark::{Generation, Mark};

/// The daemons that keep something, all of which must have joined a copy before it counts.
pub const KEEPERS: [User; 4] = [User::Storage, User::Identity, User::Net, User::Provision];

/// A copy in use.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Copy {
    /// Its pool.
    pub pool: String,
    /// Names this coming of the pool.
    pub coming: Generation,
}

/// What the header of a pool is to say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Write {
    /// Which pool.
    pub pool: String,
    /// Its mark.
    pub mark: Mark,
    /// The pools with the state.
    pub members: Vec<String>,
}

/// A header write under way, by what it is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Change {
    /// The other goes on without this pool.
    Lose { pool: String, mark: Mark },
    /// The newcomer is to be filled.
    Fill(Copy),
    /// The leading one names the newcomer.
    Name,
    /// The newcomer is whole.
    Complete,
}

/// A copy that is being filled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Filling {
    copy: Copy,
    waits: BTreeSet<User>,
    /// Whether the leading one names it already.
    named: bool,
}

/// What became of a loss that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It is written down, or nothing counted on it.
    Noted,
    /// It will be.
    Pending,
    /// It is the last copy.
    Last,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Set {
    mark: Mark,
    /// One, or two.
    members: Vec<Copy>,
    filling: Option<Filling>,
    writing: Option<Change>,
    losses: VecDeque<String>,
}

impl Set {
    /// The set that a boot begins with: the mark and the pools that lead.
    pub fn new(mark: Mark, members: Vec<Copy>) -> Self {
        Self { mark, members, filling: None, writing: None, losses: VecDeque::new() }
    }

    /// The mark that its members have.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The copies that hold all that was acknowledged.
    pub fn members(&self) -> &[Copy] {
        &self.members
    }

    /// The copy that is being filled.
    pub fn filling(&self) -> Option<&Copy> {
        self.filling.as_ref().map(|filling| &filling.copy)
    }

    /// Those who have not joined the copy that is being filled.
    pub fn waits(&self) -> impl Iterator<Item = User> + '_ {
        self.filling.iter().flat_map(|filling| filling.waits.iter().copied())
    }

    /// Whether a copy is missed and nothing is under way.
    pub fn is_open(&self) -> bool {
        self.members.len() == 1
            && self.filling.is_none()
            && self.writing.is_none()
            && self.losses.is_empty()
    }

    fn is_member(&self, pool: &str) -> bool {
        self.members.iter().any(|copy| copy.pool == pool)
    }

    fn is_filling(&self, pool: &str) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.copy.pool == pool)
    }

    /// Which coming of a pool is in use.
    pub fn coming(&self, pool: &str) -> Option<Generation> {
        let filling = self.filling.as_ref().map(|filling| &filling.copy);
        let mut all = self.members.iter().chain(filling);
        all.find(|copy| copy.pool == pool).map(|copy| copy.coming)
    }

    /// A copy failed.
    pub fn lose(&mut self, pool: &str) -> Loss {
        // What was written for the newcomer may count already, so its loss waits for that.
        let named = |filling: &Filling| filling.named || self.writing == Some(Change::Name);
        let is_named = self.filling.as_ref().is_some_and(named);
        if self.is_filling(pool) && !is_named {
            self.filling = None;
            return Loss::Noted;
        }
        if let Some(Change::Fill(copy)) = &self.writing
            && copy.pool == pool
        {
            self.losses.push_back(pool.to_owned());
            return Loss::Noted;
        }
        if !self.is_member(pool) && !self.is_filling(pool) {
            return Loss::Noted;
        }
        if self.losses.iter().any(|lost| lost == pool) {
            return Loss::Pending;
        }
        if let Some(Change::Lose { pool: going, .. }) = &self.writing {
            return if going == pool { Loss::Pending } else { Loss::Last };
        }
        if self.survivor(pool).is_none() {
            return Loss::Last;
        }
        self.losses.push_back(pool.to_owned());
        Loss::Pending
    }

    /// Who goes on when this one doesn't: another member, or a newcomer that has all of it and is named. One that
    /// isn't named may not go on alone: the other would not know, and go on alone in the same generation.
    fn survivor(&self, lost: &str) -> Option<&Copy> {
        let going = |pool: &str| pool == lost || self.losses.iter().any(|other| other == pool);
        let full = self.filling.iter().filter(|filling| filling.named);
        let mut left = self.members.iter().chain(full.map(|filling| &filling.copy));
        left.find(|copy| !going(&copy.pool))
    }

    /// Whether a pool with this mark may be filled: it has none, or holds an earlier part of this history. One of
    /// another history is the farmer's to decide about.
    pub fn takes(&self, mark: Option<&Mark>) -> bool {
        mark.is_none_or(|mark| self.mark.is_after(mark) || mark.generation == self.mark.generation)
    }

    /// A pool becomes a copy, when one is missed.
    pub fn fill(&mut self, copy: Copy) -> Option<Write> {
        if !self.is_open() || self.is_member(&copy.pool) {
            return None;
        }
        let members = self.names(None);
        let write = Write { pool: copy.pool.clone(), mark: self.mark.filling(), members };
        self.writing = Some(Change::Fill(copy));
        Some(write)
    }

    /// A daemon's part of the copy that is being filled is whole.
    pub fn joined(&mut self, pool: &str, coming: Generation, who: User) {
        if let Some(filling) = &mut self.filling
            && filling.copy.pool == pool
            && filling.copy.coming == coming
        {
            filling.waits.remove(&who);
        }
    }

    /// What is to be written now. `fresh` is the generation that is begun if one is.
    pub fn next(&mut self, fresh: Generation) -> Option<Write> {
        if self.writing.is_some() {
            return None;
        }
        if let Some(filling) = self.filling.as_ref().filter(|filling| filling.waits.is_empty()) {
            let (newcomer, named) = (filling.copy.pool.clone(), filling.named);
            // One that failed is not made whole.
            if !self.losses.contains(&newcomer) {
                let members = self.names(Some(&newcomer));
                let lead = self.members.first()?.pool.clone();
                self.writing = Some(if named { Change::Complete } else { Change::Name });
                let pool = if named { newcomer } else { lead };
                return Some(Write { pool, mark: self.mark.clone(), members });
            }
        }
        let pool = self.losses.front()?.clone();
        let Some(survivor) = self.survivor(&pool) else {
            // Nobody is left to go on; what was asked is answered by what `lose` says next.
            self.losses.pop_front();
            return None;
        };
        let survivor = survivor.pool.clone();
        let mark = self.mark.next(&[], fresh);
        let members = vec![survivor.clone()];
        self.writing = Some(Change::Lose { pool, mark: mark.clone() });
        Some(Write { pool: survivor, mark, members })
    }

    /// The header is written, or could not be.
    pub fn written(&mut self, done: bool) {
        let Some(change) = self.writing.take() else { return };
        match change {
            Change::Lose { pool, mark } => {
                self.losses.retain(|lost| lost != &pool);
                if !done {
                    return;
                }
                self.mark = mark;
                let newcomer = self.filling.take();
                self.members.retain(|copy| copy.pool != pool);
                if self.members.is_empty() {
                    self.members.extend(newcomer.map(|filling| filling.copy));
                }
            }
            Change::Fill(copy) => {
                let given_up = self.losses.iter().any(|lost| lost == &copy.pool);
                self.losses.retain(|lost| lost != &copy.pool);
                if done && !given_up {
                    let waits = KEEPERS.into_iter().collect();
                    self.filling = Some(Filling { copy, waits, named: false });
                }
            }
            // A header that can't be written is that of a disk that fails: with the leading one nothing can be done
            // but to try again later, the newcomer is given up.
            Change::Name if !done => self.filling = None,
            Change::Complete if !done => {
                self.give_up(self.filling.as_ref().map(|filling| filling.copy.clone()));
            }
            Change::Name => {
                if let Some(filling) = &mut self.filling {
                    filling.named = true;
                }
            }
            Change::Complete => {
                let newcomer = self.filling.take();
                self.members.extend(newcomer.map(|filling| filling.copy));
            }
        }
    }

    fn give_up(&mut self, copy: Option<Copy>) {
        let known = |pool: &String| self.losses.contains(pool);
        if let Some(pool) = copy.map(|copy| copy.pool).filter(|pool| !known(pool)) {
            self.losses.push_back(pool);
        }
    }

    fn names(&self, more: Option<&str>) -> Vec<String> {
        let names = self.members.iter().map(|copy| copy.pool.clone());
        names.chain(more.map(str::to_owned)).collect()
    }
}
