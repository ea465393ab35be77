//! Whatever happens, in whatever order: nothing panics, no process is forgotten or doubled, and the way down ends.

use proptest::prelude::*;

use super::super::down::{FORCED, WAY};
use super::super::hand::Declared;
use super::*;

const NAMES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/// What chance does to a running node.
#[derive(Debug, Clone, Copy)]
enum Step {
    Told(usize),
    End(usize, i32, bool),
    EndVm(u8),
    CheckEnds(usize, bool),
    /// That nobody asked for.
    Checked(usize),
    Drained(bool),
    Pass(Millis),
    /// The clock goes on, and the timer rings late.
    Late(Millis),
    StartVm(u8),
    StopVm(u8, Millis),
    Acknowledge(u8),
    Start(usize),
    Stop(usize),
    Restart(usize),
    /// Its program is there, or not.
    Missing(usize, bool),
    Answers(usize, bool),
    /// Those of these services that are declared.
    Reload(u8),
    Down,
}

fn step() -> impl Strategy<Value = Step> {
    let unit = || 0..NAMES.len();
    prop_oneof![
        6 => unit().prop_map(Step::Told),
        4 => (unit(), 0..2_i32, any::<bool>()).prop_map(|(unit, code, oom)| Step::End(unit, code, oom)),
        2 => (0..3_u8).prop_map(Step::EndVm),
        2 => (unit(), any::<bool>()).prop_map(|(unit, well)| Step::CheckEnds(unit, well)),
        1 => unit().prop_map(Step::Checked),
        1 => any::<bool>().prop_map(Step::Drained),
        6 => (0..40_000_u64).prop_map(Step::Pass),
        1 => (0..4_000_000_u64).prop_map(Step::Late),
        2 => (0..3_u8).prop_map(Step::StartVm),
        2 => (0..3_u8, 0..2_000_u64).prop_map(|(vm, grace)| Step::StopVm(vm, grace)),
        2 => (0..3_u8).prop_map(Step::Acknowledge),
        2 => unit().prop_map(Step::Start),
        2 => unit().prop_map(Step::Stop),
        2 => unit().prop_map(Step::Restart),
        1 => (unit(), any::<bool>()).prop_map(|(unit, gone)| Step::Missing(unit, gone)),
        1 => (unit(), any::<bool>()).prop_map(|(unit, yes)| Step::Answers(unit, yes)),
        1 => any::<u8>().prop_map(Step::Reload),
        1 => Just(Step::Down),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let ready = prop_oneof![
        Just(Ready::Started),
        Just(Ready::Told),
        Just(Ready::Socket),
        Just(Ready::Ended)
    ];
    let restart =
        prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)];
    let watches = (any::<bool>(), any::<bool>());
    (ready, restart, watches, 0..3_000_u64, 1..4_u32, any::<bool>()).prop_map(
        |(ready, restart, (watched, checked), stop_timeout, crashes, drains)| Rules {
            ready,
            restart,
            watchdog: watched.then_some(7_000),
            liveness: checked.then_some(Liveness { every: 2_000, timeout: 500, failures: 2 }),
            budget: Budget { crashes, within: 60_000 },
            retry: (crashes != 3).then_some(90_000),
            stop_timeout,
            drains,
            ..rules(&[], &[])
        },
    )
}

fn services(all: &[Rules], edges: &[(usize, usize, bool)], mask: u8) -> Vec<Declared> {
    let declared = |at: usize| mask >> at & 1 == 1;
    let mut rules = all.to_vec();
    for &(a, b, needs) in edges {
        if a < b && declared(a) {
            rules[b].after.push(NAMES[a].to_owned());
            if needs {
                rules[b].requires.push(NAMES[a].to_owned());
            }
        }
    }
    let rules = rules.into_iter().enumerate().filter(|(at, _)| declared(*at));
    rules.map(|(at, rules)| Declared { name: NAMES[at].to_owned(), rules, broken: None }).collect()
}

fn alive(sim: &Sim, name: &str) -> bool {
    let unit = sim.supervisor.find(name);
    unit.is_some_and(|unit| sim.processes.contains_key(&unit))
}

fn take(sim: &mut Sim, step: Step, reloads: &dyn Fn(u8) -> Vec<Declared>) {
    let wish = |sim: &mut Sim, wished: Result<Vec<Action>, Refusal>| {
        if let Ok(actions) = wished {
            sim.done(actions).unwrap();
        }
    };
    let id = |sim: &Sim, at: usize| sim.supervisor.find(NAMES[at]).unwrap_or(UnitId(7_777));
    let vm = |number: u8| format!("vm/{number}");
    match step {
        Step::Told(at) => {
            let unit = id(sim, at);
            sim.event(Event::Told { unit });
        }
        Step::End(at, code, oom) => {
            if alive(sim, NAMES[at]) {
                let unit = id(sim, at);
                sim.processes.remove(&unit);
                let how = Ended { exit: Exit::Code(code), oom, why: None };
                sim.event(Event::Ended { unit, how, jitter: 999 });
            }
        }
        Step::EndVm(number) => {
            if alive(sim, &vm(number)) {
                sim.ended(&vm(number), Exit::Signal(9));
            }
        }
        Step::CheckEnds(at, well) => {
            let unit = id(sim, at);
            if sim.checks.contains(&unit) {
                sim.checked(NAMES[at], (!well).then_some("exit code 1"));
            }
        }
        Step::Checked(at) => {
            let unit = id(sim, at);
            if !sim.checks.contains(&unit) {
                sim.event(Event::Checked { unit, failed: Some("who?".to_owned()) });
            }
        }
        Step::Drained(well) => {
            sim.event(Event::Drained { problem: (!well).then(|| "no".to_owned()) });
        }
        Step::Pass(millis) => sim.pass(millis),
        Step::Late(millis) => {
            sim.now += millis;
            sim.event(Event::Time);
        }
        Step::StartVm(number) => {
            let started = sim.supervisor.start_transient(sim.now, &vm(number), 15, 1_000);
            wish(sim, started.map(|(_, actions)| actions));
        }
        Step::StopVm(number, grace) => {
            let stopped = sim.supervisor.stop_transient(sim.now, &vm(number), grace);
            wish(sim, stopped);
        }
        Step::Acknowledge(number) => {
            let done = sim.supervisor.acknowledge(&vm(number));
            wish(sim, done);
        }
        Step::Start(at) => drop(sim.start(NAMES[at])),
        Step::Stop(at) => drop(sim.stop(NAMES[at])),
        Step::Restart(at) => drop(sim.restart(NAMES[at])),
        Step::Missing(at, true) => drop(sim.missing.insert(NAMES[at].to_owned())),
        Step::Missing(at, false) => drop(sim.missing.remove(NAMES[at])),
        Step::Answers(at, true) => drop(sim.answering.insert(NAMES[at].to_owned())),
        Step::Answers(at, false) => drop(sim.answering.remove(NAMES[at])),
        Step::Reload(mask) => {
            let reloaded = sim.supervisor.reload(sim.now, reloads(mask));
            wish(sim, reloaded.map(|(_, actions)| actions));
        }
        Step::Down => sim.down(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_happens_the_end_is_reached(
        all in proptest::collection::vec(any_rules(), NAMES.len()),
        edges in proptest::collection::vec((0..8_usize, 0..8_usize, any::<bool>()), 0..16),
        steps in proptest::collection::vec(step(), 0..80),
        falls in proptest::collection::vec(0..8_usize, 0..6),
    ) {
        let mut sim = Sim::new(&[]);
        for Declared { name, rules, .. } in services(&all, &edges, 0xff) {
            sim.supervisor.add_service(0, &name, rules, None);
        }
        sim.event(Event::Begin);
        let reloads = |mask: u8| services(&all, &edges, mask);
        for step in steps {
            if sim.finished.is_some() {
                break;
            }
            take(&mut sim, step, &reloads);
        }
        if sim.finished.is_none() {
            sim.down();
        }
        let spawned = sim.next_pid;
        let begun = sim.now;
        for at in falls {
            if alive(&sim, NAMES[at]) {
                take(&mut sim, Step::End(at, 1, false), &reloads);
            }
        }
        // Nothing ends by itself any more: time alone must lead down.
        while let Some(next) = sim.supervisor.next_time() {
            prop_assert!(next <= begun + WAY + FORCED);
            sim.now = next;
            sim.event(Event::Time);
        }
        prop_assert!(sim.finished.is_some());
        prop_assert_eq!(sim.next_pid, spawned, "something was started on the way down");
    }
}
