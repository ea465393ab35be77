//! How units start, when they are started again, and when they are given up.

use super::super::budget::delay;
use super::super::life::STEADY;
use super::*;

#[test]
fn services_start_when_those_before_them_are_ready() {
    let mut sim =
        Sim::new(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[])), ("c", rules(&[], &["b"]))]);
    sim.event(Event::Begin);
    assert_eq!(sim.log(), ["spawn a"]);
    assert_eq!(sim.told("b"), ("waiting", "after a".to_owned()));
    assert_eq!(sim.told("c"), ("waiting", "requires b".to_owned()));
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn b"]);
    sim.ready("b");
    assert_eq!(sim.log(), ["spawn c"]);
    assert!(!sim.supervisor.settled());
    sim.ready("c");
    assert!(sim.supervisor.settled());
    assert_eq!(
        sim.events(),
        ["a: starting", "a: running", "b: starting", "b: running", "c: starting", "c: running"]
    );
}

#[test]
fn a_failing_service_holds_back_only_those_that_need_it() {
    let mut sim =
        Sim::new(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[])), ("c", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(1));
    assert_eq!(sim.log(), ["spawn a", "spawn b"]);
    assert_eq!(sim.told("c"), ("waiting", "requires a: exit code 1".to_owned()));
    sim.pass(200);
    assert_eq!(sim.log(), ["spawn a"]);
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn c"]);
    assert_eq!(sim.unit("a").restarts, 1);
}

#[test]
fn who_waits_for_a_failed_one_holds_nobody_back_either() {
    // As on a node without storage: no identity, but a network.
    let mut sim = Sim::new(&[
        ("storaged", rules(&[], &[])),
        ("identityd", rules(&[], &["storaged"])),
        ("netd", rules(&["storaged", "identityd"], &[])),
    ]);
    sim.event(Event::Begin);
    assert_eq!(sim.log(), ["spawn storaged"]);
    sim.ended("storaged", Exit::Code(1));
    assert_eq!(sim.log(), ["spawn netd"]);
    sim.pass(200);
    sim.ready("storaged");
    assert_eq!(sim.log(), ["spawn storaged", "spawn identityd"]);
}

#[test]
fn delays_double_and_calm_down() {
    let known = Rules::default().backoff;
    let slow = Backoff { first: 1_000, longest: 3_000 };
    for (backoff, streak, jitter, expect) in [
        (known, 1, 0, 200),
        (known, 2, 0, 400),
        (known, 5, 0, 3_200),
        (known, 9, 0, 30_000),
        (known, u32::MAX, 0, 30_000),
        (known, 1, 999, 249),
        (known, 20, 500, 33_750),
        (slow, 1, 0, 1_000),
        (slow, 3, 0, 3_000),
        (Backoff { first: u64::MAX / 2, longest: 7 }, 9, 0, 7),
    ] {
        assert_eq!(delay(backoff, streak, jitter), expect, "{backoff:?} {streak} {jitter}");
    }
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    for expect in [200, 400, 800] {
        sim.ended("a", Exit::Signal(9));
        assert_eq!(*sim.state("a"), State::Backoff { until: sim.now + expect });
        sim.pass(expect);
    }
    sim.ready("a");
    sim.pass(STEADY);
    sim.ended("a", Exit::Signal(9));
    assert_eq!(*sim.state("a"), State::Backoff { until: sim.now + 200 });
}

#[test]
fn when_it_is_started_again() {
    for (restart, exit, expect) in [
        (Restart::Always, Exit::Code(0), "backoff"),
        (Restart::Always, Exit::Code(1), "backoff"),
        (Restart::OnFailure, Exit::Code(0), "exited"),
        (Restart::OnFailure, Exit::Code(3), "backoff"),
        (Restart::OnFailure, Exit::Signal(11), "backoff"),
        (Restart::Never, Exit::Code(0), "exited"),
        (Restart::Never, Exit::Code(3), "failed"),
    ] {
        let mut sim = Sim::new(&[("a", Rules { restart, ..rules(&[], &[]) })]);
        sim.event(Event::Begin);
        sim.ended("a", exit);
        assert_eq!(sim.told("a"), (expect, exit.to_string()), "{restart:?}");
    }
}

#[test]
fn a_budget_slides() {
    let budget = Budget { crashes: 3, within: 1_000 };
    let mut crashes = budget::Crashes::default();
    for (now, spent) in [
        (0, false),
        (900, false),
        // The first is forgotten by now.
        (1_000, false),
        (1_899, true),
        // A new budget.
        (1_900, false),
        (1_901, false),
        (1_902, true),
    ] {
        assert_eq!(crashes.add(now, budget), spent, "{now}");
    }
    assert!(budget::Crashes::default().add(5, Budget { crashes: 1, within: 1 }));
}

#[test]
fn one_that_ends_at_once_for_ever_is_given_up_and_tried_anew() {
    let limits = Rules {
        backoff: Backoff { first: 100, longest: 100 },
        budget: Budget { crashes: 3, within: 60_000 },
        retry: Some(600_000),
        ..rules(&[], &[])
    };
    let mut sim = Sim::new(&[("a", limits), ("b", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    for _ in 0..2 {
        sim.ended("a", Exit::Code(1));
        sim.pass(100);
    }
    sim.ended("a", Exit::Signal(11));
    let cause = "ended 3 times in 1 min, the last time: signal 11 (SEGV)";
    assert_eq!(sim.told("a"), ("failed", cause.to_owned()));
    assert_eq!(sim.told("b"), ("waiting", format!("requires a: {cause}")));
    assert!(sim.notes.last().unwrap().ends_with("tried anew in 10 min"), "{:?}", sim.notes);
    assert_eq!(sim.log(), ["spawn a"; 3]);
    sim.pass(599_999);
    assert_eq!(sim.log(), [""; 0]);
    sim.pass(1);
    assert_eq!(sim.log(), ["spawn a"]);
    // Its budget is new, and healing heals those that wait.
    sim.ended("a", Exit::Code(1));
    assert_eq!(sim.told("a").0, "backoff");
    sim.pass(100);
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn a", "spawn b"]);
}

#[test]
fn one_that_is_never_retried_stays() {
    let limits =
        Rules { budget: Budget { crashes: 1, within: 60_000 }, retry: None, ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", limits)]);
    sim.ended("a", Exit::Code(1));
    assert_eq!((sim.told("a").0, sim.supervisor.next_time()), ("failed", None));
    assert!(sim.notes.last().unwrap().ends_with("given up for good"));
}

#[test]
fn a_oneshot_is_done_when_it_has_ended_well() {
    let once = Rules { ready: Ready::Ended, ..rules(&[], &[]) };
    let mut sim = Sim::new(&[("a", once), ("b", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    // It can't say so before.
    sim.ready("a");
    assert_eq!(sim.told("a"), ("starting", "not ready yet".to_owned()));
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.told("a").0, "done");
    assert_eq!(sim.log(), ["spawn a", "spawn b"]);
    sim.pass(10_000_000);
    assert_eq!(sim.told("a").0, "done");
}

#[test]
fn a_failed_oneshot_blocks_nobody_for_ever() {
    let once = Rules {
        ready: Ready::Ended,
        budget: Budget { crashes: 2, within: 60_000 },
        ..rules(&[], &[])
    };
    let mut sim = Sim::new(&[("a", once), ("b", rules(&[], &["a"])), ("c", rules(&["a"], &[]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(4));
    sim.ready("c");
    // Who only comes after it starts; who needs it says why it waits.
    assert_eq!(sim.log(), ["spawn a", "spawn c"]);
    assert_eq!(sim.told("b").1, "requires a: exit code 4");
    sim.pass(200);
    sim.ended("a", Exit::Code(4));
    assert_eq!(sim.told("a").0, "failed");
    assert!(sim.told("b").1.starts_with("requires a: ended 2 times"), "{:?}", sim.told("b"));
    sim.pass(600_000);
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.log(), ["spawn a", "spawn a", "spawn b"]);
    assert_eq!(sim.told("a").0, "done");
}

#[test]
fn a_oneshot_that_takes_too_long_is_tried_again() {
    let once = Rules { ready: Ready::Ended, ..rules(&[], &[]) };
    let mut sim = Sim::new(&[("a", once)]);
    sim.event(Event::Begin);
    sim.pass(1_000);
    assert_eq!(sim.log(), ["spawn a", "signal 15 a"]);
    // Its end comes too late to be a success.
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.told("a"), ("backoff", "not ready in 1 s; then exit code 0".to_owned()));
}

#[test]
fn a_oneshot_that_is_tried_once_fails_for_good() {
    let once = Rules { ready: Ready::Ended, restart: Restart::Never, ..rules(&[], &[]) };
    let mut sim = Sim::new(&[("a", once), ("b", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(4));
    assert_eq!(sim.told("a"), ("failed", "exit code 4".to_owned()));
    assert_eq!(
        (sim.told("b").1, sim.supervisor.next_time()),
        ("requires a: exit code 4".to_owned(), None)
    );
}

#[test]
fn a_socket_is_looked_at_ever_more_rarely() {
    let socket = Rules { ready: Ready::Socket, ready_timeout: 10_000, ..rules(&[], &[]) };
    let mut sim = Sim::new(&[("a", socket), ("b", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    let mut looks = Vec::new();
    while sim.now < 5_000 {
        sim.now = sim.supervisor.next_time().unwrap();
        sim.event(Event::Time);
        looks.push(sim.now);
    }
    assert_eq!(looks[..8], [5, 15, 35, 75, 155, 315, 635, 1_275]);
    assert_eq!(looks[8..11], [2_275, 3_275, 4_275]);
    sim.log();
    sim.answering.insert("a".to_owned());
    sim.pass(1_000);
    assert_eq!((sim.told("a").0, sim.log()), ("running", vec!["spawn b".to_owned()]));
    // The next look was due then; what is due now is another's readiness.
    assert_eq!((sim.unit("a").since, sim.supervisor.next_time()), (6_275, Some(7_275)));
}

#[test]
fn a_corrupt_program_never_runs_and_says_why() {
    let mut sim = Sim::new(&[]);
    let broken = Some("/bin/a is corrupt".to_owned());
    sim.supervisor.add_service(0, "a", rules(&[], &[]), broken);
    sim.supervisor.add_service(0, "b", rules(&[], &["a"]), None);
    sim.supervisor.add_service(0, "c", rules(&["a"], &[]), None);
    sim.event(Event::Begin);
    assert_eq!(sim.log(), ["spawn c"]);
    assert_eq!(sim.told("a"), ("failed", "/bin/a is corrupt".to_owned()));
    assert_eq!(sim.told("b").1, "requires a: /bin/a is corrupt");
    let refused = Refusal::Broken("a".to_owned(), "/bin/a is corrupt".to_owned());
    assert_eq!(sim.start("a"), Err(refused.clone()));
    assert_eq!(sim.restart("a"), Err(refused));
}

#[test]
fn one_whose_program_is_missing_says_so() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.missing.insert("a".to_owned());
    sim.event(Event::Begin);
    assert_eq!(sim.told("a"), ("backoff", "no such program".to_owned()));
    sim.missing.clear();
    sim.pass(200);
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn a", "spawn a"]);
}
