//! A pool that the farmer takes out: what lies on it, where that would go, and letting go of it.

use zos_types::disk::PoolState;
use zos_types::volume::Footprint;

use super::place::place_beside;
use super::{Entry, Table, Volumes};
use crate::adopt::plan::Move;
use crate::disk::header::Header;
use crate::pool::Pool;

impl Volumes {
    /// Takes in what a pool's header says now.
    pub fn set_header(&self, header: &Header) {
        let mut table = self.table();
        if let Some(pool) = table.pools.get_mut(&header.pool) {
            pool.header = header.clone();
            let pool = pool.clone();
            table.insert(header.pool.clone(), pool);
        }
    }

    /// Where everything on a pool would go, snapshots with their volumes.
    pub fn moves(&self, pool: &str) -> Vec<Move> {
        let table = self.table();
        let mut rooms = table.rooms();
        rooms.retain(|room| room.pool != pool);
        let mut moves = Vec::new();
        for ((twin, name), entry) in table.entries.iter().filter(|(_, entry)| entry.is_on(pool)) {
            let size = entry.takes(pool);
            let to = entry.record().and_then(|record| {
                let all = Footprint { copies: 1, each: size };
                let place = place_beside(&rooms, record.class, all, &record.legs).ok()?;
                place.pools.into_iter().next()
            });
            for room in rooms.iter_mut().filter(|room| Some(&room.pool) == to.as_ref()) {
                room.reserved = [room.reserved, size].into_iter().sum();
            }
            let kept = match entry.shots.len() {
                0 => String::new(),
                1 => " with a snapshot".to_owned(),
                n => format!(" with {n} snapshots"),
            };
            moves.push(Move {
                what: format!("volume {name} of twin {}{kept}", twin.short()),
                size,
                to,
            });
        }
        moves
    }

    /// Forgets a pool on which nothing is left; else what is, in words.
    pub fn let_go(&self, pool: &str) -> Result<(), Vec<String>> {
        let mut table = self.table();
        let left: Vec<String> = table
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_on(pool))
            .map(|((twin, name), _)| format!("{name} of twin {}", twin.short()))
            .collect();
        if !left.is_empty() {
            return Err(left);
        }
        table.pools.remove(pool);
        table.doing.remove(pool);
        Ok(())
    }
}

impl Entry {
    /// Whether anything of it lies on a pool, or is about to.
    fn is_on(&self, pool: &str) -> bool {
        self.copies.contains_key(pool) || self.takes(pool).0 > 0
    }
}

impl Table {
    pub(super) fn insert(&mut self, id: String, pool: Pool) {
        if pool.leaves() {
            let reason = "the farmer takes its disk out".to_owned();
            self.doing.insert(id.clone(), (PoolState::Leaving, vec![reason]));
        }
        self.pools.insert(id, pool);
    }
}
