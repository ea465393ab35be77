use proptest::prelude::*;
use zos_types::Amount;
use zos_types::unit::{GIB, MIB};

use super::*;

/// 2 threads, 2 GiB less 256 MiB, 20 GiB of SSD less 1, no HDD.
fn node() -> Capacity {
    Capacity {
        cru: Amount::new(2, 0),
        mru: Amount::new(2 * GIB, 256 * MIB),
        sru: Amount::new(20 * GIB, GIB),
        ..Capacity::default()
    }
}

fn empty() -> Ledger {
    Ledger {
        pools: vec![(Class::Ssd, Bytes(12 * GIB)), (Class::Ssd, Bytes(7 * GIB))],
        ..Ledger::default()
    }
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
        let result = admit(&node(), &empty(), &deployment(&workloads.join(",")));
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
    check(&[volume("v", "7GiB", "ssd"), volume("w", "7GiB", "ssd")], &[]);
    check(&[volume("v", "8GiB", "ssd"), volume("w", "8GiB", "ssd")], &["/workloads/w/size"]);
    check(&[volume("v", "1GiB", "hdd")], &["/workloads/v/size"]);
    check(
        &[vm("a", 9, "4GiB"), volume("v", "1TiB", "ssd")],
        &["/workloads/a/cpu", "/workloads/a/memory", "/workloads/v/size"],
    );
}

#[test]
fn what_others_hold_is_not_given_again() {
    let others =
        Resources { cru: 7, mru: Bytes(GIB), sru: Bytes(15 * GIB), ..Resources::default() };
    let ledger = Ledger { others, ..empty() };
    let judge = |workloads: &str| admit(&node(), &ledger, &deployment(workloads)).is_ok();
    assert!(judge(&vm("a", 1, "512MiB")));
    assert!(!judge(&vm("a", 2, "512MiB")));
    assert!(!judge(&vm("a", 1, "768MiB")));
    assert!(judge(&volume("v", "4GiB", "ssd")));
    assert!(!judge(&volume("v", "5GiB", "ssd")));
}

#[test]
fn one_that_takes_no_more_than_before_is_admitted_on_a_shrunken_node() {
    let wanted = deployment(&[vm("a", 1, "512MiB"), volume("v", "1GiB", "ssd")].join(","));
    let ledger =
        Ledger { own: wanted.charged(), volumes: vec!["v".parse().unwrap()], ..Ledger::default() };
    assert!(admit(&Capacity::default(), &ledger, &wanted).is_ok());
    assert!(admit(&Capacity::default(), &Ledger::default(), &wanted).is_err());
}

proptest! {
    /// Whatever is admitted one after the other, no more is given than the node offers.
    #[test]
    fn nothing_is_given_twice(wishes in prop::collection::vec((1u32..4, 64u64..900, 16u64..9000), 0..30)) {
        let mut ledger = empty();
        for (cpu, memory, size) in wishes {
            let wanted = deployment(&[vm("a", cpu, &format!("{memory}MiB")), volume("v", &format!("{size}MiB"), "ssd")].join(","));
            if let Ok(Admission { charged }) = admit(&node(), &ledger, &wanted) {
                ledger.others = ledger.others + charged;
            }
        }
        prop_assert!(ledger.others.cru <= 8);
        prop_assert!(ledger.others.mru.0 <= 2 * GIB - 256 * MIB);
        prop_assert!(ledger.others.sru.0 <= 19 * GIB);
    }
}
