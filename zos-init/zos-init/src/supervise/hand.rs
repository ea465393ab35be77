//! What somebody asks for: services by hand, transient units, a new set of services.

use super::state::Then;
use super::{Action, Kind, Millis, Refusal, State, Supervisor, Unit, UnitId, order};
use crate::unit::{Ready, Restart, Rules};

/// A service as its file has it now.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: String,
    /// What the supervisor goes by.
    pub(crate) rules: Rules,
    /// Why it must never run.
    pub(crate) broken: Option<String>,
}

/// What a new set of services made of the old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// The units of the declared services, in their order.
    pub(crate) units: Vec<UnitId>,
    /// Those of them that are new, or whose rules have changed.
    pub(crate) changed: Vec<UnitId>,
    /// Services that are no longer declared; they stop and are forgotten (`Action::Forget`).
    pub(crate) removed: Vec<UnitId>,
}

impl Supervisor {
    /// Starts a service that is stopped or has failed, with a new budget. One that runs is left alone, one that
    /// waits goes on waiting for those before it.
    pub(crate) fn start_unit(&mut self, now: Millis, name: &str) -> Result<Vec<Action>, Refusal> {
        self.by_hand(now, name, |unit, actions| unit.start(now, actions))
    }

    /// Stops a service until it is started by hand. Those that require it stay up, and don't start while it is
    /// down.
    pub(crate) fn stop_unit(&mut self, now: Millis, name: &str) -> Result<Vec<Action>, Refusal> {
        self.by_hand(now, name, |unit, actions| {
            unit.stop(now, unit.rules.stop_timeout, Then::Rest { by_hand: true }, actions);
        })
    }

    /// Stops a service and starts it again, with a new budget; one without a process is started.
    pub(crate) fn restart_unit(&mut self, now: Millis, name: &str) -> Result<Vec<Action>, Refusal> {
        self.by_hand(now, name, |unit, actions| {
            unit.stop(now, unit.rules.stop_timeout, Then::Anew, actions);
        })
    }

    /// Adds and starts a transient unit.
    pub(crate) fn start_transient(
        &mut self,
        now: Millis,
        name: &str,
        stop_signal: i32,
        stop_timeout: Millis,
    ) -> Result<(UnitId, Vec<Action>), Refusal> {
        if self.down.is_some() {
            return Err(Refusal::GoingDown);
        }
        if self.find(name).is_some() {
            return Err(Refusal::Exists(name.to_owned()));
        }
        let rules = Rules {
            ready: Ready::Started,
            restart: Restart::Never,
            stop_signal,
            stop_timeout,
            ..Rules::default()
        };
        let id = self.add(now, name, Kind::Transient, rules, State::Waiting);
        let mut actions = Vec::new();
        self.with(id, |unit| {
            unit.enter(now, State::Launching { stop: None }, &mut actions);
        });
        actions.push(Action::Spawn(id));
        Ok((id, actions))
    }

    /// Stops a transient unit: its signal now, and its cgroup is killed after `grace`; 0 kills at once. One
    /// that has ended stays as it is.
    pub(crate) fn stop_transient(
        &mut self,
        now: Millis,
        name: &str,
        grace: Millis,
    ) -> Result<Vec<Action>, Refusal> {
        let unit = self.transient(name)?;
        let mut actions = Vec::new();
        unit.stop(now, grace, Then::Rest { by_hand: false }, &mut actions);
        Ok(actions)
    }

    /// Forgets a transient unit that has exited.
    pub(crate) fn acknowledge(&mut self, name: &str) -> Result<Vec<Action>, Refusal> {
        let unit = self.transient(name)?;
        if !unit.is_over() {
            return Err(Refusal::NotExited(name.to_owned()));
        }
        unit.state = State::Gone;
        let mut actions = Vec::new();
        self.forget_those_gone(&mut actions);
        Ok(actions)
    }

    /// Takes a new set of services, in start order. New ones start; those that are gone stop and are forgotten;
    /// changed ones keep their process, and follow their new rules from the next start on, as far as those are
    /// about a start.
    pub(crate) fn reload(
        &mut self,
        now: Millis,
        services: Vec<Declared>,
    ) -> Result<(Reloaded, Vec<Action>), Refusal> {
        if self.down.is_some() {
            return Err(Refusal::GoingDown);
        }
        let mut actions = Vec::new();
        let mut old = std::mem::take(&mut self.units);
        let (mut units, mut changed) = (Vec::new(), Vec::new());
        for Declared { name, rules, broken } in services {
            let known = old.iter().position(|u| u.kind == Kind::Service && u.name == name);
            let id = match known.map(|at| old.remove(at)) {
                Some(mut unit) => {
                    if unit.rules != rules {
                        changed.push(unit.id);
                        unit.rules = rules;
                    }
                    // It was on its way out, and is declared again.
                    if unit.is_leaving() {
                        unit.start(now, &mut actions);
                    }
                    let id = unit.id;
                    self.units.push(unit);
                    id
                }
                None => {
                    let state = broken.map_or(State::Waiting, |cause| State::Broken { cause });
                    let id = self.add(now, &name, Kind::Service, rules, state);
                    changed.push(id);
                    id
                }
            };
            units.push(id);
        }
        let mut removed = Vec::new();
        for unit in old.iter_mut().filter(|unit| unit.kind == Kind::Service) {
            removed.push(unit.id);
            unit.stop(now, unit.rules.stop_timeout, Then::Gone, &mut actions);
        }
        self.units.append(&mut old);
        self.order = order::Order::of(&self.units);
        actions.push(Action::Changed);
        self.settle(now, &mut actions);
        Ok((Reloaded { units, changed, removed }, actions))
    }

    fn by_hand(
        &mut self,
        now: Millis,
        name: &str,
        what: impl FnOnce(&mut Unit, &mut Vec<Action>),
    ) -> Result<Vec<Action>, Refusal> {
        if self.down.is_some() {
            return Err(Refusal::GoingDown);
        }
        let at = self.service(name)?;
        let unit = &mut self.units[at];
        if let State::Broken { cause } = &unit.state {
            return Err(Refusal::Broken(name.to_owned(), cause.clone()));
        }
        let mut actions = Vec::new();
        what(unit, &mut actions);
        self.settle(now, &mut actions);
        Ok(actions)
    }

    fn service(&self, name: &str) -> Result<usize, Refusal> {
        let found =
            self.units.iter().position(|unit| unit.kind == Kind::Service && unit.name == name);
        found.ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }

    fn transient(&mut self, name: &str) -> Result<&mut Unit, Refusal> {
        self.units
            .iter_mut()
            .find(|unit| unit.kind == Kind::Transient && unit.name == name)
            .ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }
}
