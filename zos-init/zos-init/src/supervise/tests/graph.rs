//! 200 services in a random graph, each with a fate of its own: the order holds, nobody waits for ever, everybody ends in
//! a state that his fate explains, and the way down is found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::super::down::{FORCED, WAY};
use super::*;

const UNITS: usize = 200;
/// After so long nothing new happens.
const LONG: Millis = 2_700_000;

/// What becomes of a service's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Ready after some time, and stops when it is told to.
    Good(Millis),
    /// Ready by its socket.
    Answers,
    /// Does its work and ends.
    Once(Millis),
    /// Fails so often, then does its work.
    Heals(u32),
    /// Never says that it is ready.
    NeverReady,
    /// Ends before it is ready.
    Falls,
    /// Becomes ready and falls after this.
    Tires(Millis),
    /// Has no program.
    Missing,
    /// Ready, and ignores every signal but the last.
    Stubborn,
    /// Ready, and not even the last one ends it.
    Immortal,
    /// Ready, and falls over its stop signal.
    Clumsy,
    /// Ready, and says nothing more to its watchdog.
    Silent,
    /// Ready, but its check fails.
    Sick,
    /// Must never run.
    Broken,
}

impl Fate {
    /// It is ready one day, and stays so.
    fn is_good(self) -> bool {
        matches!(
            self,
            Self::Good(_)
                | Self::Answers
                | Self::Once(_)
                | Self::Heals(_)
                | Self::Stubborn
                | Self::Immortal
                | Self::Clumsy
        )
    }

    fn rules(self) -> Rules {
        let watchdog = (self == Self::Silent).then_some(5_000);
        let liveness = Liveness { every: 3_000, timeout: 1_000, failures: 2 };
        Rules {
            ready: match self {
                Self::Answers => Ready::Socket,
                Self::Once(_) | Self::Heals(_) => Ready::Ended,
                _ => Ready::Told,
            },
            budget: Budget { crashes: 5, within: 600_000 },
            watchdog,
            liveness: (self == Self::Sick).then_some(liveness),
            ..rules(&[], &[])
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => (0..900_u64).prop_map(Fate::Good),
        2 => Just(Fate::Answers),
        3 => (0..900_u64).prop_map(Fate::Once),
        1 => (1..12_u32).prop_map(Fate::Heals),
        1 => Just(Fate::NeverReady),
        1 => Just(Fate::Falls),
        1 => (0..90_000_u64).prop_map(Fate::Tires),
        1 => Just(Fate::Missing),
        1 => Just(Fate::Stubborn),
        1 => Just(Fate::Immortal),
        1 => Just(Fate::Clumsy),
        1 => Just(Fate::Silent),
        1 => Just(Fate::Sick),
        1 => Just(Fate::Broken),
    ]
}

/// What a process does later; void when another has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Tell,
    End(i32),
    EndBySignal(i32),
    FailCheck,
}

/// The machine with its processes' plans.
struct World {
    sim: Sim,
    fates: Vec<Fate>,
    /// Unit, deed and the process that does it, by time.
    plans: BinaryHeap<Reverse<(Millis, usize, Deed, i32)>>,
    starts: Vec<u32>,
    /// Was ready once, or fell once.
    tried: Vec<bool>,
}

impl World {
    fn new(fates: &[Fate], edges: &[(usize, usize, bool)]) -> Self {
        let mut services: Vec<Rules> = fates.iter().map(|fate| fate.rules()).collect();
        for &(a, b, needs) in edges {
            let (a, b) = (a.min(b), a.max(b));
            if a != b {
                services[b].after.push(format!("s{a}"));
                if needs {
                    services[b].requires.push(format!("s{a}"));
                }
            }
        }
        let mut sim = Sim::new(&[]);
        for (at, (rules, fate)) in services.into_iter().zip(fates).enumerate() {
            let broken = (*fate == Fate::Broken).then(|| "corrupt".to_owned());
            let name = format!("s{at}");
            match fate {
                Fate::Missing => drop(sim.missing.insert(name.clone())),
                Fate::Answers => drop(sim.answering.insert(name.clone())),
                _ => {}
            }
            sim.supervisor.add_service(0, &name, rules, broken);
        }
        Self {
            sim,
            fates: fates.to_vec(),
            plans: BinaryHeap::new(),
            starts: vec![0; fates.len()],
            tried: fates.iter().map(|fate| *fate == Fate::Broken).collect(),
        }
    }

    /// Gives an event, holds each start against the order, and lets the new processes make their plans.
    fn event(&mut self, event: Event) {
        self.sim.event(event);
        let log = self.sim.log();
        for line in &log {
            let Some((what, name)) = line.rsplit_once(' ') else { continue };
            let Some(at) = name.strip_prefix('s').and_then(|n| n.parse::<usize>().ok()) else {
                continue;
            };
            match what {
                "spawn" => self.spawned(at),
                "check" => self.plan(at, 100, Deed::FailCheck),
                "kill" if self.fates[at] != Fate::Immortal => {
                    self.plan(at, 3, Deed::EndBySignal(9));
                }
                signal if signal.starts_with("signal") => {
                    let fate = self.fates[at];
                    match fate {
                        Fate::Stubborn | Fate::Immortal => {}
                        Fate::Clumsy => self.plan(at, 3, Deed::EndBySignal(11)),
                        _ => self.plan(at, 7, Deed::EndBySignal(15)),
                    }
                }
                _ => {}
            }
        }
        for at in 0..self.fates.len() {
            let unit = &self.sim.supervisor.units[at];
            self.tried[at] |= unit.is_ready() || unit.last.is_some();
        }
    }

    fn spawned(&mut self, at: usize) {
        let name = format!("s{at}");
        let rules = self.sim.unit(&name).rules.clone();
        for other in &rules.requires {
            assert!(
                self.sim.unit(other).is_ready(),
                "{name} starts before {other}, which it requires"
            );
        }
        if self.starts[at] == 0 {
            for other in &rules.after {
                assert!(self.had_its_turn(other), "{name} starts before {other}'s turn");
            }
        }
        self.starts[at] += 1;
        match self.fates[at] {
            Fate::Good(after) => self.plan(at, after, Deed::Tell),
            Fate::Once(after) => self.plan(at, after, Deed::End(0)),
            Fate::Heals(count) => {
                let code = i32::from(self.starts[at] <= count);
                self.plan(at, 20, Deed::End(code));
            }
            Fate::Falls => self.plan(at, 30, Deed::End(1)),
            Fate::Tires(after) => {
                self.plan(at, 10, Deed::Tell);
                self.plan(at, 10 + after, Deed::EndBySignal(11));
            }
            Fate::Stubborn | Fate::Immortal | Fate::Clumsy | Fate::Silent | Fate::Sick => {
                self.plan(at, 10, Deed::Tell);
            }
            Fate::Answers | Fate::NeverReady | Fate::Missing | Fate::Broken => {}
        }
    }

    /// It was tried (and wasn't ready in time), or waits for one that it needs, that had its turn and isn't ready.
    fn had_its_turn(&self, name: &str) -> bool {
        let at: usize = name[1..].parse().unwrap();
        let unit = self.sim.unit(name);
        self.tried[at]
            || unit.is_ready()
            || unit.last.is_some()
            || matches!(unit.state, State::Stopping { .. })
            || unit.state == State::Waiting
                && unit
                    .rules
                    .requires
                    .iter()
                    .any(|other| !self.sim.unit(other).is_ready() && self.had_its_turn(other))
    }

    fn plan(&mut self, at: usize, after: Millis, deed: Deed) {
        let unit = self.sim.unit(&format!("s{at}")).id;
        if let Some(pid) = self.sim.processes.get(&unit) {
            self.plans.push(Reverse((self.sim.now + after, at, deed, *pid)));
        }
    }

    /// Lets everything happen until a time.
    fn until(&mut self, end: Millis) {
        loop {
            let plan = self.plans.peek().map(|Reverse((at, ..))| *at);
            let timer = self.sim.supervisor.next_time();
            let Some(next) = [plan, timer].into_iter().flatten().min().filter(|next| *next <= end)
            else {
                break;
            };
            self.sim.now = next;
            match self.plans.peek().copied() {
                Some(Reverse((at, unit, deed, pid))) if at <= next => {
                    self.plans.pop();
                    self.does(unit, deed, pid);
                }
                _ => self.event(Event::Time),
            }
        }
        self.sim.now = end;
        self.event(Event::Time);
    }

    fn does(&mut self, at: usize, deed: Deed, pid: i32) {
        let unit = self.sim.unit(&format!("s{at}")).id;
        if self.sim.processes.get(&unit) != Some(&pid) {
            return;
        }
        match deed {
            Deed::Tell => self.event(Event::Told { unit }),
            Deed::FailCheck => {
                if self.sim.checks.remove(&unit) {
                    self.event(Event::Checked { unit, failed: Some("exit code 1".to_owned()) });
                }
            }
            Deed::End(_) | Deed::EndBySignal(_) => {
                let exit = match deed {
                    Deed::End(code) => Exit::Code(code),
                    _ => Exit::Signal(if let Deed::EndBySignal(n) = deed { n } else { 0 }),
                };
                self.sim.processes.remove(&unit);
                let how = Ended { exit, oom: false, why: None };
                self.event(Event::Ended { unit, how, jitter: u16::try_from(at % 1000).unwrap() });
            }
        }
    }

    /// Everything that it requires, directly or not, is good too.
    fn is_well_founded(&self, at: usize) -> bool {
        let place = |name: &String| name[1..].parse::<usize>().unwrap();
        let requires = &self.sim.supervisor.units[at].rules.requires;
        self.fates[at].is_good() && requires.iter().all(|name| self.is_well_founded(place(name)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn the_order_holds_and_everybody_ends_somewhere(
        fates in proptest::collection::vec(fate(), UNITS),
        edges in proptest::collection::vec((0..UNITS, 0..UNITS, any::<bool>()), 0..600),
        down_at in 0..20_000_u64,
    ) {
        let mut world = World::new(&fates, &edges);
        world.event(Event::Begin);
        world.until(LONG);
        for (at, fate) in fates.iter().enumerate() {
            let name = format!("s{at}");
            let status = world.sim.status(&name);
            let once = matches!(fate, Fate::Once(_) | Fate::Heals(_));
            if world.is_well_founded(at) {
                let expect = if once { "done" } else { "running" };
                prop_assert_eq!(status.state, expect, "{} {:?}: {}", name, fate, status.detail);
            } else if status.state == "waiting" {
                // Whoever waits says for whom, and that one isn't ready.
                let other = status.detail.split([' ', ':']).nth(1).unwrap();
                prop_assert!(status.detail.starts_with("requires "), "{}", status.detail);
                prop_assert!(!world.sim.unit(other).is_ready());
            }
            if *fate == Fate::Falls && world.starts[at] > 0 {
                // Its budget is spent; between two tries it is failed, or waits for another again.
                prop_assert!(["failed", "backoff", "waiting"].contains(&status.state), "{status:?}");
                let retries = u32::try_from(LONG / 600_000).unwrap() + 1;
                prop_assert!(world.starts[at] <= 5 * retries, "{} starts", world.starts[at]);
            }
        }
        finish(&mut world)?;

        // The same way down out of the middle of the start.
        let mut world = World::new(&fates, &edges);
        world.event(Event::Begin);
        world.until(down_at);
        finish(&mut world)?;
    }
}

fn finish(world: &mut World) -> Result<(), TestCaseError> {
    let live: Vec<usize> = (0..UNITS)
        .filter(|at| world.sim.supervisor.units[*at].pid().is_some())
        .filter(|at| world.fates[*at] == Fate::Immortal)
        .collect();
    let starts = world.starts.clone();
    let begun = world.sim.now;
    world.event(Event::Down { end: End::Reboot, why: "test".to_owned() });
    world.until(begun + WAY + FORCED);
    prop_assert_eq!(&starts, &world.starts, "something was started on the way down");
    let hung = world.sim.finished.clone();
    prop_assert!(hung.is_some(), "the way down has no end");
    for at in live {
        let name = format!("s{at}");
        prop_assert!(hung.as_ref().is_some_and(|hung| hung.contains(&name)));
    }
    prop_assert_eq!(world.sim.supervisor.next_time(), None);
    Ok(())
}
