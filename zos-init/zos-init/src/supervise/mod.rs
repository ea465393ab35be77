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
mod status;

pub(crate) use status::{Kind, Status};

#[cfg(test)]
mod tests;

/// Milliseconds of `CLOCK_BOOTTIME`.
pub(crate) type Millis = u64;

/// Number of a unit; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UnitId(pub u32);

/// First delay before a unit is started again; it doubles up to [`LONGEST_DELAY`].
const FIRST_DELAY: Millis = 200;
/// Longest delay before a unit is started again.
const LONGEST_DELAY: Millis = 30_000;
/// A unit that ran so long gets the first delay again.
const STEADY: Millis = 60_000;
/// After its cgroup was killed, a process has so long to go; then it hangs in the kernel.
const KILLED: Millis = 5_000;

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

/// Where a unit is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// For others.
    Waiting,
    /// `Action::Spawn` was given; its answer comes at once.
    Launching,
    /// Runs, and has until `until` to say that it is ready.
    Starting { pid: i32, until: Millis },
    /// Ready.
    Running { pid: i32 },
    /// Told to stop, or killed; at `until` more is done about it.
    Stopping { pid: i32, until: Millis, killed: bool, again: bool },
    /// Ended; starts again at `until`.
    Backoff { until: Millis },
    /// Ended (or was stopped before it began), for good.
    Exited,
    /// Given up.
    Failed { cause: String },
}

#[derive(Debug)]
struct Unit {
    id: UnitId,
    name: String,
    kind: Kind,
    rules: Rules,
    state: State,
    since: Millis,
    restarts: u64,
    /// Quick ends in a row: what the next delay goes by.
    streak: u32,
    last: Option<Ended>,
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
        for at in 0..self.units.len() {
            if self.units[at].state == State::Waiting && self.waits_for(&self.units[at]).is_none() {
                self.units[at].enter(now, State::Launching);
                actions.extend([Action::Spawn(self.units[at].id), Action::Changed]);
            }
        }
    }

    /// The first unit that this one waits for, and whether it needs it or only comes after it.
    fn waits_for(&self, unit: &Unit) -> Option<(&Unit, bool)> {
        let named = |name: &String| self.units.iter().find(|other| other.name == *name);
        let needed = unit.rules.requires.iter().filter_map(named);
        let before = unit.rules.after.iter().filter_map(named);
        needed
            .filter(|other| !matches!(other.state, State::Running { .. }))
            .map(|other| (other, true))
            .chain(before.filter(|other| !other.was_tried()).map(|other| (other, false)))
            .next()
    }
}

impl Unit {
    fn enter(&mut self, now: Millis, state: State) {
        self.state = state;
        self.since = now;
    }

    /// It is ready, or was tried and isn't: those that only come after it need not wait.
    fn was_tried(&self) -> bool {
        match self.state {
            State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => true,
            // A second try holds nobody back.
            State::Launching | State::Starting { .. } | State::Waiting => self.restarts > 0,
            State::Stopping { .. } => true,
        }
    }

    /// Its process is gone and won't come back.
    fn is_over(&self) -> bool {
        matches!(self.state, State::Exited | State::Failed { .. })
    }

    fn launched(
        &mut self,
        now: Millis,
        pid: Result<i32, String>,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        if self.state != State::Launching {
            return;
        }
        match (pid, self.rules.ready) {
            (Ok(pid), Ready::Started) => self.enter(now, State::Running { pid }),
            (Ok(pid), Ready::Told) => {
                let until = now + self.rules.ready_timeout;
                self.enter(now, State::Starting { pid, until });
            }
            (Err(why), _) => {
                let exit = zos_host::process::Exit::Code(127);
                self.over(now, Ended { exit, oom: false, unreached: Some(why) }, jitter, actions);
            }
        }
        actions.push(Action::Changed);
    }

    fn ready(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let State::Starting { pid, .. } = self.state {
            let took = now.saturating_sub(self.since);
            self.enter(now, State::Running { pid });
            let text = format!("{} is ready after {took} ms", self.name);
            actions.extend([Action::Note(Level::Info, text), Action::Changed]);
        }
    }

    fn ended(&mut self, now: Millis, how: Ended, jitter: u16, actions: &mut Vec<Action>) {
        match self.state {
            State::Starting { .. } | State::Running { .. } => self.over(now, how, jitter, actions),
            State::Stopping { again: true, .. } => self.over(now, how, jitter, actions),
            State::Stopping { again: false, .. } => {
                let level = if how.failed() { Level::Notice } else { Level::Info };
                actions.push(Action::Note(level, format!("{} stopped: {how}", self.name)));
                self.last = Some(how);
                self.enter(now, State::Exited);
                actions.push(Action::Tidy(self.id));
            }
            _ => return,
        }
        actions.push(Action::Changed);
    }

    /// Its process has ended without being told to.
    fn over(&mut self, now: Millis, how: Ended, jitter: u16, actions: &mut Vec<Action>) {
        let ran = now.saturating_sub(self.since);
        let again = match self.rules.restart {
            Restart::Always => true,
            Restart::OnFailure => how.failed(),
            Restart::Never => false,
        };
        let name = &self.name;
        if again {
            self.streak = if ran >= STEADY { 0 } else { self.streak.saturating_add(1) };
            let delay = delay(self.streak, jitter);
            let text = format!("{name} ended: {how}; starting it again in {delay} ms");
            actions.push(Action::Note(Level::Warning, text));
            self.enter(now, State::Backoff { until: now + delay });
        } else {
            let level = if how.failed() { Level::Warning } else { Level::Info };
            actions.push(Action::Note(level, format!("{name} ended: {how}")));
            self.enter(now, State::Exited);
        }
        self.last = Some(how);
        actions.push(Action::Tidy(self.id));
    }

    /// Asks it to stop; `again`: it is to be started again afterwards.
    fn stop(&mut self, now: Millis, grace: Millis, again: bool, actions: &mut Vec<Action>) {
        match self.state {
            State::Starting { pid, .. } | State::Running { pid } if grace > 0 => {
                actions.push(Action::Signal(self.id, self.rules.stop_signal));
                let until = now + grace;
                self.enter(now, State::Stopping { pid, until, killed: false, again });
            }
            State::Starting { pid, .. } | State::Running { pid } => {
                actions.push(Action::Kill(self.id));
                let until = now + KILLED;
                self.enter(now, State::Stopping { pid, until, killed: true, again });
            }
            // A second wish may only shorten the first.
            State::Stopping { pid, until, killed: false, .. }
                if grace == 0 || now + grace < until =>
            {
                if grace == 0 {
                    actions.push(Action::Kill(self.id));
                }
                let until = if grace == 0 { now + KILLED } else { now + grace };
                self.state = State::Stopping { pid, until, killed: grace == 0, again };
            }
            State::Stopping { pid, until, killed, .. } => {
                self.state = State::Stopping { pid, until, killed, again };
            }
            State::Waiting | State::Backoff { .. } | State::Launching => {
                self.enter(now, State::Exited);
            }
            State::Exited | State::Failed { .. } => {}
        }
    }

    fn on_time(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match self.state {
            State::Backoff { until } if until <= now => {
                self.restarts += 1;
                self.enter(now, State::Waiting);
                actions.push(Action::Changed);
            }
            State::Starting { until, .. } if until <= now => {
                let text = format!("{} didn't become ready in time; stopping it", self.name);
                actions.push(Action::Note(Level::Warning, text));
                self.stop(now, self.rules.stop_timeout, true, actions);
                actions.push(Action::Changed);
            }
            State::Stopping { pid, until, killed: false, again } if until <= now => {
                let text = format!("{} didn't stop in time; killing it", self.name);
                actions.extend([Action::Note(Level::Warning, text), Action::Kill(self.id)]);
                self.state = State::Stopping { pid, until: now + KILLED, killed: true, again };
            }
            State::Stopping { until, killed: true, .. } if until <= now => {
                let cause = "its process was killed and doesn't end".to_owned();
                actions.push(Action::Note(Level::Error, format!("{}: {cause}", self.name)));
                self.enter(now, State::Failed { cause });
                actions.push(Action::Changed);
            }
            _ => {}
        }
    }
}

/// Delay before the next start after `streak` quick ends (1 for the first): doubled each time, up to a
/// quarter longer by chance, so that units that fell together don't rise together.
fn delay(streak: u32, jitter: u16) -> Millis {
    let doubled = FIRST_DELAY << streak.saturating_sub(1).min(16);
    let delay = doubled.min(LONGEST_DELAY);
    delay + delay / 4 * u64::from(jitter.min(999)) / 1000
}
