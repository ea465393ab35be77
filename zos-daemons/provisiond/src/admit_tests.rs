use proptest::prelude::*;
use zos_types::deployment::Class;
use zos_types::disk::{Pool, PoolState};
use zos_types::unit::{GIB, MIB};
use zos_types::{Amount, NodeId};

use super::*;
use crate::book::Owner;
use crate::needs::There;
use crate::plan::Desired;

/// 2 threads, 2 GiB less 256 MiB, 20 GiB of SSD less 1, no HDD.
fn node() -> Capacity {
    Capacity {
        cru: Amount::new(2, 0),
        mru: Amount::new(2 * GIB, 256 * MIB),
        sru: Amount::new(20 * GIB, GIB),
        ..Capacity::default()
    }
}

/// Two pools with room for 12 and for 7 GiB of data.
fn pools() -> Vec<Pool> {
    let pool = |id: &str, gib: u64| Pool {
        id: id.into(),
        disk: format!("vd{id}"),
        class: Class::Ssd,
        size: Bytes(gib * GIB + MIB),
        free: Bytes(gib * GIB + MIB),
        state: false,
        condition: PoolState::Ready,
        reasons: Vec::new(),
        scrub: None,
    };
    vec![pool("a", 12), pool("b", 7)]
}

/// Nothing is there and nothing promised to others.
fn ledger(wanted: &Deployment) -> Ledger {
    let (volumes, desired) = (BTreeMap::new(), Desired::default());
    let there = There { volumes: &volumes, desired: &desired };
    Ledger {
        space: Space::new(&pools()),
        needs: there.needs(&owner(), wanted),
        ..Ledger::default()
    }
}

fn owner() -> Owner {
    let twin = NodeId::from_bytes([[0x58].as_slice(), &[0x66; 31]].concat().try_into().unwrap());
    (twin.unwrap(), "web".parse().unwrap())
}

fn deployment(workloads: &str) -> Deployment {
    let text = format!(r#"{{"version": 1, "workloads": {{{workloads}}}}}"#);
    Deployment::from_json(text.as_bytes()).unwrap()
}

fn vm(name: &str, cpu: u32, memory: &str) -> String {
    format!(
        r#""{name}": {{"type": "vm", "cpu": {cpu}, "memory": "{memory}", "image": "builtin:hello"}}"#
    )
}

fn volume(name: &str, size: &str, class: &str) -> String {
    format!(r#""{name}": {{"type": "volume", "size": "{size}", "class": "{class}"}}"#)
}

#[test]
fn room_is_judged_field_by_field() {
    let check = |workloads: &[String], refused: &[&str]| {
        let wanted = deployment(&workloads.join(","));
        let result = admit(&node(), &ledger(&wanted), &wanted);
        let pointers: Vec<String> = match result {
            Ok(_) => vec![],
            Err(Rejection(errors)) => errors.into_iter().map(|e| e.pointer).collect(),
        };
        assert_eq!(pointers, refused, "{workloads:?}");
    };
    check(&[], &[]);
    check(&[vm("a", 2, "1GiB"), volume("v", "12GiB", "ssd")], &[]);
    check(&[vm("a", 3, "1GiB")], &["/workloads/a/cpu"]);
    let eight = |size| ["a", "b", "c", "d"].map(|name| vm(name, 2, size)).to_vec();
    check(&eight("256MiB"), &[]);
    check(&[eight("128MiB"), vec![vm("e", 1, "64MiB")]].concat(), &["/workloads/e/cpu"]);
    // 1792 MiB are offered, but running it takes some beside the guest's memory
    check(&[vm("a", 1, "1792MiB")], &["/workloads/a/memory"]);
    check(&[vm("a", 1, "1754MiB")], &[]);
    check(&[vm("a", 1, "1GiB"), vm("b", 1, "1GiB")], &["/workloads/b/memory"]);
    check(&[volume("v", "19GiB", "ssd")], &["/workloads/v/size"]);
    check(&[volume("v", "6GiB", "ssd"), volume("w", "6GiB", "ssd")], &[]);
    // Made first, the smaller might take the larger one's place.
    check(&[volume("v", "12GiB", "ssd"), volume("w", "7GiB", "ssd")], &["/workloads/w/size"]);
    check(&[volume("v", "8GiB", "ssd"), volume("w", "8GiB", "ssd")], &["/workloads/w/size"]);
    check(&[volume("v", "1GiB", "hdd")], &["/workloads/v/class"]);
    let repair = volume("v", "7GiB", "ssd").replace('}', r#", "integrity": "repair"}"#);
    check(std::slice::from_ref(&repair), &["/workloads/v/size"]); // its checksums have no room
    check(&[repair.replace("7GiB", "6GiB")], &[]);
    check(
        &[vm("a", 9, "4GiB"), volume("v", "1TiB", "ssd")],
        &["/workloads/a/cpu", "/workloads/a/memory", "/workloads/v/size"],
    );
}

#[test]
fn what_others_hold_is_not_given_again() {
    let others = Resources { cru: 7, mru: Bytes(GIB), ..Resources::default() };
    let judge = |workloads: &str| {
        let wanted = deployment(workloads);
        let promised = ledger(&deployment(&volume("x", "12GiB", "ssd"))).needs.into_values();
        let space = Space::new(&pools()).with(promised.collect());
        admit(&node(), &Ledger { others, space, ..ledger(&wanted) }, &wanted).is_ok()
    };
    assert!(judge(&vm("a", 1, "512MiB")));
    assert!(!judge(&vm("a", 2, "512MiB")));
    assert!(!judge(&vm("a", 1, "768MiB")));
    assert!(!judge(&volume("v", "1GiB", "ssd"))); // it might take the place that x needs
}

#[test]
fn one_that_takes_no_more_than_before_is_admitted_on_a_shrunken_node() {
    let wanted = deployment(&[vm("a", 1, "512MiB"), volume("v", "1GiB", "ssd")].join(","));
    let made = Ledger { own: wanted.charged(), ..Ledger::default() };
    assert!(admit(&Capacity::default(), &made, &wanted).is_ok());
    let ledger = Ledger { space: Space::default(), ..ledger(&wanted) };
    assert!(admit(&Capacity::default(), &ledger, &wanted).is_err());
}

proptest! {
    /// Whatever is admitted one after the other, no more is given than the node offers.
    #[test]
    fn nothing_is_given_twice(wishes in prop::collection::vec((1u32..4, 64u64..900, 16u64..9000), 0..30)) {
        let (mut others, mut promised, mut given) = (Resources::default(), Vec::new(), 0);
        for (cpu, memory, size) in wishes {
            let wanted = deployment(&[vm("a", cpu, &format!("{memory}MiB")), volume("v", &format!("{size}MiB"), "ssd")].join(","));
            let space = Space::new(&pools()).with(promised.clone());
            let ledger = Ledger { others, space, ..ledger(&wanted) };
            if let Ok(Admission { charged }) = admit(&node(), &ledger, &wanted) {
                others = others + charged;
                promised.extend(ledger.needs.into_values());
                given += size * MIB;
            }
        }
        prop_assert!(others.cru <= 8);
        prop_assert!(others.mru.0 <= 2 * GIB - 256 * MIB);
        prop_assert!(given <= 19 * GIB);
    }
}
