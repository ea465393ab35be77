//! The state's copies over boots, losses and returns, with a keeper's jobs done by the test.

use std::cell::RefCell;

use zos_api::local::storage::StateCopies;

use super::tests::{Machine, X, disk, node, state};
use super::*;
use crate::copies::set::KEEPERS;
use crate::disk::header::sample;

/// A node with its state on `nvme0n1` and a copy of it on `sda`.
fn pair() -> Machine {
    let disks = [(0, "nvme0n1", Verdict::Empty), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(6);
    machine.identity(X);
    machine
}

fn copies(machine: &Machine) -> Vec<(String, bool)> {
    let told: StateCopies = machine.keeper.copies().unwrap();
    let short = |pool: String| pool.trim_start_matches('0').to_owned();
    told.copies
        .into_iter()
        .map(|copy| (format!("{} {}", short(copy.pool), copy.path), copy.current))
        .collect()
}

/// All daemons have joined what is being filled.
fn join(machine: &mut Machine) {
    let told = machine.keeper.copies().unwrap();
    for copy in told.copies.into_iter().filter(|copy| !copy.current) {
        for user in KEEPERS {
            machine.event(Event::StateJoined(copy.pool.clone(), copy.coming.clone(), user));
        }
    }
}

fn unplug(machine: &mut Machine, name: &str) -> (u64, block::Disk, Verdict) {
    let gone = machine.disks.remove(name).unwrap();
    let list = machine.disks.values().map(|(_, disk, _)| disk.clone()).collect();
    machine.event(Event::Disks(list, vec![name.to_owned()]));
    gone
}

/// What a boot finds on these disks.
fn boot(machine: &Machine, names: &[&str]) -> Machine {
    let disks: Vec<_> =
        names.iter().map(|name| (0, *name, machine.disks[*name].2.clone())).collect();
    let mut next = Machine::new(Wanted::Unsaid, &disks);
    next.next_pool = 200;
    next.until(6);
    next
}

#[test]
fn a_second_disk_becomes_a_copy_when_all_have_joined() {
    let mut machine = pair();
    assert_eq!(machine.written[2..], ["adopt sda", "filling 1 sda 65"],);
    assert_eq!(copies(&machine), [("65 /state".into(), true), ("66 /mirror".into(), false)]);
    join(&mut machine);
    assert_eq!(machine.written[4..], ["whole 1 nvme0n1 65+66", "whole 1 sda 65+66"]);
    assert_eq!(copies(&machine), [("65 /state".into(), true), ("66 /mirror".into(), true)]);
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());

    // The next boot finds both, at once, and writes nothing.
    let next = boot(&machine, &["nvme0n1", "sda"]);
    assert_eq!((copies(&next).len(), next.written.len()), (2, 0));
    // One of them is enough, once its header says that it goes on alone.
    for (name, pool) in [("nvme0n1", "65"), ("sda", "66")] {
        let mut next = boot(&machine, &[name]);
        assert_eq!(next.written, [format!("whole 2 {name} {pool}")]);
        assert_eq!(copies(&next), [(format!("{pool} /state"), true)]);
        next.identity(X);
        assert_eq!(next.faults(), ["storage.state-copy-lost"]);
    }
}

#[test]
fn a_copy_that_goes_is_written_down_before_it_is_told() {
    let mut machine = pair();
    join(&mut machine);
    machine.written.clear();
    let gone = unplug(&mut machine, "nvme0n1");
    assert_eq!(machine.written, ["whole 2 sda 66"]);
    assert_eq!(copies(&machine), [("66 /mirror".into(), true)]);
    assert!(machine.faults().contains(&"storage.state-copy-lost".to_owned()));
    // It comes back: behind, filled anew, at the place that is free.
    machine.written.clear();
    machine.disks.insert("nvme0n1".into(), gone);
    machine.until(8);
    assert_eq!(machine.written, ["filling 2 nvme0n1 66"]);
    join(&mut machine);
    assert_eq!(copies(&machine), [("66 /mirror".into(), true), ("65 /state".into(), true)]);
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
}

#[test]
fn a_daemon_that_saw_a_copy_fail_is_heard_and_the_last_is_kept() {
    let mut machine = pair();
    join(&mut machine);
    machine.written.clear();
    let told = machine.keeper.copies().unwrap().copies;
    let lose = |machine: &mut Machine, n: usize| {
        let (pool, coming) = (told[n].pool.clone(), told[n].coming.clone());
        machine.event(Event::StateLost(pool, coming, "I/O error".into()));
    };
    machine.event(Event::StateLost(told[1].pool.clone(), "another".into(), "late".into()));
    assert!(machine.written.is_empty());
    lose(&mut machine, 1);
    assert_eq!(machine.written, ["whole 2 nvme0n1 65"]);
    lose(&mut machine, 0);
    assert_eq!(copies(&machine), [("65 /state".into(), true)]);
    // The disk is there still, so it is tried again after a while, as another coming.
    machine.until(60);
    assert_eq!(machine.written.len(), 1);
    machine.until(70);
    assert_eq!(machine.written[1..], ["filling 2 sda 65"]);
    assert_ne!(machine.keeper.copies().unwrap().copies[1].coming, told[1].coming);
}

#[test]
fn a_header_that_cannot_be_written_loses_no_copy() {
    let mut machine = pair();
    join(&mut machine);
    machine.fails.push("write nvme0n1".into());
    let lost = machine.keeper.copies().unwrap().copies.remove(1);
    machine.event(Event::StateLost(lost.pool.clone(), lost.coming.clone(), "I/O error".into()));
    assert!(machine.keeper.copies().unwrap().copies.contains(&lost), "not answered yet");
    machine.fails.clear();
    machine.event(Event::StateLost(lost.pool.clone(), lost.coming.clone(), "I/O error".into()));
    assert!(!machine.keeper.copies().unwrap().copies.contains(&lost));
}

#[test]
fn a_third_disk_takes_the_place_of_one_that_is_lost_for_good() {
    let mut machine = pair();
    join(&mut machine);
    machine.disks.insert("sdb".into(), (0, disk("sdb", 8), Verdict::Empty));
    machine.until(8);
    assert!(machine.written.ends_with(&["adopt sdb".into()]), "{:?}", machine.written);
    let gone = unplug(&mut machine, "sda");
    assert!(machine.written.ends_with(&["whole 2 nvme0n1 65".into(), "filling 2 sdb 65".into()]));
    join(&mut machine);
    assert_eq!(copies(&machine), [("65 /state".into(), true), ("67 /mirror".into(), true)]);
    // The lost one comes back, is behind and not needed: it says so.
    machine.disks.insert("sda".into(), gone);
    machine.until(10);
    assert_eq!(machine.written.last().unwrap(), "record sda 65+67");
    assert!(machine.faults().is_empty(), "{:?}", machine.faults());
}

#[test]
fn one_of_two_that_cannot_be_opened_is_one_that_is_not_there() {
    for (broken, left, pool) in [("sda", "nvme0n1", "65"), ("nvme0n1", "sda", "66")] {
        let mut machine = pair();
        join(&mut machine);
        let disks = ["nvme0n1", "sda"].map(|name| (0, name, machine.disks[name].2.clone()));
        let mut next = Machine::new(Wanted::Unsaid, &disks);
        next.fails.push(broken.into());
        next.until(12);
        assert_eq!(copies(&next), [(format!("{pool} /state"), true)]);
        assert_eq!(next.written, [format!("whole 2 {left} {pool}")]);
        assert!(next.keeper.settled().unwrap().identity_refusal.is_some());
    }
}

#[test]
fn two_that_went_on_alone_wait_for_the_farmer() {
    let mut machine = pair();
    join(&mut machine);
    let (first, second) = (boot(&machine, &["nvme0n1"]), boot(&machine, &["sda"]));
    let disks = [
        (0, "nvme0n1", first.disks["nvme0n1"].2.clone()),
        (0, "sda", second.disks["sda"].2.clone()),
    ];
    let mut torn = Machine::new(Wanted::Unsaid, &disks);
    torn.until(6);
    let settled = torn.keeper.settled().unwrap();
    let why = settled.identity_refusal.clone().unwrap();
    assert!(!settled.durable && why.contains("zos.state="), "{why}");
    assert!(torn.written.is_empty());

    let Verdict::Ours(chosen) = &disks[1].2 else { panic!() };
    let word = chosen.copy.as_ref().unwrap().generation;
    let mut said = Machine::new(Wanted::Unsaid, &disks);
    said.keeper.settings.state = Some(word);
    said.until(6);
    said.identity(X);
    let written = ["filling 2 nvme0n1 65", "whole 3 sda 66", "filling 3 nvme0n1 66"];
    assert_eq!(said.written, written);

    // Cut after the first of them: what is set aside never leads alone, and the same word goes on.
    let mut cut = Machine::new(Wanted::Unsaid, &disks);
    cut.keeper.settings.state = Some(word);
    cut.fails.push("write sda".into());
    cut.until(6);
    assert_eq!(cut.written, written[..1]);
    assert!(!cut.keeper.settled().unwrap().durable);
    let aside = boot(&cut, &["nvme0n1"]);
    assert!(!aside.keeper.settled().unwrap().durable && aside.written.is_empty());
    let disks = ["nvme0n1", "sda"].map(|name| (0, name, cut.disks[name].2.clone()));
    let mut on = Machine::new(Wanted::Unsaid, &disks);
    on.keeper.settings.state = Some(word);
    on.until(6);
    on.identity(X);
    assert_eq!(on.written, written[1..]);
    // One that can't be set aside is as one that isn't there: its history isn't over.
    let mut fails = Machine::new(Wanted::Unsaid, &disks);
    fails.disks.insert("nvme0n1".into(), (0, disk("nvme0n1", 8), first.disks["nvme0n1"].2.clone()));
    fails.keeper.settings.state = Some(word);
    fails.fails.push("write nvme0n1".into());
    fails.until(12);
    assert_eq!((fails.written.len(), copies(&fails)), (0, vec![("66 /state".into(), true)]));

    // The same word again, with a new generation there: it means nothing any more.
    join(&mut said);
    let disks = ["nvme0n1", "sda"].map(|name| (0, name, said.disks[name].2.clone()));
    let mut again = Machine::new(Wanted::Unsaid, &disks);
    again.keeper.settings.state = Some(word);
    again.until(1);
    assert_eq!((copies(&again).len(), again.written.len()), (2, 0));
}

#[test]
fn a_disk_that_went_on_alone_and_comes_while_the_node_runs_is_left_alone() {
    let mut machine = pair();
    join(&mut machine);
    let (mut first, second) = (boot(&machine, &["nvme0n1"]), boot(&machine, &["sda"]));
    first.identity(X);
    first.written.clear();
    first.disks.insert("sda".into(), (8, disk("sda", 8), second.disks["sda"].2.clone()));
    first.until(90);
    assert!(first.written.is_empty(), "{:?}", first.written);
    let faults = first.faults();
    assert!(faults.contains(&"storage.state-conflict:sda".to_owned()), "{faults:?}");
}

/// A disk that was copied whole is here as often as it was copied; the one in use goes on being it.
#[test]
fn a_double_of_a_copy_is_no_loss_of_it() {
    let mut machine = pair();
    join(&mut machine);
    machine.written.clear();
    for name in ["aaa", "sdz"] {
        let double = machine.disks["nvme0n1"].2.clone();
        machine.disks.insert(name.into(), (8, disk(name, 8), double));
    }
    machine.until(12);
    assert!(machine.written.is_empty(), "{:?}", machine.written);
    assert_eq!(copies(&machine), [("65 /state".into(), true), ("66 /mirror".into(), true)]);
    // What is written for it is written to it.
    unplug(&mut machine, "sda");
    assert_eq!(machine.written, ["whole 2 nvme0n1 65"]);
}

#[test]
fn a_disk_with_one_of_two_copies_may_be_released_and_another_takes_its_place() {
    for (name, left, pool) in [("sda", "nvme0n1", "65"), ("nvme0n1", "sda", "66")] {
        let mut machine = pair();
        join(&mut machine);
        machine.written.clear();
        let key = machine.keeper.entries[name].key.clone();
        machine.event(Event::Release(key));
        machine.until(9);
        let expected = [
            format!("leave {name}"),
            format!("whole 2 {left} {pool}"),
            format!("record {name} {pool}"),
            format!("wipe {name}"),
        ];
        assert_eq!(machine.written, expected);
        assert_eq!(machine.faults(), ["storage.state-copy-lost"]);
        let why = machine.keeper.faults().remove(0).detail;
        assert!(why.contains("is being released"), "{why}");
        // The one that is left can't be released, until another disk has it all.
        let left = machine.keeper.entries[left].key.clone();
        assert!(machine.keeper.may_release(&left).is_err());
        machine.disks.insert("sdb".into(), (9, disk("sdb", 8), Verdict::Empty));
        machine.until(12);
        assert!(machine.keeper.may_release(&left).is_err());
        join(&mut machine);
        assert!(machine.keeper.may_release(&left).is_ok());
        assert!(machine.faults().is_empty(), "{:?}", machine.faults());
    }
}

#[test]
fn a_restarted_storaged_knows_the_copies_again() {
    let mut first = pair();
    join(&mut first);
    let memory = serde_json::to_string(&first.keeper.memory()).unwrap();
    let disks = ["nvme0n1", "sda"].map(|name| (0, name, first.disks[name].2.clone()));
    let restart = |disks: &[(u64, &str, Verdict)]| {
        let mut next = Machine::new(Wanted::Unsaid, disks);
        next.remember(&memory);
        next.restart();
        assert!(next.keeper.copies().is_none());
        next.until(1);
        next
    };
    let both = restart(&disks);
    assert_eq!(both.keeper.copies(), first.keeper.copies());
    assert!(both.written.is_empty());
    // One went meanwhile.
    let one = restart(&disks[1..]);
    assert_eq!(one.written, ["whole 2 sda 66"]);
    assert_eq!(copies(&one), [("66 /mirror".into(), true)]);
    // What it remembers is older, as its folder was full: this disk says since that it carries none.
    let gone = unplug(&mut first, "sda");
    first.disks.insert("sdb".into(), (0, disk("sdb", 8), Verdict::Empty));
    first.wait(1);
    join(&mut first);
    first.disks.insert("sda".into(), gone);
    first.wait(3);
    assert_eq!(first.written.last().unwrap(), "record sda 65+67");
    let old = restart(&["nvme0n1", "sda"].map(|name| (0, name, first.disks[name].2.clone())));
    assert_eq!(copies(&old)[0], ("65 /state".into(), true));
    // Nothing is told before that is written, and what can't be is tried again later.
    let mut fails = Machine::new(Wanted::Unsaid, &disks[1..]);
    fails.remember(&memory);
    fails.restart();
    fails.fails.push("write sda".into());
    fails.wait(50);
    assert!(fails.keeper.copies().is_none() && fails.written.is_empty());
    fails.fails.clear();
    fails.wait(20);
    assert_eq!(copies(&fails), [("66 /mirror".into(), true)]);
}

/// What is told is what is shown, each at its place, and nothing else.
fn assert_shown(machine: &Machine, when: &str) {
    let told = machine.keeper.copies().unwrap_or_else(|| panic!("{when}: nothing is known"));
    let told = told.copies.into_iter().map(|copy| (usize::from(copy.path == "/mirror"), copy.pool));
    let told: std::collections::BTreeMap<usize, String> = told.collect();
    assert_eq!(machine.shown, told, "{when}");
}

/// storaged dies after each single step of what `begin` brings about, in each machine that `make` makes.
fn die_in_between(
    what: &str,
    make: &dyn Fn() -> Machine,
    begin: &dyn Fn(&mut Machine),
    after: &dyn Fn(&mut Machine, &str),
) {
    for turned in [false, true] {
        for steps in 0.. {
            let mut machine = make();
            (machine.dies, machine.turned) = (Some(steps), turned);
            begin(&mut machine);
            let done = machine.dies != Some(0);
            machine.restart();
            machine.wait(3);
            let when = format!("{what}, after {steps} steps");
            assert_shown(&machine, &when);
            after(&mut machine, &when);
            if done {
                assert!(steps > 2, "{when}");
                break;
            }
        }
    }
}

/// Both copies are there again, in the end.
fn recovers(machine: &mut Machine, when: &str) {
    machine.wait(65);
    assert_shown(machine, when);
    join(machine);
    machine.wait(1);
    assert_shown(machine, when);
    let told = machine.keeper.copies().unwrap().copies;
    assert!(told.len() == 2 && told.iter().all(|copy| copy.current), "{when}: {told:?}");
    assert!(machine.faults().is_empty(), "{when}: {:?}", machine.faults());
}

#[test]
fn a_storaged_that_dies_over_a_loss_goes_on_with_it() {
    let whole = || {
        let mut machine = pair();
        join(&mut machine);
        machine
    };
    for (n, name) in [(0, "nvme0n1"), (1, "sda")] {
        let fails = |machine: &mut Machine| {
            let told = machine.keeper.copies().unwrap().copies.remove(n);
            machine.event(Event::StateLost(told.pool, told.coming, "I/O error".into()));
        };
        die_in_between(&format!("{name} fails"), &whole, &fails, &recovers);
        let away = RefCell::new(None);
        let goes = |machine: &mut Machine| *away.borrow_mut() = Some(unplug(machine, name));
        let comes = |machine: &mut Machine, when: &str| {
            assert_eq!(machine.shown.len(), 1, "{when}");
            machine.disks.insert(name.into(), away.take().unwrap());
            recovers(machine, when);
        };
        die_in_between(&format!("{name} goes"), &whole, &goes, &comes);
        // The disk is given back: nothing of it may be shown when it is wiped.
        let leaves = |machine: &mut Machine| {
            let key = machine.keeper.entries[name].key.clone();
            machine.event(Event::Release(key));
        };
        let left = |machine: &mut Machine, when: &str| {
            // A word that storaged died over is said again.
            if !machine.written.contains(&format!("leave {name}")) {
                leaves(machine);
            }
            machine.wait(70);
            assert!(machine.written.contains(&format!("wipe {name}")), "{when}");
            assert_shown(machine, when);
        };
        die_in_between(&format!("{name} leaves"), &whole, &leaves, &left);
    }
}

#[test]
fn a_storaged_that_dies_over_a_join_goes_on_with_it() {
    let comes = |machine: &mut Machine| {
        machine.disks.insert("sda".into(), (0, disk("sda", 8), Verdict::Empty));
        machine.wait(1);
    };
    let alone = || {
        let mut machine = Machine::new(Wanted::Unsaid, &[(0, "nvme0n1", Verdict::Empty)]);
        machine.until(6);
        machine.identity(X);
        machine
    };
    die_in_between("sda comes", &alone, &comes, &recovers);
    die_in_between("all join", &pair, &join, &recovers);
    // It goes before it has all, or right after.
    let away = RefCell::new(None);
    let back = |machine: &mut Machine, when: &str| {
        machine.disks.insert("sda".into(), away.take().unwrap());
        recovers(machine, when);
    };
    let joins_and_goes = |machine: &mut Machine| {
        join(machine);
        *away.borrow_mut() = Some(unplug(machine, "sda"));
    };
    die_in_between("sda goes when all have joined", &pair, &joins_and_goes, &back);
    let goes = |machine: &mut Machine| *away.borrow_mut() = Some(unplug(machine, "sda"));
    die_in_between("sda goes while it is filled", &pair, &goes, &back);
}

#[test]
fn a_state_of_an_older_zos_gets_its_copy() {
    let disks = [(0, "nvme0n1", state(1, Some(X))), (0, "sda", Verdict::Empty)];
    let mut machine = Machine::new(Wanted::Unsaid, &disks);
    machine.until(0);
    machine.identity(X);
    assert_eq!(machine.written, ["adopt sda", "filling 0 sda 1"]);
    join(&mut machine);
    assert_eq!(machine.written[2..], ["whole 0 nvme0n1 1+65", "whole 0 sda 1+65"]);
    // Two of them are two histories.
    let header = Header { owner: Some(node(X)), ..sample(2) };
    let two = [(0, "nvme0n1", state(1, Some(X))), (0, "sda", Verdict::Ours(Box::new(header)))];
    let mut torn = Machine::new(Wanted::Unsaid, &two);
    torn.until(6);
    assert!(!torn.keeper.settled().unwrap().durable && torn.written.is_empty());
}
