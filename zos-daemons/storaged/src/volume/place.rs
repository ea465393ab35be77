//! Where a new volume goes: the pool of its class with the most room left, counted in full.

use zos_types::Bytes;
use zos_types::deployment::Class;

/// A pool's room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// The pool's id.
    pub pool: String,
    /// Its class.
    pub class: Class,
    /// What all its volumes together may take.
    pub capacity: Bytes,
    /// What its volumes take, each with its full size, written or not.
    pub reserved: Bytes,
}

impl Room {
    /// What may still be given away.
    pub fn free(&self) -> Bytes {
        self.capacity - self.reserved
    }
}

/// The pool for a volume; if none has room, the most that one could have.
pub fn place(rooms: &[Room], class: Class, size: Bytes) -> Result<&Room, Bytes> {
    let of_class = rooms.iter().filter(|room| room.class == class);
    // Of equals the first by id, so that the same question has the same answer.
    let best = of_class.max_by(|a, b| a.free().cmp(&b.free()).then(b.pool.cmp(&a.pool)));
    match best {
        Some(room) if room.free() >= size => Ok(room),
        Some(room) => Err(room.free()),
        None => Err(Bytes(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(pool: &str, class: Class, capacity: u64, reserved: u64) -> Room {
        let (capacity, reserved) = (Bytes(capacity), Bytes(reserved));
        Room { pool: pool.into(), class, capacity, reserved }
    }

    #[test]
    fn places() {
        let rooms = [
            room("a", Class::Ssd, 100, 60),
            room("b", Class::Ssd, 100, 20),
            room("c", Class::Hdd, 1000, 0),
            room("d", Class::Ssd, 80, 0),
        ];
        let check = |class, size, expected: Result<&str, u64>| {
            let found = place(&rooms, class, Bytes(size));
            assert_eq!(found.map(|r| &*r.pool).map_err(|b| b.0), expected);
        };
        check(Class::Ssd, 10, Ok("b"));
        check(Class::Ssd, 80, Ok("b"));
        check(Class::Ssd, 81, Err(80));
        check(Class::Hdd, 1000, Ok("c"));
        check(Class::Hdd, 1001, Err(1000));
        assert_eq!(place(&[], Class::Ssd, Bytes(1)), Err(Bytes(0)));
        assert_eq!(place(&[room("x", Class::Ssd, 5, 9)], Class::Ssd, Bytes(1)), Err(Bytes(0)));
    }

    proptest! {
        #[test]
        fn nothing_is_promised_twice(
            capacities in prop::collection::vec(0..1000u64, 1..5),
            sizes in prop::collection::vec(1..300u64, 0..40),
        ) {
            let mut rooms: Vec<Room> = capacities
                .iter()
                .enumerate()
                .map(|(i, capacity)| room(&i.to_string(), Class::Ssd, *capacity, 0))
                .collect();
            for size in sizes {
                let Ok(pool) = place(&rooms, Class::Ssd, Bytes(size)).map(|r| r.pool.clone()) else {
                    continue;
                };
                let room = rooms.iter_mut().find(|r| r.pool == pool).unwrap();
                room.reserved = room.reserved + Bytes(size);
                prop_assert!(room.reserved <= room.capacity);
            }
        }
    }
}
