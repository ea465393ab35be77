//! The core against a model of the machine: processes that do what a test says, and what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use zos_host::process::Exit;

use super::*;
use crate::unit::{Backoff, Budget, Liveness, Ready, Restart};

mod care;
mod down;
mod faults;
mod graph;
mod hand;
mod random;
mod start;

fn rules(after: &[&str], requires: &[&str]) -> Rules {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Rules {
        after: names(&[after, requires].concat()),
        requires: names(requires),
        ready: Ready::Told,
        ready_timeout: 1_000,
        budget: Budget { crashes: 1_000, within: 600_000 },
        stop_timeout: 500,
        ..Rules::default()
    }
}

/// A node whose processes do what the script says; actions are written as words.
struct Sim {
    supervisor: Supervisor,
    now: Millis,
    log: Vec<String>,
    /// `unit: state` of each event.
    events: Vec<String>,
    notes: Vec<String>,
    /// The processes that live.
    processes: BTreeMap<UnitId, i32>,
    checks: BTreeSet<UnitId>,
    next_pid: i32,
    /// Programs that can't be started.
    missing: BTreeSet<String>,
    /// Services whose socket answers.
    answering: BTreeSet<String>,
    finished: Option<Vec<String>>,
}

impl Sim {
    fn new(services: &[(&str, Rules)]) -> Self {
        let mut sim = Self {
            supervisor: Supervisor::default(),
            now: 0,
            log: Vec::new(),
            events: Vec::new(),
            notes: Vec::new(),
            processes: BTreeMap::new(),
            checks: BTreeSet::new(),
            next_pid: 100,
            missing: BTreeSet::new(),
            answering: BTreeSet::new(),
            finished: None,
        };
        for (name, rules) in services {
            sim.supervisor.add_service(0, name, rules.clone(), None);
        }
        sim
    }

    /// Begun, and one after the other ready.
    fn running(services: &[(&str, Rules)]) -> Self {
        let mut sim = Self::new(services);
        sim.event(Event::Begin);
        for (name, _) in services {
            sim.ready(name);
        }
        sim.log();
        sim
    }

    fn unit(&self, name: &str) -> &Unit {
        self.supervisor.units.iter().find(|unit| unit.name == name).unwrap()
    }

    fn name(&self, id: UnitId) -> String {
        let unit = self.supervisor.units.iter().find(|unit| unit.id == id);
        unit.map_or_else(|| format!("#{}", id.0), |unit| unit.name.clone())
    }

    fn state(&self, name: &str) -> &State {
        &self.unit(name).state
    }

    fn status(&self, name: &str) -> Status {
        self.supervisor.status().into_iter().find(|status| status.name == name).unwrap()
    }

    /// State and detail.
    fn told(&self, name: &str) -> (&'static str, String) {
        let status = self.status(name);
        (status.state, status.detail)
    }

    fn event(&mut self, event: Event) {
        let actions = self.supervisor.handle(self.now, event);
        self.perform(actions);
        self.hold();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let more = self.act(action);
            actions.extend(more.into_iter().flat_map(|e| self.supervisor.handle(self.now, e)));
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        // What hung may still end then.
        let late = matches!(
            action,
            Action::Note(..)
                | Action::Changed
                | Action::Happened(_)
                | Action::Tidy(_)
                | Action::Forget(_)
        );
        assert!(self.finished.is_none() || late, "{action:?} after the end");
        match action {
            Action::Spawn(unit) => {
                let name = self.name(unit);
                self.log.push(format!("spawn {name}"));
                assert!(!self.processes.contains_key(&unit), "{name} runs twice");
                let pid = if self.missing.contains(&name) {
                    Err("no such program".to_owned())
                } else {
                    self.next_pid += 1;
                    self.processes.insert(unit, self.next_pid);
                    Ok(self.next_pid)
                };
                return Some(Event::Launched { unit, pid, jitter: 0 });
            }
            Action::Look(unit) => {
                let name = self.name(unit);
                if self.answering.contains(&name) {
                    return Some(Event::Told { unit });
                }
                self.log.push(format!("look {name}"));
            }
            Action::Check(unit) => {
                assert!(self.processes.contains_key(&unit), "a check of nothing");
                self.log.push(format!("check {}", self.name(unit)));
                assert!(self.checks.insert(unit), "two checks at once");
            }
            Action::EndCheck(unit) => {
                self.log.push(format!("end check {}", self.name(unit)));
                assert!(self.checks.contains(&unit), "no check to end");
            }
            Action::Signal(unit, signal) => {
                assert!(self.processes.contains_key(&unit), "a signal to nobody");
                self.log.push(format!("signal {signal} {}", self.name(unit)));
            }
            Action::Kill(unit) => {
                assert!(self.processes.contains_key(&unit), "nobody to kill");
                self.log.push(format!("kill {}", self.name(unit)));
            }
            Action::Tidy(unit) => {
                assert!(!self.processes.contains_key(&unit), "tidied while it runs");
                self.checks.remove(&unit);
            }
            Action::Forget(unit) => {
                assert!(!self.processes.contains_key(&unit), "forgotten while it runs");
                self.log.push(format!("forget {}", unit.0));
            }
            Action::Drain { deadline_ms, unit } => {
                self.log.push(format!("drain {} {deadline_ms}", self.name(unit)));
            }
            Action::Finish { end, hung } => {
                self.log.push(format!("finish {end:?}"));
                self.finished = Some(hung);
            }
            Action::Happened(happened) => {
                self.events.push(format!("{}: {}", happened.name, happened.state));
            }
            Action::Note(_, text) => self.notes.push(text),
            Action::Changed => {}
        }
        None
    }

    /// What holds after each event.
    fn hold(&self) {
        let units = &self.supervisor.units;
        let known: BTreeMap<UnitId, i32> =
            units.iter().filter_map(|unit| Some((unit.id, unit.pid()?))).collect();
        assert_eq!(known, self.processes, "processes that are known, and that live");
        let ways = self.supervisor.ways();
        for (at, unit) in units.iter().enumerate() {
            assert!(!matches!(unit.state, State::Launching { .. } | State::Gone), "{}", unit.name);
            if unit.state == State::Waiting && self.supervisor.begun {
                let waits = self.supervisor.waits_for(at, &ways);
                assert!(waits.is_some(), "{} waits for nothing", unit.name);
            }
        }
        if let Some(next) = self.supervisor.next_time() {
            assert!(next > self.now, "{next} is due at {}", self.now);
        }
    }

    fn ready(&mut self, name: &str) {
        let unit = self.unit(name).id;
        self.event(Event::Told { unit });
    }

    fn ended(&mut self, name: &str, exit: Exit) {
        let unit = self.unit(name).id;
        assert!(self.processes.remove(&unit).is_some(), "{name} doesn't run");
        let how = Ended { exit, oom: false, why: None };
        self.event(Event::Ended { unit, how, jitter: 0 });
    }

    fn checked(&mut self, name: &str, failed: Option<&str>) {
        let unit = self.unit(name).id;
        assert!(self.checks.remove(&unit), "{name} has no check");
        self.event(Event::Checked { unit, failed: failed.map(str::to_owned) });
    }

    fn down(&mut self) {
        self.event(Event::Down { end: End::Poweroff, why: "test".to_owned() });
    }

    /// Time passes, and the timer rings whenever it is due.
    fn pass(&mut self, millis: Millis) {
        let end = self.now + millis;
        while let Some(next) = self.supervisor.next_time().filter(|next| *next <= end) {
            self.now = next;
            self.event(Event::Time);
        }
        self.now = end;
        self.event(Event::Time);
    }

    fn vm(&mut self, name: &str) {
        let (_, actions) =
            self.supervisor.start_transient(self.now, name, 15, 20_000).expect("it starts");
        self.perform(actions);
        self.hold();
    }

    fn start(&mut self, name: &str) -> Result<(), Refusal> {
        let actions = self.supervisor.start_unit(self.now, name)?;
        self.done(actions)
    }

    fn stop(&mut self, name: &str) -> Result<(), Refusal> {
        let actions = self.supervisor.stop_unit(self.now, name)?;
        self.done(actions)
    }

    fn restart(&mut self, name: &str) -> Result<(), Refusal> {
        let actions = self.supervisor.restart_unit(self.now, name)?;
        self.done(actions)
    }

    fn done(&mut self, actions: Vec<Action>) -> Result<(), Refusal> {
        self.perform(actions);
        self.hold();
        Ok(())
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}
