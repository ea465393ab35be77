//! The supervisor's core: `handle(now, event) -> actions`. No clock, no system calls, no files.
//!
//! ```text
//!            its `after` are settled,            pid              ready
//!            its `requires` are ready                  (ready = none: at once)
//!   Waiting ─────────────────────────▶ Launching ───▶ Starting ─────────────▶ Running
//!    ▲ ▲ ▲                                 │ failed      │ ended               │ │ ended
//!    │ │ │ the delay is over               ▼             ▼                     │ ▼
//!    │ │ Backoff ◀───────────────────── unasked: restart? budget? ◀────────────┼─┘
//!    │ │                                   │    │      │    ▲                  │
//!    │ │ retry, by hand                    │    │      │    │ for a fault      │ silent, sick, late;
//!    │ Failed ◀───── budget spent ─────────┘    │      │    │                  ▼ by hand; the way down
//!    │                                          │      │  Stopping ◀───────────┘
//!    │ by hand      a oneshot ended with 0      ▼      │    │ │ time over: cgroup killed
//!    ├─────────────────────────────────────── Done     │    │ └ time over again ─▶ Hung ── ended ─▶ as Stopping
//!    ├─────────────────────────────────────── Exited ◀─┘    │ by hand, the way down
//!    │                                           ▲ ─────────┘
//!    └── anew (restart) ◀── Stopping             Broken: its program is corrupt, it never runs
//! ```
//! A fact stands in the one state that owns it: only a unit with a process has a pid, only `Backoff` has a time
//! to start at. Time and jitter come in with the events, so that a test can replay any hour in a microsecond.
//!
//! Services stand in start order: what one of them waits for stands before it.

use std::fmt;

use zos_host::kmsg::Level;
use zos_host::power::End;

use crate::unit::Rules;

mod budget;
mod care;
mod down;
mod hand;
mod life;
mod order;
mod state;
mod status;
mod stopping;
mod timing;
mod watch;
mod words;

pub(crate) use care::Services;
pub(crate) use hand::Declared;
use life::Unit;
use state::State;
pub(crate) use status::{ExitStatus, Happened, Kind, Status};

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
    /// Why its program was never reached, or why it was stopped.
    pub(crate) why: Option<String>,
}

impl Ended {
    fn failed(&self) -> bool {
        self.oom || self.why.is_some() || self.exit != zos_host::process::Exit::Code(0)
    }

    /// It was stopped for this.
    fn because(self, cause: &str) -> Self {
        let why = match self.why {
            Some(_) => format!("{cause}; {self}"),
            None => format!("{cause}; then {self}"),
        };
        Self { why: Some(why), ..self }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
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
    /// It wrote to its pipe, or its socket answers: it is ready, and it lives.
    Told {
        /// Which.
        unit: UnitId,
    },
    /// The process of `Action::Check` has ended, or never began.
    Checked {
        /// Which.
        unit: UnitId,
        /// Why it failed, if so.
        failed: Option<String>,
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
    /// Answer to `Action::Drain`.
    Drained {
        /// What went wrong, if something did.
        problem: Option<String>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start its process and answer with `Event::Launched`.
    Spawn(UnitId),
    /// See whether its socket takes a connection; if so, answer with `Event::Told`.
    Look(UnitId),
    /// Run its check and answer with `Event::Checked`, but not after a `Tidy`.
    Check(UnitId),
    /// Kill its check.
    EndCheck(UnitId),
    /// Send a signal to its process.
    Signal(UnitId, i32),
    /// Kill everything in its cgroup.
    Kill(UnitId),
    /// Its process has ended: nothing else of it may run on, its check included.
    Tidy(UnitId),
    /// It is forgotten: nothing of it may remain.
    Forget(UnitId),
    /// A line for the log.
    Note(Level, String),
    /// Somebody who watches the units should look.
    Changed,
    /// A unit came to another state, or its process ended.
    Happened(Happened),
    /// Ask a unit to stop all transient units orderly, and answer with `Event::Drained`.
    Drain {
        /// The unit that can.
        unit: UnitId,
        /// It has so long.
        deadline_ms: Millis,
    },
    /// Everything is down, or doesn't come down.
    Finish {
        /// And then?
        end: End,
        /// Units that didn't come down in time, by name.
        hung: Vec<String>,
    },
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
    /// It must not run.
    #[error("the unit {0} must not run: {1}")]
    Broken(String, String),
    /// The node goes down.
    #[error("the node is going down")]
    GoingDown,
}

/// All units and where they are.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    /// Services in start order, then services that are being removed, then transient units.
    units: Vec<Unit>,
    order: order::Order,
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
        let state = broken.map_or(State::Waiting, |cause| State::Broken { cause });
        let id = self.add(now, name, Kind::Service, rules, state);
        self.order = order::Order::of(&self.units);
        id
    }

    /// Takes an event and says what is to be done.
    pub(crate) fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let act = &mut actions;
        match event {
            Event::Begin => self.begun = true,
            Event::Time => {}
            Event::Launched { unit, pid, jitter } => {
                self.with(unit, |unit| unit.launched(now, pid, jitter, act));
            }
            Event::Told { unit } => self.with(unit, |unit| unit.told(now, act)),
            Event::Checked { unit, failed } => {
                self.with(unit, |unit| unit.checked(now, failed, act));
            }
            Event::Ended { unit, how, jitter } => {
                self.with(unit, |unit| unit.ended(now, how, jitter, act));
            }
            Event::Down { end, why } => self.go_down(now, end, &why, act),
            Event::Drained { problem } => self.drained(now, problem, act),
        }
        self.settle(now, &mut actions);
        actions
    }

    /// What follows from where things are now: what is due, and who can start.
    fn settle(&mut self, now: Millis, actions: &mut Vec<Action>) {
        for unit in &mut self.units {
            unit.on_time(now, actions);
        }
        self.forget_those_gone(actions);
        if self.down.is_some() {
            self.further_down(now, actions);
        } else if self.begun {
            self.start_those_that_can(now, actions);
        }
    }

    /// When `Event::Time` is due.
    #[must_use]
    pub(crate) fn next_time(&self) -> Option<Millis> {
        let units = self.units.iter().filter_map(Unit::due);
        units.chain(self.down.as_ref().and_then(down::Down::due)).min()
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
            unit.is_over() || matches!(unit.state, State::Running { .. } | State::Hung { .. })
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
            crashes: budget::Crashes::default(),
            last: None,
        });
        id
    }

    fn with(&mut self, id: UnitId, what: impl FnOnce(&mut Unit)) {
        if let Some(unit) = self.units.iter_mut().find(|unit| unit.id == id) {
            what(unit);
        }
    }

    fn forget_those_gone(&mut self, actions: &mut Vec<Action>) {
        let count = self.units.len();
        self.units.retain(|unit| {
            let gone = unit.state == State::Gone;
            if gone {
                actions.push(Action::Forget(unit.id));
            }
            !gone
        });
        if self.units.len() != count {
            self.order = order::Order::of(&self.units);
            actions.push(Action::Changed);
        }
    }
}
