//! What somebody wants by hand.

use super::super::hand::Declared;
use super::*;

#[test]
fn stopped_by_hand_stays_stopped_and_its_dependants_up() {
    let mut sim = Sim::running(&[("a", rules(&[], &[])), ("b", rules(&[], &["a"]))]);
    sim.stop("a").unwrap();
    sim.ended("a", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 a"]);
    assert_eq!(sim.told("a"), ("exited", "stopped by hand".to_owned()));
    assert_eq!(sim.told("b").0, "running");
    assert_eq!(sim.supervisor.next_time(), None);
    // Who falls meanwhile waits for it, and says so.
    sim.ended("b", Exit::Code(1));
    sim.pass(200);
    assert_eq!(sim.told("b"), ("waiting", "requires a: stopped by hand".to_owned()));
    sim.start("a").unwrap();
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn a", "spawn b"]);
}

#[test]
fn a_restart_leaves_dependants_alone_and_has_a_new_budget() {
    let strict = Rules { budget: Budget { crashes: 2, within: 600_000 }, ..rules(&[], &[]) };
    let mut sim = Sim::running(&[("a", strict), ("b", rules(&[], &["a"]))]);
    sim.ended("a", Exit::Code(1));
    sim.pass(200);
    sim.ready("a");
    sim.restart("a").unwrap();
    assert_eq!(sim.told("a").1, "told to stop, to be started anew");
    sim.ended("a", Exit::Code(0));
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn a", "signal 15 a", "spawn a"]);
    sim.ended("a", Exit::Code(1));
    assert_eq!((sim.told("a").0, sim.told("b").0), ("backoff", "running"));
    assert_eq!(sim.unit("a").restarts, 2);
}

#[test]
fn each_wish_in_each_state() {
    type Wish = fn(&mut Sim, &str) -> Result<(), Refusal>;
    let (start, stop, restart): (Wish, Wish, Wish) = (Sim::start, Sim::stop, Sim::restart);
    // How it comes to its state, the wish, the state after it and what was done.
    type Reach = fn(&mut Sim);
    let reach: &[(&str, Reach)] = &[
        ("waiting", |_| {}),
        ("starting", |sim| sim.ready("x")),
        ("running", |sim| {
            sim.ready("x");
            sim.ready("a");
        }),
        ("stopping", |sim| {
            sim.ready("x");
            sim.stop("a").unwrap();
        }),
        ("backoff", |sim| {
            sim.ready("x");
            sim.ended("a", Exit::Code(1));
        }),
        ("failed", |sim| {
            sim.ready("x");
            for _ in 0..2 {
                sim.ended("a", Exit::Code(1));
                sim.pass(200);
            }
        }),
        ("exited", |sim| sim.stop("a").unwrap()),
    ];
    let cases: &[(&str, Wish, &str, &[&str])] = &[
        ("waiting", start, "waiting", &[]),
        ("waiting", restart, "waiting", &[]),
        ("waiting", stop, "exited", &[]),
        ("starting", start, "starting", &[]),
        ("starting", restart, "stopping", &["signal 15 a"]),
        ("starting", stop, "stopping", &["signal 15 a"]),
        ("running", start, "running", &[]),
        ("running", restart, "stopping", &["signal 15 a"]),
        ("running", stop, "stopping", &["signal 15 a"]),
        ("stopping", start, "stopping", &[]),
        ("stopping", restart, "stopping", &[]),
        ("stopping", stop, "stopping", &[]),
        ("backoff", start, "starting", &["spawn a"]),
        ("backoff", restart, "starting", &["spawn a"]),
        ("backoff", stop, "exited", &[]),
        ("failed", start, "starting", &["spawn a"]),
        ("failed", restart, "starting", &["spawn a"]),
        ("failed", stop, "exited", &[]),
        ("exited", start, "waiting", &[]),
        ("exited", restart, "waiting", &[]),
        ("exited", stop, "exited", &[]),
    ];
    for (number, (before, wish, after, done)) in cases.iter().enumerate() {
        let strict = Rules { budget: Budget { crashes: 2, within: 600_000 }, ..rules(&[], &["x"]) };
        let mut sim = Sim::new(&[("x", rules(&[], &[])), ("a", strict)]);
        sim.event(Event::Begin);
        let (_, way) = reach.iter().find(|(state, _)| state == before).unwrap();
        way(&mut sim);
        assert_eq!(sim.told("a").0, *before, "case {number}");
        sim.log();
        wish(&mut sim, "a").unwrap();
        assert_eq!(sim.told("a").0, *after, "case {number}");
        assert_eq!(sim.log(), *done, "case {number}");
    }
}

#[test]
fn the_newest_wish_says_what_follows_a_stop() {
    for (wishes, expect) in [
        ("stop", "exited"),
        ("stop start", "starting"),
        ("restart", "starting"),
        ("restart stop", "exited"),
        ("stop restart stop start", "starting"),
    ] {
        let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
        for wish in wishes.split(' ') {
            match wish {
                "stop" => sim.stop("a").unwrap(),
                "start" => sim.start("a").unwrap(),
                _ => sim.restart("a").unwrap(),
            }
        }
        assert_eq!(sim.log(), ["signal 15 a"], "{wishes}");
        sim.ended("a", Exit::Code(0));
        assert_eq!(sim.told("a").0, expect, "{wishes}");
    }
}

#[test]
fn a_oneshot_runs_again_by_hand() {
    let once = Rules { ready: Ready::Ended, ..rules(&[], &[]) };
    let mut sim = Sim::new(&[("a", once)]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(0));
    sim.restart("a").unwrap();
    assert_eq!(sim.told("a").0, "starting");
    sim.ended("a", Exit::Code(0));
    assert_eq!((sim.told("a").0, sim.log()), ("done", vec!["spawn a".to_owned(); 2]));
}

#[test]
fn a_transient_unit_lives_until_it_is_acknowledged() {
    let mut sim = Sim::new(&[]);
    sim.vm("vm/t/d.w");
    let again = sim.supervisor.start_transient(0, "vm/t/d.w", 15, 1);
    assert_eq!(again.unwrap_err(), Refusal::Exists("vm/t/d.w".to_owned()));
    assert!(matches!(sim.supervisor.acknowledge("vm/t/d.w"), Err(Refusal::NotExited(_))));
    // A second, shorter wish counts; a longer one doesn't.
    for grace in [3_000, 9_000, 0] {
        let actions = sim.supervisor.stop_transient(sim.now, "vm/t/d.w", grace).unwrap();
        sim.done(actions).unwrap();
        assert!(sim.supervisor.next_time().unwrap() <= 5_000);
    }
    sim.ended("vm/t/d.w", Exit::Code(0));
    let status = sim.status("vm/t/d.w");
    assert_eq!((status.state, status.exit.unwrap().code), ("exited", Some(0)));
    let actions = sim.supervisor.acknowledge("vm/t/d.w").unwrap();
    sim.done(actions).unwrap();
    assert_eq!(sim.log(), ["spawn vm/t/d.w", "signal 15 vm/t/d.w", "kill vm/t/d.w", "forget 0"]);
    assert!(matches!(sim.supervisor.acknowledge("vm/t/d.w"), Err(Refusal::Unknown(_))));
}

#[test]
fn a_transient_unit_that_cannot_start_says_why() {
    let mut sim = Sim::new(&[]);
    sim.missing.insert("vm/t/d.w".to_owned());
    sim.vm("vm/t/d.w");
    assert_eq!(sim.told("vm/t/d.w"), ("exited", "no such program".to_owned()));
}

#[test]
fn services_and_transient_units_are_not_mixed_up() {
    let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
    sim.vm("vm/t/d.w");
    let unknown = |name: &str| Refusal::Unknown(name.to_owned());
    assert_eq!(sim.supervisor.stop_transient(0, "a", 0), Err(unknown("a")));
    assert_eq!(sim.supervisor.acknowledge("a"), Err(unknown("a")));
    for wish in [Sim::start, Sim::stop, Sim::restart] {
        assert_eq!(wish(&mut sim, "vm/t/d.w"), Err(unknown("vm/t/d.w")));
        assert_eq!(wish(&mut sim, "b"), Err(unknown("b")));
    }
    sim.down();
    assert_eq!(sim.start("a"), Err(Refusal::GoingDown));
}

fn reload(sim: &mut Sim, services: &[(&str, Rules)]) -> (Vec<String>, Vec<u32>) {
    let declared = |(name, rules): &(&str, Rules)| Declared {
        name: (*name).to_owned(),
        rules: rules.clone(),
        broken: None,
    };
    let declared = services.iter().map(declared).collect();
    let (reloaded, actions) = sim.supervisor.reload(sim.now, declared).unwrap();
    sim.done(actions).unwrap();
    let names: Vec<String> = reloaded.units.iter().map(|id| sim.name(*id)).collect();
    assert_eq!(names, services.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let changed = reloaded.changed.iter().map(|id| sim.name(*id)).collect();
    (changed, reloaded.removed.iter().map(|id| id.0).collect())
}

#[test]
fn a_new_set_of_services() {
    let mut sim = Sim::running(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[]))]);
    sim.vm("vm/t/d.w");
    sim.log();
    // Nothing changes: nothing happens.
    let same = [("a", rules(&[], &[])), ("b", rules(&["a"], &[]))];
    assert_eq!(reload(&mut sim, &same), (vec![], vec![]));
    assert_eq!(sim.log(), [""; 0]);
    // b goes, c comes, a changes and goes on.
    let slow = Rules { stop_timeout: 9_000, ..rules(&[], &[]) };
    let (changed, removed) = reload(&mut sim, &[("a", slow), ("c", rules(&[], &["a"]))]);
    assert_eq!((changed, removed), (vec!["a".to_owned(), "c".to_owned()], vec![1]));
    assert_eq!(sim.log(), ["signal 15 b", "spawn c"]);
    sim.ended("b", Exit::Code(0));
    assert_eq!(sim.log(), ["forget 1"]);
    let names: Vec<String> = sim.supervisor.status().into_iter().map(|unit| unit.name).collect();
    assert_eq!(names, ["a", "c", "vm/t/d.w"]);
    // Links were found anew: c follows a.
    sim.ended("c", Exit::Code(1));
    sim.stop("a").unwrap();
    sim.ended("a", Exit::Code(0));
    sim.pass(1_000);
    assert_eq!(sim.told("c").1, "requires a: stopped by hand");
}

#[test]
fn one_that_is_declared_again_while_it_leaves_stays() {
    let both = [("a", rules(&[], &[])), ("b", rules(&[], &[]))];
    let mut sim = Sim::running(&both);
    reload(&mut sim, &both[..1]);
    assert_eq!(sim.told("b").0, "stopping");
    reload(&mut sim, &both);
    sim.ended("b", Exit::Code(0));
    assert_eq!(sim.log(), ["signal 15 b", "spawn b"]);
    // One without a process goes at once.
    sim.ready("b");
    sim.stop("b").unwrap();
    sim.ended("b", Exit::Code(0));
    sim.log();
    assert_eq!(reload(&mut sim, &both[..1]), (vec![], vec![1]));
    assert_eq!(sim.log(), ["forget 1"]);
}

#[test]
fn a_promise_is_kept_by_those_who_were_told_of_it() {
    // It was started without a watchdog, so it can't know that it must speak.
    let mut sim = Sim::running(&[("a", rules(&[], &[]))]);
    let watched = Rules { watchdog: Some(1_000), ..rules(&[], &[]) };
    reload(&mut sim, &[("a", watched)]);
    sim.pass(100_000);
    assert_eq!((sim.log(), sim.told("a").0), (vec![], "running"));
    sim.restart("a").unwrap();
    sim.ended("a", Exit::Code(0));
    sim.ready("a");
    sim.log();
    sim.pass(1_000);
    assert_eq!(sim.log(), ["signal 6 a"]);
}
