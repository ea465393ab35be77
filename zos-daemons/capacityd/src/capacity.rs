//! From facts to what is offered. What the node keeps for itself:
//!
//! | Resource | Kept |
//! |----------|------|
//! | cru      | nothing: the node's own work is small, and its cgroup has its weight |
//! | mru      | what the kernel took, what the node uses now, and 1/64 of all for page tables, watermarks and growth; in steps of 16 MiB, at least 208 MiB, or a quarter where that is less |
//! | sru, hru | nothing: a pool's size is what storaged gives to volumes, its own part taken off |

use zos_types::deployment::Class;
use zos_types::disk::Pool;
use zos_types::unit::MIB;
use zos_types::{Amount, Capacity};

use crate::Inventory;

/// The least memory that a node keeps, where it is less than a quarter of all.
const FLOOR: u64 = 208 * MIB;
/// The kept memory comes in these steps, so that it does not change with each measurement.
const STEP: u64 = 16 * MIB;

/// What a machine with these pools has to give; nothing of it used.
pub fn capacity(inventory: &Inventory, pools: &[Pool]) -> Capacity {
    Capacity {
        cru: Amount::new(inventory.threads, 0),
        mru: Amount::new(inventory.memory.0, kept_memory(inventory)),
        sru: storage(pools, Class::Ssd),
        hru: storage(pools, Class::Hdd),
        ipv4: Amount::default(),
    }
}

fn kept_memory(inventory: &Inventory) -> u64 {
    let all = inventory.memory.0;
    let needed = inventory.kernel.0.saturating_add(inventory.own.0).saturating_add(all / 64);
    let floor = FLOOR.min(all / 4);
    needed.checked_next_multiple_of(STEP).unwrap_or(u64::MAX).max(floor).min(all)
}

fn storage(pools: &[Pool], class: Class) -> Amount {
    let of_class = pools.iter().filter(|pool| pool.class == class);
    Amount::new(of_class.fold(0u64, |sum, pool| sum.saturating_add(pool.size.0)), 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zos_types::Bytes;
    use zos_types::disk::PoolState;
    use zos_types::unit::GIB;

    use super::*;

    fn memory(all: u64, kernel: u64, own: u64) -> Inventory {
        Inventory {
            processor: String::new(),
            threads: 2,
            memory: Bytes(all * MIB),
            kernel: Bytes(kernel * MIB),
            own: Bytes(own * MIB),
        }
    }

    fn pool(class: Class, gib: u64, state: bool) -> Pool {
        let (id, disk) = ("a".into(), "vda".into());
        Pool {
            id,
            disk,
            class,
            size: Bytes(gib * GIB),
            free: Bytes(0),
            state,
            condition: PoolState::Ready,
            reasons: Vec::new(),
            scrub: None,
        }
    }

    #[test]
    fn memory_that_the_node_keeps() {
        let check = |all, kernel, own, kept| {
            let amount = capacity(&memory(all, kernel, own), &[]).mru;
            assert_eq!(amount.reserved, kept * MIB, "{all} {kernel} {own}");
            assert_eq!(amount.free, (all - kept) * MIB);
        };
        check(2048, 80, 60, 208); // the floor
        check(2048, 80, 150, 272); // 80 + 150 + 32 = 262
        check(1024, 70, 90, 208); // a small machine has most of it to give
        check(512, 40, 60, 128); // the floor is a quarter
        check(512, 100, 500, 512); // never more than there is
        check(262_144, 4096, 300, 8496); // 4096 + 300 + 4096
        check(0, 0, 0, 0);
    }

    #[test]
    fn storage_by_class() {
        let pools =
            [pool(Class::Ssd, 100, true), pool(Class::Ssd, 50, false), pool(Class::Hdd, 4, true)];
        let capacity = capacity(&memory(0, 0, 0), &pools);
        assert_eq!(capacity.sru, Amount::new(150 * GIB, 0));
        assert_eq!(capacity.hru, Amount::new(4 * GIB, 0));
        assert_eq!(capacity.ipv4, Amount::default());
    }

    proptest! {
        #[test]
        fn any_facts_add_up(threads: u64, all: u64, kernel: u64, own: u64, size: u64, state: bool) {
            let inventory = Inventory {
                processor: String::new(), threads, memory: Bytes(all), kernel: Bytes(kernel), own: Bytes(own),
            };
            let mut disk = pool(Class::Ssd, 0, state);
            disk.size = Bytes(size);
            let capacity = capacity(&inventory, &[disk.clone(), disk]);
            for amount in [capacity.cru, capacity.mru, capacity.sru, capacity.hru] {
                prop_assert_eq!(amount.free, amount.total - amount.reserved);
            }
        }
    }
}
