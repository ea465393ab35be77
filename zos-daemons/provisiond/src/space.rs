//! Room on disks: whether storaged can give what is promised, whatever it makes first. Pure.
//!
//! ```text
//!  pools, as storaged tells what is free of them
//!     ▲ fixed    growth, a clone, a snapshot: on the pools of what is there already
//!     ▲ free     a new volume: on any `copies` pools of its class that have room
//! ```
//! What was admitted and is not made yet is made in any order, and a new volume goes where storaged
//! puts it. So a promise must hold after all the others took their room in the worst way:
//!
//! - fixed: its pool has room for it and for all that may come to that pool;
//! - free: each pool that could take it must first lose what it has too much for that. The others
//!   together take less than that of all pools (of all but the best, for the second copy).
//!
//! Each step that is done keeps this true for those that are left, so none of them finds no room. With
//! one pool, and with nothing that is still to be made, it asks for not a byte more than is needed.

use std::collections::BTreeMap;

use zos_types::Bytes;
use zos_types::deployment::Class;
use zos_types::disk;
use zos_types::volume::Footprint;

/// A pool with room for volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Its class.
    pub class: Class,
    /// What may still be given away.
    pub free: Bytes,
    /// Whether it takes new volumes.
    pub open: bool,
}

/// Room that was promised and not taken yet, or that somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// Of this class.
    pub class: Class,
    /// How much, on how many pools.
    pub takes: Footprint,
    /// On these pools; none: on any, each copy on another.
    pub on: Vec<String>,
}

impl Need {
    fn total(&self) -> u128 {
        u128::from(self.takes.each.0) * u128::from(self.takes.copies)
    }

    fn may_come_to(&self, id: &str, pool: &Pool) -> bool {
        if self.on.is_empty() {
            pool.open && pool.class == self.class
        } else {
            self.on.iter().any(|on| on == id)
        }
    }
}

/// Pools with what was promised of them. Every promise in it holds.
#[derive(Clone, Default, Debug)]
pub struct Space {
    pools: BTreeMap<String, Pool>,
    promised: Vec<Need>,
}

impl Space {
    /// Pools as storaged tells of them.
    pub fn new<'a>(pools: impl IntoIterator<Item = &'a disk::Pool>) -> Self {
        let pool = |pool: &disk::Pool| {
            let open = pool.condition == disk::PoolState::Ready;
            (pool.id.clone(), Pool { class: pool.class, free: pool.free, open })
        };
        Self { pools: pools.into_iter().map(pool).collect(), promised: Vec::new() }
    }

    /// The same with what was promised before. What a node that has shrunk can't keep is left out: it
    /// waits for room, and nobody else is held up by it.
    pub fn with(mut self, promised: Vec<Need>) -> Self {
        self.promised = promised;
        if self.holds() {
            return self;
        }
        for need in std::mem::take(&mut self.promised) {
            // An error is no matter: it is left out.
            let _ = self.promise(need);
        }
        self
    }

    /// Whether there is a pool of a class.
    pub fn has(&self, class: Class) -> bool {
        self.pools.values().any(|pool| pool.class == class)
    }

    /// Promises room, or says what is missing.
    pub fn promise(&mut self, need: Need) -> Result<(), String> {
        let (lacks, class) = (self.lacks(&need), need.class);
        self.promised.push(need);
        if self.holds() {
            return Ok(());
        }
        self.promised.pop();
        Err(lacks.unwrap_or_else(|| self.crowded(class)))
    }

    /// What is left of a pool when all that must lie there is there.
    fn left(&self, id: &str, pool: &Pool) -> u128 {
        let fixed = self.promised.iter().filter(|need| need.on.iter().any(|on| on == id));
        let fixed: u128 = fixed.map(|need| u128::from(need.takes.each.0)).sum();
        u128::from(pool.free.0).saturating_sub(fixed)
    }

    /// What is left of each pool that takes new volumes of a class, most first.
    fn open(&self, class: Class) -> Vec<u128> {
        let pools = self.pools.iter().filter(|(_, pool)| pool.open && pool.class == class);
        let mut left: Vec<u128> = pools.map(|(id, pool)| self.left(id, pool)).collect();
        left.sort_unstable_by(|a, b| b.cmp(a));
        left
    }

    /// What new volumes of a class that are still to be made take, all together.
    fn waiting(&self, class: Class) -> u128 {
        let free = self.promised.iter().filter(|need| need.on.is_empty() && need.class == class);
        free.map(Need::total).sum()
    }

    /// Whether each promise holds, whatever is made first.
    fn holds(&self) -> bool {
        let mut open: BTreeMap<Class, (Vec<u128>, u128)> = BTreeMap::new();
        for class in [Class::Ssd, Class::Hdd] {
            let free =
                self.promised.iter().filter(|need| need.on.is_empty() && need.class == class);
            open.insert(class, (self.open(class), free.map(Need::total).sum()));
        }
        // What may come to each pool, all together.
        let come: BTreeMap<&String, u128> = self
            .pools
            .iter()
            .map(|(id, pool)| {
                let coming = self.promised.iter().filter(|need| need.may_come_to(id, pool));
                (id, coming.map(|need| u128::from(need.takes.each.0)).sum())
            })
            .collect();
        let holds = |need: &Need| {
            if need.on.is_empty() {
                let (left, all) = &open[&need.class];
                return fits(left, need, all - need.total());
            }
            need.on.iter().all(|id| {
                self.pools.get(id).is_some_and(|pool| come[id] <= u128::from(pool.free.0))
            })
        };
        self.promised.iter().all(holds)
    }

    /// What is missing for a need if nobody else were there that is still to be served in any place.
    fn lacks(&self, need: &Need) -> Option<String> {
        let (class, each) = (need.class, need.takes.each);
        if need.on.is_empty() {
            let mut left = self.open(class);
            if let [only] = left.as_mut_slice() {
                *only = only.saturating_sub(self.waiting(class));
            }
            let copies = usize::from(need.takes.copies);
            if left.is_empty() {
                return Some(self.closed(class));
            }
            if left.len() < copies {
                return Some(format!(
                    "two copies on two disks are needed, and the node has one {class} with room for volumes"
                ));
            }
            let (left, best) = (left[copies - 1], left[0]);
            if left >= u128::from(each.0) {
                return None;
            }
            let (left, best) = (bytes(left), bytes(best));
            return Some(if copies > 1 {
                format!(
                    "{each} are needed on each of two disks; {best} and {left} are left on the emptiest {class}s"
                )
            } else {
                format!(
                    "a volume lies on one disk, and {left} are left on the emptiest {class}; {each} are needed"
                )
            });
        }
        let least = need.on.iter().map(|id| self.pools.get(id).map(|pool| self.left(id, pool)));
        match least.min().flatten() {
            Some(left) if left >= u128::from(each.0) => None,
            Some(left) => {
                let left = bytes(left);
                Some(format!("{left} are left on the disk that it lies on; {each} more are needed"))
            }
            None => Some("the disk that it lies on is missing".to_owned()),
        }
    }

    fn closed(&self, class: Class) -> String {
        if self.has(class) {
            format!("no {class} of the node takes new volumes: each fails or is being taken out")
        } else {
            format!("the node has no {class}")
        }
    }

    /// It would fit alone, but not beside what is still to be made.
    fn crowded(&self, class: Class) -> String {
        let waiting: u128 =
            self.promised.iter().filter(|n| n.class == class).map(Need::total).sum();
        format!(
            "{} of the room that is left on {class} are promised to what is still to be made; try again when it is, \
             or ask for less",
            bytes(waiting)
        )
    }
}

/// Whether a need finds its pools after others took `others` in the worst way.
fn fits(left: &[u128], need: &Need, others: u128) -> bool {
    let each = u128::from(need.takes.each.0);
    // Most first: skipping some leaves out the best.
    let spare = left.iter().map(|left| (left + 1).saturating_sub(each));
    let spare: u128 = spare.skip(usize::from(need.takes.copies).saturating_sub(1)).sum();
    spare > others
}

fn bytes(amount: u128) -> Bytes {
    Bytes(u64::try_from(amount).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
