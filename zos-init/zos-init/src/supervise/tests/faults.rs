//! Each fault that a service can have, and what becomes of it.

use super::super::stopping::KILLED;
use super::*;

#[test]
fn one_that_is_never_ready_is_stopped_killed_and_started_again() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    assert_eq!(sim.supervisor.next_time(), Some(1_000));
    sim.pass(1_000);
    assert_eq!(sim.log(), ["spawn a", "signal 15 a"]);
    assert_eq!(sim.told("a"), ("stopping", "told to stop: not ready in 1 s".to_owned()));
    sim.pass(500);
    assert_eq!(sim.log(), ["kill a"]);
    sim.ended("a", Exit::Signal(9));
    assert_eq!(sim.told("a"), ("backoff", "not ready in 1 s; then signal 9 (KILL)".to_owned()));
    sim.pass(200);
    assert_eq!(sim.log(), ["spawn a"]);
}

#[test]
fn one_that_ignores_its_stop_signal_is_killed() {
    let stubborn = Rules { stop_signal: 2, stop_timeout: 3_000, ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", stubborn)]);
    sim.stop("a").unwrap();
    sim.pass(2_999);
    assert_eq!(sim.log(), ["signal 2 a"]);
    sim.pass(1);
    assert_eq!(sim.log(), ["kill a"]);
    sim.ended("a", Exit::Signal(9));
    assert_eq!(sim.told("a"), ("exited", "stopped by hand".to_owned()));
}

#[test]
fn one_that_cannot_be_killed_is_never_doubled() {
    let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
    sim.restart("a").unwrap();
    sim.pass(500 + KILLED);
    assert_eq!(sim.log(), ["signal 15 a", "kill a"]);
    assert_eq!(sim.told("a"), ("failed", "its process was killed and doesn't end".to_owned()));
    assert!(sim.status("a").pid.is_some());
    sim.pass(100_000_000);
    sim.start("a").unwrap();
    assert_eq!(sim.log(), [""; 0]);
    // Weeks later its disk answers.
    sim.ended("a", Exit::Signal(9));
    assert_eq!(sim.log(), ["spawn a"]);
}

#[test]
fn a_silent_one_is_asked_for_its_last_words_killed_and_started_again() {
    let watched = Rules { watchdog: Some(60_000), ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", watched)]);
    for _ in 0..10 {
        sim.pass(59_999);
        sim.ready("a");
    }
    assert_eq!(sim.log(), [""; 0]);
    sim.pass(60_000);
    assert_eq!(sim.log(), ["signal 6 a"]);
    assert_eq!(sim.told("a").1, "told to stop: silent for 1 min");
    // What it still says helps nothing.
    sim.ready("a");
    sim.pass(500);
    assert_eq!(sim.log(), ["kill a"]);
    sim.ended("a", Exit::Signal(9));
    assert_eq!(sim.told("a"), ("backoff", "silent for 1 min; then signal 9 (KILL)".to_owned()));
    sim.pass(200);
    assert_eq!(sim.log(), ["spawn a"]);
}

#[test]
fn nobody_is_silent_while_pid_1_slept() {
    let watched = Rules { watchdog: Some(60_000), ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", watched)]);
    // The timer rings late: the machine stood still, and so did the service.
    sim.now += 600_000;
    sim.event(Event::Time);
    assert_eq!((sim.log(), sim.told("a").0), (vec![], "running"));
    sim.pass(60_000);
    assert_eq!(sim.log(), ["signal 6 a"]);
}

fn checked() -> Rules {
    let liveness = Liveness { every: 30_000, timeout: 5_000, failures: 3 };
    Rules { liveness: Some(liveness), ..rules(&[], &[]) }
}

#[test]
fn a_check_runs_for_the_whole_life() {
    let mut sim = Sim::running(&[("a", checked())]);
    for _ in 0..100 {
        sim.pass(29_999);
        assert_eq!(sim.log(), [""; 0]);
        sim.pass(1);
        assert_eq!(sim.log(), ["check a"]);
        sim.pass(1_000);
        sim.checked("a", None);
    }
    assert_eq!(sim.told("a").0, "running");
}

#[test]
fn a_failing_check_starts_it_again() {
    let mut sim = Sim::running(&[("a", checked())]);
    // Two failures and a success are none.
    for failed in [Some("exit code 1"), Some("exit code 1"), None, Some("x"), Some("y")] {
        sim.pass(30_000);
        sim.checked("a", failed);
    }
    assert_eq!(sim.told("a").0, "running");
    sim.pass(30_000);
    sim.log();
    sim.checked("a", Some("exit code 2"));
    assert_eq!(sim.log(), ["signal 15 a"]);
    sim.ended("a", Exit::Code(0));
    let cause = "its check failed 3 times in a row: exit code 2; then exit code 0";
    assert_eq!(sim.told("a"), ("backoff", cause.to_owned()));
    sim.pass(200);
    sim.ready("a");
    // The count begins anew.
    sim.pass(30_000);
    sim.checked("a", Some("z"));
    assert_eq!(sim.told("a").0, "running");
}

#[test]
fn a_check_that_hangs_has_failed() {
    let mut sim = Sim::running(&[("a", checked())]);
    sim.pass(35_000);
    assert_eq!(sim.log(), ["check a", "end check a"]);
    sim.checked("a", Some("signal 9 (KILL)"));
    sim.pass(34_999);
    assert_eq!(sim.log(), ["check a"]);
    // This one doesn't even die: each time that another was due, it has failed again.
    sim.pass(1);
    assert_eq!(sim.log(), ["end check a"]);
    sim.pass(30_000);
    assert_eq!(sim.log(), ["signal 15 a"]);
    assert_eq!(sim.told("a").1, "told to stop: its check failed 3 times in a row: it hangs");
}

#[test]
fn a_check_that_nobody_waits_for_means_nothing() {
    let mut sim = Sim::running(&[("a", checked())]);
    let unit = sim.unit("a").id;
    for _ in 0..9 {
        sim.event(Event::Checked { unit, failed: Some("who?".to_owned()) });
    }
    assert_eq!(sim.told("a").0, "running");
    // One is under way when it falls; its end belongs to no other.
    sim.pass(30_000);
    sim.ended("a", Exit::Code(1));
    sim.pass(200);
    sim.ready("a");
    sim.event(Event::Checked { unit, failed: Some("late".to_owned()) });
    assert_eq!(
        (sim.told("a").0, sim.log()),
        ("running", vec!["check a".to_owned(), "spawn a".to_owned()])
    );
}

#[test]
fn without_memory_is_told() {
    let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
    let unit = sim.unit("a").id;
    sim.processes.clear();
    let how = Ended { exit: Exit::Signal(9), oom: true, why: None };
    sim.event(Event::Ended { unit, how, jitter: 0 });
    assert_eq!(sim.told("a"), ("backoff", "signal 9 (KILL), out of memory".to_owned()));
    assert!(sim.status("a").exit.unwrap().oom);
}

#[test]
fn a_vital_unit_that_is_given_up_is_missed() {
    let given_up = Rules { budget: Budget { crashes: 1, within: 1 }, ..rules(&[], &[]) };
    let vital = Rules { vital: true, ..given_up.clone() };
    for (rules, missed) in [(given_up, None), (vital, Some("a"))] {
        let mut sim = Sim::running(&[("a", rules)]);
        assert_eq!(sim.supervisor.missed(), None);
        sim.ended("a", Exit::Code(1));
        assert_eq!(sim.supervisor.missed(), missed);
        sim.pass(600_000);
        assert_eq!(sim.supervisor.missed(), None, "tried anew");
    }
}
