//! The supervisor's core: `handle(now, event) -> actions`. No clock, no system calls, no files.
//!
//! ```text
//!            its `after` are settled,          pid            ready
//!            its `requires` are ready
//!   Waiting ───────────────────────▶ Launching ───▶ Starting ───────▶ Running ◀─┐
//!      ▲                                 │ failed       │ ended          │ ended │ (ready = none:
//!      │ the delay is over               ▼              ▼                ▼       │  at once)
//!   Backoff ◀──────────────────────── restart? ◀────────┴────────────────┴───────┘
//!                                        │ no
//!   Stopping ── ended ─▶ Exited ◀────────┘         Failed: never to run (its program is corrupt,
//!      │ time over: cgroup killed                          or it can't even be killed)
//!      └ time over again ─▶ Failed
//! ```
//! A fact stands in the one state that owns it: only a unit with a process has a pid, only `Backoff` has a time
//! to start at. Time and jitter come in with the events, so that a test can replay any hour in a microsecond.
//!
//! Going down: transient units first (VMs), then services, each when nobody is left that starts after it.

use std::fmt;

use zos_host::kmsg::Level;
use zos_host::power::End;

use crate::unit::{Ready, Restart, Rules};

mod down;
mod life;
mod status;

use life::{State, Unit};
pub(crate) use status::{ExitStatus, Kind, Status};

#[cfg(test)]
mod tests;

/// Milliseconds of `CLOCK_BOOTTIME`.
pub(crate) type Millis = u64;

/// Number of a unit; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UnitId(pub u32);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// By a code or a signal.
    pub(crate) exit: zos_host::process::Exit,
    /// Its cgroup ran out of memory meanwhile.
    pub(crate) oom: bool,
    /// Why its program was never reached.
    pub(crate) unreached: Option<String>,
}

impl Ended {
    fn failed(&self) -> bool {
        self.oom || self.exit != zos_host::process::Exit::Code(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unreached {
            Some(why) => f.write_str(why),
            None if self.oom => write!(f, "{}, out of memory", self.exit),
            None => self.exit.fmt(f),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The boot is over: services start.
    Begin,
    /// Time passed; give it whenever [`Supervisor::next_time`] says so.
    Time,
    /// Answer to `Action::Spawn`.
    Launched {
        /// Which.
        unit: UnitId,
        /// Its process, or why there is none.
        pid: Result<i32, String>,
        /// 0 to 999, random: spreads restarts.
        jitter: u16,
    },
    /// It said that it is ready.
    Ready {
        /// Which.
        unit: UnitId,
    },
    /// Its process has ended and was reaped.
    Ended {
        /// Which.
        unit: UnitId,
        /// How.
        how: Ended,
        /// 0 to 999, random: spreads restarts.
        jitter: u16,
    },
    /// The machine shall go down.
    Down {
        /// And then?
        end: End,
        /// Whose wish, for the log.
        why: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start its process and answer with `Event::Launched`.
    Spawn(UnitId),
    /// Send a signal to its process.
    Signal(UnitId, i32),
    /// Kill everything in its cgroup.
    Kill(UnitId),
    /// Its process has ended for good or until later: tidy what belonged to it.
    Tidy(UnitId),
    /// It is forgotten: nothing of it may remain.
    Forget(UnitId),
    /// A line for the log.
    Note(Level, String),
    /// Somebody who watches the units should look.
    Changed,
    /// Everything is down.
    Finish(End),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such unit.
    #[error("there is no unit {0}")]
    Unknown(String),
    /// A unit of this name exists.
    #[error("the unit {0} exists already")]
    Exists(String),
    /// Only an exited unit can be acknowledged.
    #[error("the unit {0} has not exited")]
    NotExited(String),
    /// The node goes down.
    #[error("the node is going down")]
    GoingDown,
}

/// All units and where they are.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    units: Vec<Unit>,
    next_id: u32,
    begun: bool,
    down: Option<down::Down>,
}

impl Supervisor {
    /// Adds a service, in start order; `broken`: why it must never run.
    pub(crate) fn add_service(
        &mut self,
        now: Millis,
        name: &str,
        rules: Rules,
        broken: Option<String>,
    ) -> UnitId {
        let state = broken.map_or(State::Waiting, |cause| State::Failed { cause });
        self.add(now, name, Kind::Service, rules, state)
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
            after: Vec::new(),
            requires: Vec::new(),
            ready: Ready::Started,
            ready_timeout: 0,
            restart: Restart::Never,
            stop_signal,
            stop_timeout,
        };
        let id = self.add(now, name, Kind::Transient, rules, State::Launching);
        Ok((id, vec![Action::Spawn(id), Action::Changed]))
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
        unit.stop(now, grace, false, &mut actions);
        actions.push(Action::Changed);
        Ok(actions)
    }

    /// Forgets a transient unit that has exited.
    pub(crate) fn acknowledge(&mut self, name: &str) -> Result<Vec<Action>, Refusal> {
        let unit = self.transient(name)?;
        if !unit.is_over() {
            return Err(Refusal::NotExited(name.to_owned()));
        }
        let id = unit.id;
        self.units.retain(|unit| unit.id != id);
        Ok(vec![Action::Forget(id), Action::Changed])
    }

    /// Takes an event and says what is to be done.
    pub(crate) fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begin => self.begun = true,
            Event::Time => {}
            Event::Launched { unit, pid, jitter } => {
                if let Some(unit) = self.by_id(unit) {
                    unit.launched(now, pid, jitter, &mut actions);
                }
            }
            Event::Ready { unit } => {
                if let Some(unit) = self.by_id(unit) {
                    unit.ready(now, &mut actions);
                }
            }
            Event::Ended { unit, how, jitter } => {
                if let Some(unit) = self.by_id(unit) {
                    unit.ended(now, how, jitter, &mut actions);
                }
            }
            Event::Down { end, why } => self.go_down(now, end, &why, &mut actions),
        }
        for unit in &mut self.units {
            unit.on_time(now, &mut actions);
        }
        if self.down.is_some() {
            self.further_down(now, &mut actions);
        } else if self.begun {
            self.start_those_that_can(now, &mut actions);
        }
        actions
    }

    /// When `Event::Time` is due.
    #[must_use]
    pub(crate) fn next_time(&self) -> Option<Millis> {
        let due = |unit: &Unit| match unit.state {
            State::Starting { until, .. }
            | State::Stopping { until, .. }
            | State::Backoff { until } => Some(until),
            _ => None,
        };
        self.units.iter().filter_map(due).min()
    }

    /// The unit with this name.
    #[must_use]
    pub(crate) fn find(&self, name: &str) -> Option<UnitId> {
        self.units.iter().find(|unit| unit.name == name).map(|unit| unit.id)
    }

    /// All services are ready, or will never be.
    #[must_use]
    pub(crate) fn settled(&self) -> bool {
        let settled = |unit: &Unit| {
            matches!(unit.state, State::Running { .. } | State::Exited | State::Failed { .. })
        };
        self.units.iter().filter(|unit| unit.kind == Kind::Service).all(settled)
    }

    fn add(&mut self, now: Millis, name: &str, kind: Kind, rules: Rules, state: State) -> UnitId {
        let id = UnitId(self.next_id);
        self.next_id += 1;
        self.units.push(Unit {
            id,
            name: name.to_owned(),
            kind,
            rules,
            state,
            since: now,
            restarts: 0,
            streak: 0,
            last: None,
        });
        id
    }

    fn by_id(&mut self, id: UnitId) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.id == id)
    }

    fn transient(&mut self, name: &str) -> Result<&mut Unit, Refusal> {
        self.units
            .iter_mut()
            .find(|unit| unit.kind == Kind::Transient && unit.name == name)
            .ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }

    fn start_those_that_can(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let ways = self.ways();
        for at in 0..self.units.len() {
            let unit = &self.units[at];
            if unit.state == State::Waiting && self.waits_for(unit, &ways).is_none() {
                self.units[at].enter(now, State::Launching);
                actions.extend([Action::Spawn(self.units[at].id), Action::Changed]);
            }
        }
    }

    /// The first unit that this one waits for, and whether it needs it or only comes after it.
    fn waits_for(&self, unit: &Unit, ways: &[bool]) -> Option<(&Unit, bool)> {
        let needed = unit.rules.requires.iter().filter_map(|name| self.place(name));
        let mut needed = needed.filter(|at| !self.units[*at].is_ready());
        let before = unit.rules.after.iter().filter_map(|name| self.place(name));
        let mut before = before.filter(|at| !ways[*at]);
        match needed.next() {
            Some(at) => Some((&self.units[at], true)),
            None => before.next().map(|at| (&self.units[at], false)),
        }
    }

    /// Of each unit, whether those that only come after it need not wait (any longer): it is ready, or was tried
    /// and isn't, or waits for one that it needs and that was tried. So one service that can't run holds
    /// back only those that need it. Services stand in start order: what one needs is decided before it.
    fn ways(&self) -> Vec<bool> {
        let mut ways: Vec<bool> = Vec::with_capacity(self.units.len());
        for unit in &self.units {
            let held_up = |name: &String| {
                self.place(name).is_some_and(|at| {
                    !self.units[at].is_ready() && ways.get(at).copied().unwrap_or(false)
                })
            };
            let way = match unit.state {
                State::Running { .. } | State::Stopping { .. } => true,
                State::Backoff { .. } | State::Exited | State::Failed { .. } => true,
                // A second try holds nobody back.
                State::Launching | State::Starting { .. } => unit.restarts > 0,
                State::Waiting => unit.restarts > 0 || unit.rules.requires.iter().any(held_up),
            };
            ways.push(way);
        }
        ways
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.units.iter().position(|unit| unit.name == name)
    }
}
