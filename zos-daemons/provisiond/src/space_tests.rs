use proptest::prelude::*;

use super::*;

fn pool(id: &str, class: Class, free: u64, open: bool) -> disk::Pool {
    disk::Pool {
        id: id.into(),
        disk: "vda".into(),
        class,
        size: Bytes(1 << 40),
        free: Bytes(free),
        state: false,
        condition: if open { disk::PoolState::Ready } else { disk::PoolState::Leaving },
        reasons: Vec::new(),
        scrub: None,
    }
}

fn need(copies: u8, each: u64, on: &[&str]) -> Need {
    Need {
        class: Class::Ssd,
        takes: Footprint { copies, each: Bytes(each) },
        on: on.iter().map(ToString::to_string).collect(),
    }
}

fn space(free: &[u64]) -> Space {
    let pools: Vec<_> = free
        .iter()
        .enumerate()
        .map(|(i, free)| pool(&format!("p{i}"), Class::Ssd, *free, true))
        .collect();
    Space::new(&pools)
}

#[test]
fn promises() {
    let check = |free: &[u64], needs: &[Need], refused: &[(usize, &str)]| {
        let mut space = space(free);
        let words: Vec<(usize, String)> = needs
            .iter()
            .enumerate()
            .filter_map(|(i, need)| Some((i, space.promise(need.clone()).err()?)))
            .collect();
        let found: Vec<usize> = words.iter().map(|(i, _)| *i).collect();
        let expected: Vec<usize> = refused.iter().map(|(i, _)| *i).collect();
        assert_eq!(found, expected, "{free:?} {needs:?} {words:?}");
        for ((_, found), (_, expected)) in words.iter().zip(refused) {
            assert!(found.contains(expected), "{found}");
        }
    };
    let new = |each| need(1, each, &[]);
    check(&[], &[new(1)], &[(0, "the node has no ssd")]);
    // one pool: to the last byte
    check(&[10], &[new(10)], &[]);
    check(&[10], &[new(11)], &[(0, "10 B are left on the emptiest ssd; 11 B are needed")]);
    check(&[10], &[new(4), new(6), new(1)], &[(2, "0 B are left on the emptiest ssd")]);
    // two: whatever is made first
    check(&[10, 10], &[new(10)], &[]);
    check(&[10, 10], &[new(5), new(5), new(5)], &[]);
    check(&[10, 10], &[new(6), new(10)], &[(1, "are promised")]);
    check(&[10, 9], &[new(10), new(1)], &[(1, "are promised")]);
    // two copies: two disks
    check(&[10], &[need(2, 1, &[])], &[(0, "two copies on two disks")]);
    check(&[10, 5], &[need(2, 5, &[])], &[]);
    check(&[10, 5], &[need(2, 6, &[])], &[(0, "each of two disks; 10 B and 5 B")]);
    check(&[10, 5, 5], &[need(2, 5, &[]), need(2, 5, &[])], &[(1, "")]);
    // at its place: growth, clones, snapshots
    check(&[10, 5], &[need(1, 6, &["p1"])], &[(0, "5 B are left on the disk that it lies on")]);
    check(&[10, 5], &[need(1, 6, &["p0"]), new(5)], &[(1, "are promised")]);
    check(&[10, 5], &[need(1, 6, &["p0"]), new(4)], &[]);
    check(&[10, 5], &[new(5), need(1, 6, &["p0"])], &[(1, "are promised")]);
    check(&[10, 5], &[need(2, 5, &["p0", "p1"]), need(1, 5, &["p0"])], &[]);
    check(&[10, 5], &[need(2, 6, &["p0", "p1"])], &[(0, "5 B are left")]);
    check(&[10], &[need(1, 1, &["gone"])], &[(0, "is missing")]);
}

#[test]
fn a_pool_that_is_left_takes_nothing_new() {
    let pools = [pool("a", Class::Ssd, 10, false), pool("b", Class::Hdd, 10, true)];
    let mut space = Space::new(&pools);
    let refused = space.promise(need(1, 1, &[])).unwrap_err();
    assert!(refused.starts_with("no ssd of the node takes new volumes"), "{refused}");
    assert_eq!(space.promise(need(1, 10, &["a"])), Ok(()));
}

/// A node that lost a disk owes more than it has. Who asks for what is there gets it.
#[test]
fn what_can_no_longer_be_kept_holds_nobody_up() {
    let mut shrunken = space(&[10, 10]).with(vec![need(1, 1000, &[]), need(1, 3, &[])]);
    assert_eq!(shrunken.promised, [need(1, 3, &[])]);
    assert_eq!(shrunken.promise(need(1, 5, &[])), Ok(()));
}

fn a_need() -> impl Strategy<Value = Need> {
    let fixed = prop_oneof![Just(vec!["p0"]), Just(vec!["p1"]), Just(vec!["p0", "p1"])];
    prop_oneof![
        (1..3u8, 1..40u64).prop_map(|(copies, each)| need(copies, each, &[])),
        (fixed, 1..20u64).prop_map(|(on, each)| need(u8::try_from(on.len()).unwrap(), each, &on)),
    ]
}

proptest! {
    /// Whatever was promised is given, in any order, by a storaged that puts a volume on any pools
    /// that have room. Some of it is made between one promise and the next.
    #[test]
    fn what_is_promised_is_given(
        free in prop::collection::vec(1..100u64, 2..5),
        wishes in prop::collection::vec((a_need(), any::<u64>(), any::<bool>()), 1..30),
        order in any::<u64>(),
    ) {
        let mut free: BTreeMap<String, u64> =
            free.into_iter().enumerate().map(|(i, free)| (format!("p{i}"), free)).collect();
        let mut promised: Vec<Need> = Vec::new();
        let make = |free: &mut BTreeMap<String, u64>, promised: &mut Vec<Need>, random: u64| {
            let need = promised.swap_remove(usize::try_from(random).unwrap() % promised.len());
            let each = need.takes.each.0;
            let mut on = need.on.clone();
            if on.is_empty() {
                on = free.iter().filter(|(_, free)| **free >= each).map(|(id, _)| id.clone()).collect();
                let count = on.len();
                prop_assert!(count >= usize::from(need.takes.copies), "{need:?} finds no room in {free:?}");
                on.rotate_left(usize::try_from(random / 7).unwrap() % count);
                on.truncate(usize::from(need.takes.copies));
            }
            for id in on {
                let left = free[&id].checked_sub(each);
                prop_assert!(left.is_some(), "{need:?} finds no room in {free:?}");
                free.insert(id, left.unwrap());
            }
            Ok(())
        };
        for (wish, random, now) in wishes {
            let pools: Vec<_> = free.iter().map(|(id, free)| pool(id, Class::Ssd, *free, true)).collect();
            let mut space = Space::new(&pools).with(promised.clone());
            prop_assert_eq!(&space.promised, &promised);
            if space.promise(wish.clone()).is_ok() {
                promised.push(wish);
            }
            if now && !promised.is_empty() {
                make(&mut free, &mut promised, random)?;
            }
        }
        let mut random = order;
        while !promised.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            make(&mut free, &mut promised, random >> 33)?;
        }
    }

    /// With one pool and no other, a promise is refused only if there is no room.
    #[test]
    fn one_pool_is_given_to_the_last_byte(free in 1..100u64, wishes in prop::collection::vec(1..50u64, 0..20)) {
        let mut left = free;
        let mut space = space(&[free]);
        for wish in wishes {
            let promised = space.promise(need(1, wish, &[])).is_ok();
            prop_assert_eq!(promised, wish <= left);
            left -= if promised { wish } else { 0 };
        }
    }
}
