//! Where a new volume goes: the pools of its class with the most room left, counted in full.

use zos_types::Bytes;
use zos_types::deployment::Class;
use zos_types::disk::PoolState;
use zos_types::volume::Footprint;

/// A pool's room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// The pool's id.
    pub pool: String,
    /// Its class.
    pub class: Class,
    /// What all its volumes together may take.
    pub capacity: Bytes,
    /// What its volumes and their snapshots take, each in full, written or not.
    pub reserved: Bytes,
    /// Only one that is ready takes more.
    pub condition: PoolState,
}

impl Room {
    /// What may still be given away.
    pub fn free(&self) -> Bytes {
        self.capacity - self.reserved
    }

    /// What may still be given to a new volume.
    pub fn offered(&self) -> Bytes {
        if self.condition == PoolState::Ready { self.free() } else { Bytes(0) }
    }
}

/// Pools for a volume, and why these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// One for each copy.
    pub pools: Vec<String>,
    /// In words.
    pub reason: String,
}

/// The pools for a volume; if there are none with room, the most that each copy could have.
pub fn place(rooms: &[Room], class: Class, footprint: Footprint) -> Result<Place, Bytes> {
    place_beside(rooms, class, footprint, &[])
}

/// The same, but on none of `taken`: those hold the volume's other copy, or are being left.
pub fn place_beside(
    rooms: &[Room],
    class: Class,
    footprint: Footprint,
    taken: &[String],
) -> Result<Place, Bytes> {
    let of_class = || rooms.iter().filter(|room| room.class == class);
    let mut best: Vec<&Room> = of_class()
        .filter(|room| room.condition == PoolState::Ready && !taken.contains(&room.pool))
        .collect();
    // Of equals the first by id, so that the same question has the same answer.
    best.sort_by(|a, b| b.free().cmp(&a.free()).then(a.pool.cmp(&b.pool)));
    let copies = usize::from(footprint.copies);
    match best.get(copies.saturating_sub(1)) {
        Some(room) if room.free() >= footprint.each => {
            let pools = best[..copies].iter().map(|room| room.pool.clone()).collect();
            Ok(Place { pools, reason: reason(class, copies, best.len(), of_class().count()) })
        }
        Some(room) => Err(room.free()),
        None => Err(Bytes(0)),
    }
}

fn reason(class: Class, copies: usize, fit: usize, all: usize) -> String {
    let left_out = match all - fit {
        0 => String::new(),
        n => format!(", {n} left out"),
    };
    match (copies, fit) {
        (1, 1) => format!("the only {class} pool{left_out}"),
        (2, 2) => format!("two disks, of 2 {class} pools{left_out}"),
        (1, fit) => format!("most room of {fit} {class} pools{left_out}"),
        (_, fit) => format!("two disks, with most room of {fit} {class} pools{left_out}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zos_types::deployment::Integrity;
    use zos_types::unit::{GIB, MIB};

    fn room(pool: &str, class: Class, capacity: u64, reserved: u64) -> Room {
        let (capacity, reserved) = (Bytes(capacity), Bytes(reserved));
        Room { pool: pool.into(), class, capacity, reserved, condition: PoolState::Ready }
    }

    fn one(each: u64) -> Footprint {
        Footprint { copies: 1, each: Bytes(each) }
    }

    #[test]
    fn places() {
        let mut rooms = vec![
            room("a", Class::Ssd, 100, 60),
            room("b", Class::Ssd, 100, 20),
            room("c", Class::Hdd, 1000, 0),
            room("d", Class::Ssd, 80, 0),
        ];
        let check = |rooms: &[Room], class, copies, each, expected: Result<&str, u64>| {
            let found = place(rooms, class, Footprint { copies, each: Bytes(each) });
            let found = found.map(|p| format!("{}: {}", p.pools.join(" "), p.reason));
            assert_eq!(found.as_deref().map_err(|b| b.0), expected);
        };
        check(&rooms, Class::Ssd, 1, 10, Ok("b: most room of 3 ssd pools"));
        check(&rooms, Class::Ssd, 1, 80, Ok("b: most room of 3 ssd pools"));
        check(&rooms, Class::Ssd, 1, 81, Err(80));
        check(&rooms, Class::Hdd, 1, 1000, Ok("c: the only hdd pool"));
        check(&rooms, Class::Hdd, 1, 1001, Err(1000));
        check(&rooms, Class::Ssd, 2, 80, Ok("b d: two disks, with most room of 3 ssd pools"));
        check(&rooms, Class::Ssd, 2, 81, Err(80));
        check(&rooms, Class::Hdd, 2, 1, Err(0));
        rooms[1].condition = PoolState::AtRisk;
        check(&rooms, Class::Ssd, 1, 10, Ok("d: most room of 2 ssd pools, 1 left out"));
        check(&rooms, Class::Ssd, 2, 10, Ok("d a: two disks, of 2 ssd pools, 1 left out"));
        check(&rooms, Class::Ssd, 2, 41, Err(40));
        rooms[3].condition = PoolState::Leaving;
        check(&rooms, Class::Ssd, 1, 10, Ok("a: the only ssd pool, 2 left out"));
        check(&rooms, Class::Ssd, 2, 10, Err(0));
        check(&[], Class::Ssd, 1, 1, Err(0));
        check(&[room("x", Class::Ssd, 5, 9)], Class::Ssd, 1, 1, Err(0));
        let beside = place_beside(&rooms, Class::Ssd, one(1), &["a".to_owned()]);
        assert_eq!(beside, Err(Bytes(0)));
    }

    proptest! {
        #[test]
        fn nothing_is_promised_twice(
            capacities in prop::collection::vec(0..4 * GIB, 1..5),
            wanted in prop::collection::vec((1..300 * MIB, 0..3u8), 0..40),
        ) {
            let mut rooms: Vec<Room> = capacities
                .iter()
                .enumerate()
                .map(|(i, capacity)| room(&i.to_string(), Class::Ssd, *capacity, 0))
                .collect();
            for (size, integrity) in wanted {
                let integrity =
                    [Integrity::None, Integrity::Detect, Integrity::Repair][usize::from(integrity)];
                let footprint = Footprint::of(Bytes(size), integrity);
                let Ok(place) = place(&rooms, Class::Ssd, footprint) else { continue };
                prop_assert_eq!(place.pools.len(), usize::from(footprint.copies));
                prop_assert!(place.pools.first() != place.pools.get(1));
                for room in rooms.iter_mut().filter(|room| place.pools.contains(&room.pool)) {
                    room.reserved = room.reserved + footprint.each;
                    prop_assert!(room.reserved <= room.capacity);
                }
            }
        }
    }
}
