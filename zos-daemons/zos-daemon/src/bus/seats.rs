//! How many connections a daemon has, and each user of it: one that goes mad leaves room for others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// apid may carry a log on each of its 256 connections, and asks beside that.
const OF_A_USER: usize = 384;
/// Below the 1024 descriptors that a process has by default.
const IN_ALL: usize = 512;

/// The connections that are, by user id. Clones count the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<u32, usize>>>);

impl Seats {
    /// A seat for one more, or none.
    pub(super) fn take(&self, user: u32) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&user).copied().unwrap_or(0));
        if own >= OF_A_USER || all >= IN_ALL {
            return None;
        }
        taken.insert(user, own + 1);
        Some(Seat { seats: self.clone(), user })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    user: u32,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_leaves_room_for_others_and_gives_back_what_it_took() {
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..OF_A_USER).map(|_| seats.take(118).unwrap()).collect();
        assert!(seats.take(118).is_none());
        taken.extend((OF_A_USER..IN_ALL).map(|_| seats.take(0).unwrap()));
        assert!(seats.take(115).is_none());
        taken.remove(0);
        assert!(seats.take(115).is_some() && seats.take(118).is_some());
        taken.clear();
        assert_eq!((seats.taken(), seats.0.lock().unwrap().len()), (0, 0));
    }
}
