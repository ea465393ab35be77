use proptest::prelude::*;
use zos_host::process::Exit;

use super::life::{KILLED, STEADY, delay};
use super::*;

fn rules(after: &[&str], requires: &[&str]) -> Rules {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Rules {
        after: names(&[after, requires].concat()),
        requires: names(requires),
        ready: Ready::Told,
        ready_timeout: 1_000,
        restart: Restart::Always,
        stop_signal: 15,
        stop_timeout: 500,
    }
}

/// A node whose processes do what the script says; actions are written as words.
struct Sim {
    supervisor: Supervisor,
    now: Millis,
    log: Vec<String>,
}

impl Sim {
    fn new(services: &[(&str, Rules)]) -> Self {
        let mut sim = Self { supervisor: Supervisor::default(), now: 0, log: Vec::new() };
        for (name, rules) in services {
            sim.supervisor.add_service(0, name, rules.clone(), None);
        }
        sim
    }

    fn unit(&self, name: &str) -> &Unit {
        self.supervisor.units.iter().find(|unit| unit.name == name).unwrap()
    }

    fn state(&self, name: &str) -> &State {
        &self.unit(name).state
    }

    fn event(&mut self, event: Event) {
        let actions = self.supervisor.handle(self.now, event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            let name = |id: UnitId| {
                self.supervisor.units.iter().find(|u| u.id == id).map_or("?", |u| &u.name)
            };
            match action {
                Action::Spawn(unit) => {
                    self.log.push(format!("spawn {}", name(unit)));
                    let pid = Ok(i32::try_from(unit.0).unwrap() + 100);
                    self.event(Event::Launched { unit, pid, jitter: 0 });
                }
                Action::Signal(unit, signal) => {
                    self.log.push(format!("signal {signal} {}", name(unit)));
                }
                Action::Kill(unit) => self.log.push(format!("kill {}", name(unit))),
                Action::Finish(end) => self.log.push(format!("finish {end:?}")),
                Action::Forget(unit) => self.log.push(format!("forget {}", unit.0)),
                Action::Note(..) | Action::Changed | Action::Tidy(_) => {}
            }
        }
    }

    fn ready(&mut self, name: &str) {
        let unit = self.unit(name).id;
        self.event(Event::Ready { unit });
    }

    fn ended(&mut self, name: &str, exit: Exit) {
        let unit = self.unit(name).id;
        let how = Ended { exit, oom: false, unreached: None };
        self.event(Event::Ended { unit, how, jitter: 0 });
    }

    fn down(&mut self) {
        self.event(Event::Down { end: End::Poweroff, why: "test".to_owned() });
    }

    fn pass(&mut self, millis: Millis) {
        self.now += millis;
        self.event(Event::Time);
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

#[test]
fn services_start_when_those_before_them_are_ready() {
    let mut sim =
        Sim::new(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[])), ("c", rules(&[], &["b"]))]);
    sim.event(Event::Begin);
    assert_eq!(sim.log(), ["spawn a"]);
    assert_eq!(sim.supervisor.status()[1].detail, "after a");
    assert_eq!(sim.supervisor.status()[2].detail, "requires b");
    sim.ready("a");
    assert_eq!(sim.log(), ["spawn b"]);
    sim.ready("b");
    assert_eq!(sim.log(), ["spawn c"]);
    assert!(!sim.supervisor.settled());
    sim.ready("c");
    assert!(sim.supervisor.settled());
}

#[test]
fn a_failing_service_holds_back_only_those_that_need_it() {
    let mut sim =
        Sim::new(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[])), ("c", rules(&[], &["a"]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(1));
    assert_eq!(sim.log(), ["spawn a", "spawn b"]);
    assert_eq!(*sim.state("c"), State::Waiting);
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
    for (streak, jitter, expect) in [
        (1, 0, 200),
        (2, 0, 400),
        (5, 0, 3_200),
        (9, 0, 30_000),
        (u32::MAX, 0, 30_000),
        (1, 999, 249),
        (20, 500, 33_750),
    ] {
        assert_eq!(delay(streak, jitter), expect, "{streak} {jitter}");
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
    for (restart, exit, again) in [
        (Restart::Always, Exit::Code(0), true),
        (Restart::OnFailure, Exit::Code(0), false),
        (Restart::OnFailure, Exit::Code(3), true),
        (Restart::OnFailure, Exit::Signal(11), true),
        (Restart::Never, Exit::Code(3), false),
    ] {
        let mut sim = Sim::new(&[("a", Rules { restart, ..rules(&[], &[]) })]);
        sim.event(Event::Begin);
        sim.ended("a", exit);
        assert_eq!(*sim.state("a") != State::Exited, again, "{restart:?} {exit}");
    }
}

#[test]
fn one_that_is_never_ready_is_stopped_killed_and_started_again() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    assert_eq!(sim.supervisor.next_time(), Some(1_000));
    sim.pass(1_000);
    assert_eq!(sim.log(), ["spawn a", "signal 15 a"]);
    sim.pass(500);
    assert_eq!(sim.log(), ["kill a"]);
    sim.ended("a", Exit::Signal(9));
    sim.pass(200);
    assert_eq!(sim.log(), ["spawn a"]);
}

#[test]
fn one_that_cannot_be_killed_is_given_up() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    sim.ready("a");
    sim.down();
    sim.pass(500);
    sim.pass(KILLED);
    assert_eq!(sim.log(), ["spawn a", "signal 15 a", "kill a", "finish Poweroff"]);
    assert!(matches!(sim.state("a"), State::Failed { .. }));
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
    assert_eq!(sim.supervisor.status()[1].detail, "requires a: /bin/a is corrupt");
}

#[test]
fn a_transient_unit_lives_until_it_is_acknowledged() {
    let mut sim = Sim::new(&[]);
    let start = |sim: &mut Sim| {
        let (_, actions) = sim.supervisor.start_transient(sim.now, "vm/t/d.w", 15, 20_000)?;
        sim.perform(actions);
        Ok::<(), Refusal>(())
    };
    start(&mut sim).unwrap();
    assert_eq!(start(&mut sim), Err(Refusal::Exists("vm/t/d.w".to_owned())));
    assert!(matches!(sim.supervisor.acknowledge("vm/t/d.w"), Err(Refusal::NotExited(_))));
    let actions = sim.supervisor.stop_transient(sim.now, "vm/t/d.w", 3_000).unwrap();
    sim.perform(actions);
    // A second, shorter wish counts.
    let actions = sim.supervisor.stop_transient(sim.now, "vm/t/d.w", 0).unwrap();
    sim.perform(actions);
    sim.ended("vm/t/d.w", Exit::Code(0));
    let status = sim.supervisor.status();
    assert_eq!((status[0].state, status[0].exit.unwrap().code), ("exited", Some(0)));
    let actions = sim.supervisor.acknowledge("vm/t/d.w").unwrap();
    sim.perform(actions);
    assert_eq!(sim.log(), ["spawn vm/t/d.w", "signal 15 vm/t/d.w", "kill vm/t/d.w", "forget 0"]);
    assert!(matches!(sim.supervisor.acknowledge("vm/t/d.w"), Err(Refusal::Unknown(_))));
}

#[test]
fn a_service_is_no_transient_unit() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    assert!(matches!(sim.supervisor.stop_transient(0, "a", 0), Err(Refusal::Unknown(_))));
    assert!(matches!(sim.supervisor.acknowledge("a"), Err(Refusal::Unknown(_))));
}

#[test]
fn the_way_down_is_vms_then_services_in_reverse() {
    let mut sim =
        Sim::new(&[("a", rules(&[], &[])), ("b", rules(&["a"], &[])), ("c", rules(&["b"], &[]))]);
    sim.event(Event::Begin);
    for name in ["a", "b", "c"] {
        sim.ready(name);
    }
    let (_, actions) = sim.supervisor.start_transient(0, "vm/t/d.w", 15, 20_000).unwrap();
    sim.perform(actions);
    sim.log();
    sim.down();
    assert_eq!(sim.log(), ["signal 15 vm/t/d.w"]);
    assert_eq!(
        sim.supervisor.start_transient(0, "vm/t/d.x", 15, 1).unwrap_err(),
        Refusal::GoingDown
    );
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
}

#[test]
fn one_that_waits_to_start_again_needs_no_stop() {
    let mut sim = Sim::new(&[("a", rules(&[], &[]))]);
    sim.event(Event::Begin);
    sim.ended("a", Exit::Code(1));
    sim.down();
    assert_eq!(sim.log(), ["spawn a", "finish Poweroff"]);
    sim.pass(100_000);
    assert_eq!(sim.log(), [] as [&str; 0]);
}

/// What chance does to a running node.
#[derive(Debug, Clone)]
enum Step {
    Ready(usize),
    End(usize, bool),
    Pass(Millis),
    Start(u8),
    Stop(u8, Millis),
    Acknowledge(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..8_usize).prop_map(Step::Ready),
        (0..8_usize, any::<bool>()).prop_map(|(unit, well)| Step::End(unit, well)),
        (0..40_000_u64).prop_map(Step::Pass),
        (0..3_u8).prop_map(Step::Start),
        (0..3_u8, 0..2_000_u64).prop_map(|(vm, grace)| Step::Stop(vm, grace)),
        (0..3_u8).prop_map(Step::Acknowledge),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_order_holds_and_the_end_is_reached(
        // Service n may need or follow services below n: no cycles.
        edges in proptest::collection::vec((0..8_usize, 0..8_usize, any::<bool>()), 0..16),
        steps in proptest::collection::vec(step(), 0..60),
        falls in proptest::collection::vec(0..8_usize, 0..6),
    ) {
        let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
        let mut services: Vec<(&str, Rules)> = names.iter().map(|name| (name.as_str(), rules(&[], &[]))).collect();
        for (a, b, needs) in edges {
            if a < b {
                services[b].1.after.push(names[a].clone());
                if needs {
                    services[b].1.requires.push(names[a].clone());
                }
            }
        }
        let mut sim = Sim::new(&services);
        sim.event(Event::Begin);
        for step in steps {
            match step {
                Step::Ready(n) => sim.ready(&names[n]),
                Step::End(n, well) => {
                    let alive = sim.supervisor.status()[n].pid.is_some();
                    if alive {
                        sim.ended(&names[n], if well { Exit::Code(0) } else { Exit::Signal(11) });
                    }
                }
                Step::Pass(millis) => sim.pass(millis),
                Step::Start(n) => {
                    if let Ok((_, actions)) = sim.supervisor.start_transient(sim.now, &format!("vm/{n}"), 15, 1_000) {
                        sim.perform(actions);
                    }
                }
                Step::Stop(n, grace) => {
                    if let Ok(actions) = sim.supervisor.stop_transient(sim.now, &format!("vm/{n}"), grace) {
                        sim.perform(actions);
                    }
                }
                Step::Acknowledge(n) => {
                    if let Ok(actions) = sim.supervisor.acknowledge(&format!("vm/{n}")) {
                        sim.perform(actions);
                    }
                }
            }
            // Nothing can start that waits for nothing: it would have.
            let ways = sim.supervisor.ways();
            for unit in &sim.supervisor.units {
                prop_assert!(unit.state != State::Launching);
                if unit.state == State::Waiting {
                    prop_assert!(sim.supervisor.waits_for(unit, &ways).is_some(), "{} waits for nothing", unit.name);
                }
            }
            // Time that is due passes: the next time lies ahead.
            if let Some(next) = sim.supervisor.next_time() {
                prop_assert!(next > sim.now);
            }
        }
        sim.log();
        sim.down();
        for n in falls {
            if sim.supervisor.status()[n].pid.is_some() {
                sim.ended(&names[n], Exit::Signal(6));
            }
        }
        // Nothing ends by itself any more: time alone must lead down.
        for _ in 0..200 {
            let Some(next) = sim.supervisor.next_time() else { break };
            sim.now = sim.now.max(next);
            sim.event(Event::Time);
        }
        let log = sim.log();
        prop_assert_eq!(log.last().map(String::as_str), Some("finish Poweroff"));
        prop_assert!(!log.iter().any(|line| line.starts_with("spawn")));
    }
}
