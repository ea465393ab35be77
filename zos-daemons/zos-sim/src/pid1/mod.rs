//! A simulated PID 1: its units and what became of them. No clock, no thread, no process here.
//!
//! ```text
//!  service   Running ── told to stop ─▶ Stopping ── ended ─▶ Exited
//!               ▲  │                        └─ told to restart ──┐
//!               │  └─ ended by itself ─▶ Backoff ── time passed ─┤
//!               └────────────────────────────────────────────────┘
//!  VM        Running ── ended ─▶ Exited ── acknowledged ─▶ (gone)
//!
//!  handle(now, input) ─▶ actions
//! ```

mod log;
mod server;

use std::collections::{BTreeMap, VecDeque};

use zos_api::local::CallError;
use zos_api::local::init::{Event, Exit, Unit, UnitKind, UnitState};

pub(crate) use self::log::{Log, route_logs, start_log};
pub(crate) use self::server::{Order, Pid1};

/// The services of a simulated node, in the order of their start. It has no screen.
pub(crate) const SERVICES: [&str; 7] =
    ["storaged", "identityd", "netd", "capacityd", "vmd", "provisiond", "apid"];

/// The pause before a service that ended by itself is started again, in milliseconds; doubled each time.
const PAUSE: u64 = 200;
const LONGEST_PAUSE: u64 = 30_000;
/// A service that ran so long counts as healthy, in milliseconds.
const STABLE: u64 = 10_000;
/// Events that are remembered.
const EVENTS: usize = 256;
/// The first process number; they are made up.
const FIRST_PID: u32 = 100;

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A service is to run.
    Start(String),
    /// A service is to stop, and stay so.
    Stop(String),
    /// A service is to stop and run again.
    Restart(String),
    /// A signal goes to all of a unit.
    Kill(String, i32),
    /// A VM's process is there.
    Vm(String),
    /// A unit's process ended.
    Ended(String, Exit, String),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Start a service's process.
    Launch(String),
    /// Tell a service's process to end, which ends in [`Input::Ended`].
    Stop(String),
    /// End a service's process at once.
    Kill(String),
    /// Send a signal to a VM's process.
    Signal(String, i32),
}

#[derive(Clone, Debug)]
struct Service {
    unit: Unit,
    /// It is to be started when it has ended.
    again: bool,
    /// The signal that it was killed with.
    killed: Option<i32>,
    /// Ends by itself in a row.
    failures: u32,
    /// When it is started again.
    due: u64,
}

/// The units.
#[derive(Debug, Default)]
pub(crate) struct Core {
    services: Vec<Service>,
    vms: BTreeMap<String, Unit>,
    events: VecDeque<Event>,
    sequence: u64,
    pids: u32,
}

impl Core {
    /// All services, of which none runs yet.
    pub(crate) fn new(now: u64) -> Self {
        let mut core = Self::default();
        let service = |name: &&str| Service {
            unit: unit(name, UnitKind::Service, UnitState::Exited, now),
            again: false,
            killed: None,
            failures: 0,
            due: 0,
        };
        core.services = SERVICES.iter().map(service).collect();
        core
    }

    /// Every unit: services in their order, then VMs.
    pub(crate) fn units(&self) -> Vec<Unit> {
        let services = self.services.iter().map(|service| &service.unit);
        services.chain(self.vms.values()).cloned().collect()
    }

    /// One unit.
    pub(crate) fn unit(&self, name: &str) -> Result<&Unit, CallError> {
        let services = self.services.iter().map(|service| &service.unit);
        let mut all = services.chain(self.vms.values());
        all.find(|unit| unit.name == name).ok_or_else(|| none(name))
    }

    /// What happened after a sequence number, and how much of it is forgotten.
    pub(crate) fn events(&self, after: u64) -> (Vec<Event>, u64) {
        let known: Vec<Event> =
            self.events.iter().filter(|event| event.sequence > after).cloned().collect();
        let first = known.first().map_or(self.sequence + 1, |event| event.sequence);
        (known, first.saturating_sub(after + 1))
    }

    /// When time is to be told of; none: nothing waits.
    pub(crate) fn alarm(&self) -> Option<u64> {
        let waiting = self.services.iter().filter(|s| s.unit.state == UnitState::Backoff);
        waiting.map(|service| service.due).min()
    }

    /// Forgets a VM that has ended.
    pub(crate) fn acknowledge(&mut self, name: &str) -> Result<(), CallError> {
        match self.vms.get(name).map(|unit| unit.state) {
            Some(UnitState::Exited) => drop(self.vms.remove(name)),
            Some(_) => return Err(conflict(format!("{name} still runs"))),
            None => return Err(none(name)),
        }
        Ok(())
    }

    /// Takes in what happened; gives what is to be done.
    pub(crate) fn handle(&mut self, now: u64, input: Input) -> Result<Vec<Action>, CallError> {
        let mut actions = Vec::new();
        match input {
            Input::Start(name) => self.start(now, &name, &mut actions)?,
            Input::Stop(name) => self.stop(now, &name, false, &mut actions)?,
            Input::Restart(name) => self.stop(now, &name, true, &mut actions)?,
            Input::Kill(name, signal) => self.kill(&name, signal, &mut actions)?,
            Input::Vm(name) => self.vm(now, &name)?,
            Input::Ended(name, exit, detail) => self.ended(now, &name, exit, detail),
            Input::Tick => {
                let due = |s: &&Service| s.unit.state == UnitState::Backoff && s.due <= now;
                let due: Vec<String> =
                    self.services.iter().filter(due).map(|s| s.unit.name.clone()).collect();
                for name in due {
                    self.launch(now, &name, &mut actions);
                }
            }
        }
        self.again(now, &mut actions);
        Ok(actions)
    }

    fn service(&mut self, name: &str) -> Result<&mut Service, CallError> {
        let is_vm = self.vms.contains_key(name);
        let found = self.services.iter_mut().find(|service| service.unit.name == name);
        found.ok_or_else(|| match is_vm {
            true => conflict(format!("{name} is no service: its deployment says what it does")),
            false => none(name),
        })
    }

    fn launch(&mut self, now: u64, name: &str, actions: &mut Vec<Action>) {
        let pid = self.pid();
        let Ok(service) = self.service(name) else { return };
        service.again = false;
        let first = service.unit.exit.is_none() && service.unit.pid.is_none() && service.due == 0;
        service.unit.restarts += u64::from(!first);
        service.due = now.max(1);
        service.unit.pid = Some(pid);
        self.enter(now, name, UnitState::Running, None, String::new());
        actions.push(Action::Launch(name.to_owned()));
    }

    fn start(&mut self, now: u64, name: &str, actions: &mut Vec<Action>) -> Result<(), CallError> {
        let service = self.service(name)?;
        match service.unit.state {
            UnitState::Running => {}
            UnitState::Stopping => service.again = true,
            _ => {
                service.failures = 0;
                self.launch(now, name, actions);
            }
        }
        Ok(())
    }

    fn stop(
        &mut self,
        now: u64,
        name: &str,
        again: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), CallError> {
        let service = self.service(name)?;
        service.again = again;
        service.failures = 0;
        match service.unit.state {
            UnitState::Running => {
                let detail = if again { "told to restart" } else { "told to stop" };
                self.enter(now, name, UnitState::Stopping, None, detail.into());
                actions.push(Action::Stop(name.to_owned()));
            }
            UnitState::Stopping => {}
            // It waits to be started again, and is so at once, or not at all.
            UnitState::Backoff if !again => {
                self.enter(now, name, UnitState::Exited, None, "told to stop".into());
            }
            _ if again => self.launch(now, name, actions),
            _ => {}
        }
        Ok(())
    }

    fn kill(
        &mut self,
        name: &str,
        signal: i32,
        actions: &mut Vec<Action>,
    ) -> Result<(), CallError> {
        if let Some(vm) = self.vms.get(name) {
            if vm.state != UnitState::Exited {
                actions.push(Action::Signal(name.to_owned(), signal));
            }
            return Ok(());
        }
        let service = self.service(name)?;
        if matches!(service.unit.state, UnitState::Running | UnitState::Stopping) {
            service.killed = Some(signal);
            actions.push(Action::Kill(name.to_owned()));
        }
        Ok(())
    }

    fn vm(&mut self, now: u64, name: &str) -> Result<(), CallError> {
        if self.vms.contains_key(name) {
            return Err(conflict(format!("{name} is there already")));
        }
        let pid = self.pid();
        let mut vm = unit(name, UnitKind::Transient, UnitState::Running, now);
        vm.pid = Some(pid);
        self.vms.insert(name.to_owned(), vm);
        self.enter(now, name, UnitState::Running, None, String::new());
        Ok(())
    }

    fn ended(&mut self, now: u64, name: &str, exit: Exit, detail: String) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.pid = None;
            return self.enter(now, name, UnitState::Exited, Some(exit), detail);
        }
        let Ok(service) = self.service(name) else { return };
        service.unit.pid = None;
        let killed = service.killed.take();
        let exit =
            killed.map_or(exit, |signal| Exit { code: None, signal: Some(signal), oom: false });
        match service.unit.state {
            UnitState::Stopping => {
                self.enter(now, name, UnitState::Exited, Some(exit), "told to stop".into());
            }
            _ => {
                // Who was killed has not failed.
                if killed.is_some() || now.saturating_sub(service.unit.since_ms) >= STABLE {
                    service.failures = 0;
                }
                let pause = PAUSE.saturating_mul(1 << service.failures.min(20)).min(LONGEST_PAUSE);
                service.failures = service.failures.saturating_add(1);
                service.due = now + pause;
                self.enter(now, name, UnitState::Backoff, Some(exit), detail);
            }
        }
    }

    /// Services that were told to restart, and have ended.
    fn again(&mut self, now: u64, actions: &mut Vec<Action>) {
        let again = |s: &&Service| s.again && s.unit.state == UnitState::Exited;
        let names: Vec<String> =
            self.services.iter().filter(again).map(|s| s.unit.name.clone()).collect();
        for name in names {
            self.launch(now, &name, actions);
        }
    }

    fn enter(
        &mut self,
        now: u64,
        name: &str,
        state: UnitState,
        exit: Option<Exit>,
        detail: String,
    ) {
        let services = self.services.iter_mut().map(|service| &mut service.unit);
        let mut all = services.chain(self.vms.values_mut());
        let Some(unit) = all.find(|unit| unit.name == name) else { return };
        unit.state = state;
        unit.since_ms = now.max(1);
        unit.exit = exit.or(unit.exit);
        unit.detail.clone_from(&detail);
        self.sequence += 1;
        let (sequence, unit) = (self.sequence, name.to_owned());
        self.events.push_back(Event { sequence, time_ms: now, unit, state, exit, detail });
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    fn pid(&mut self) -> u32 {
        self.pids = self.pids.wrapping_add(1);
        FIRST_PID + self.pids
    }
}

fn unit(name: &str, kind: UnitKind, state: UnitState, since_ms: u64) -> Unit {
    let (name, detail) = (name.to_owned(), String::new());
    Unit { name, kind, state, pid: None, restarts: 0, since_ms, exit: None, detail }
}

fn none(name: &str) -> CallError {
    CallError::not_found(format!("there is no unit {name}"))
}

fn conflict(detail: String) -> CallError {
    CallError::Conflict { detail, next_version: None }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
