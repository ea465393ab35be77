//! The way down.

use super::super::down::{DRAIN, FORCED, WAY};
use super::super::stopping::KILLED;
use super::*;

#[test]
fn the_way_down_is_vms_then_services_in_reverse() {
    let mut sim = Sim::running(&[
        ("a", rules(&[], &[])),
        ("b", rules(&["a"], &[])),
        ("c", rules(&["b"], &[])),
    ]);
    sim.vm("vm/t/d.w");
    sim.log();
    sim.down();
    assert_eq!(sim.log(), ["signal 15 vm/t/d.w"]);
    let refused = sim.supervisor.start_transient(0, "vm/t/d.x", 15, 1).unwrap_err();
    assert_eq!(refused, Refusal::GoingDown);
    // A daemon that falls on the way down isn't started again.
    sim.ended("b", Exit::Code(1));
    sim.pass(20_000);
    assert_eq!(sim.log(), ["kill vm/t/d.w"]);
    sim.ended("vm/t/d.w", Exit::Signal(9));
    assert_eq!(sim.log(), ["signal 15 c"]);
    sim.ended("c", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 a"]);
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.log(), ["finish Poweroff"]);
    assert_eq!((sim.finished.take(), sim.supervisor.next_time()), (Some(vec![]), None));
}

#[test]
fn one_that_waits_to_start_again_needs_no_stop() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(1));
    sim.down();
    assert_eq!(sim.log(), ["spawn a", "finish Poweroff"]);
    sim.pass(100_000_000);
    assert_eq!(sim.log(), [""; 0]);
}

#[test]
fn one_that_cannot_be_killed_holds_nothing_up_and_has_hung() {
    let mut sim = Sim::running(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[]))]);
    sim.down();
    sim.pass(500 + KILLED);
    assert_eq!(sim.log(), ["signal 15 b", "kill b", "signal 15 a"]);
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.log(), ["finish Poweroff"]);
    assert_eq!(sim.finished, Some(vec!["b".to_owned()]));
}

fn with_vm() -> Sim {
    let drains = Rules { drains: true, ..rules(&["storaged"], &[]) };
    let mut sim = Sim::running(&[("storaged", rules(&[], &[])), ("vmd", drains)]);
    sim.vm("vm/t/d.w");
    sim.log();
    sim
}

#[test]
fn vms_are_drained_before_anybody_is_stopped() {
    let mut sim = with_vm();
    sim.down();
    assert_eq!(sim.log(), [format!("drain vmd {DRAIN}")]);
    // It works as ever meanwhile.
    let actions = sim.supervisor.stop_transient(sim.now, "vm/t/d.w", 20_000).unwrap();
    sim.done(actions).unwrap();
    sim.pass(1_000);
    sim.ended("vm/t/d.w", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 vm/t/d.w"]);
    let actions = sim.supervisor.acknowledge("vm/t/d.w").unwrap();
    sim.done(actions).unwrap();
    sim.event(Event::Drained { problem: None });
    assert_eq!(sim.log(), ["forget 2", "signal 15 vmd"]);
    sim.ended("vmd", Exit::Code(0));
    sim.ended("storaged", Exit::Code(0));
    assert_eq!(sim.finished, Some(vec![]));
}

#[test]
fn without_an_answer_pid_1_stops_the_vms_itself() {
    type Fault = fn(&mut Sim);
    let faults: &[(&str, Fault)] = &[
        ("it says nothing", |sim| sim.pass(DRAIN)),
        ("it can't", |sim| sim.event(Event::Drained { problem: Some("no".to_owned()) })),
        ("it falls", |sim| sim.ended("vmd", Exit::Signal(11))),
    ];
    for (what, fault) in faults {
        let mut sim = with_vm();
        sim.down();
        sim.log();
        fault(&mut sim);
        assert_eq!(sim.log(), ["signal 15 vm/t/d.w"], "{what}");
        // Too late.
        sim.event(Event::Drained { problem: None });
        assert_eq!(sim.log(), [""; 0], "{what}");
    }
}

#[test]
fn nobody_is_asked_to_drain_nothing() {
    let mut sim = with_vm();
    sim.ended("vm/t/d.w", Exit::Code(0));
    sim.down();
    assert_eq!(sim.log(), ["signal 15 vmd"]);
    // Nor somebody who isn't there.
    let mut sim = with_vm();
    sim.ended("vmd", Exit::Code(1));
    sim.down();
    assert_eq!(sim.log(), ["signal 15 vm/t/d.w"]);
}

#[test]
fn a_second_wish_changes_only_the_end() {
    let mut sim = with_vm();
    sim.down();
    sim.pass(1_000);
    sim.log();
    sim.event(Event::Down { end: End::Reboot, why: "in a hurry".to_owned() });
    assert_eq!(sim.log(), [""; 0]);
    sim.event(Event::Drained { problem: None });
    for name in ["vm/t/d.w", "vmd", "storaged"] {
        sim.ended(name, Exit::Code(0));
    }
    assert_eq!(sim.log().last().unwrap(), "finish Reboot");
}

#[test]
fn after_the_deadline_everything_is_killed() {
    let slow = |after: &[&str]| Rules { stop_timeout: 100_000, ..rules(after, &[]) };
    let mut sim = Sim::running(&[("a", rules(&[], &[])), ("b", slow(&["a"])), ("c", slow(&["b"]))]);
    sim.down();
    sim.pass(90_000);
    sim.ended("c", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 c", "signal 15 b"]);
    sim.pass(WAY - 90_001);
    assert_eq!(sim.log(), [""; 0]);
    sim.pass(1);
    assert_eq!(sim.log(), ["kill a", "kill b"]);
    sim.ended("a", Exit::Signal(9));
    // b hangs in the kernel; it is given up before the last deadline.
    sim.pass(KILLED);
    assert_eq!(sim.log(), ["finish Poweroff"]);
    assert_eq!(sim.finished, Some(vec!["a".to_owned(), "b".to_owned()]));
    const { assert!(KILLED <= FORCED) };
}

#[test]
fn a_wish_by_hand_before_it_is_not_forgotten_by_it() {
    let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
    sim.restart("a").unwrap();
    sim.down();
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 a", "finish Poweroff"]);
}

#[test]
fn what_failed_is_not_tried_on_the_way_down() {
    let limits = Rules { budget: Budget { crashes: 1, within: 1 }, ..rules(&[], &[]) };
    let slow = Rules { stop_timeout: 100_000, ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", Rules { retry: Some(10_000), ..limits }), ("b", slow)]);
    sim.ended("a", Exit::Code(1));
    sim.down();
    sim.pass(99_000);
    sim.ended("b", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 b", "finish Poweroff"]);
    assert_eq!(sim.told("a").0, "failed");
}
