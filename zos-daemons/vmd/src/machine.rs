//! One VM as a state machine. It never asks the clock and does nothing itself: events in, actions
//! out. What it holds is what it is; doing is [`crate::effects`]'s.
//!
//! ```text
//!            ┌────────────── ended: policy, backoff ──────────────┐
//!            ▼                                                    │
//!  Unknown ▶ Waiting ──Start──▶ Starting ──seen running──▶ Running
//!     │         │ removed           │ removed                 │ removed, changed, drained
//!     │         │                   └──────────┬──────────────┘
//!     │         │                              ▼
//!     │         │                           Stopping ──ended──┐
//!     │         ▼                                             │
//!     │      Releasing ◀──────────────────────────────────────┤
//!     │         │ done: gone, or changed ─▶ Waiting           ▼
//!     └─▶ ended and not to run again ─────────────────────▶ Ended
//!
//!  ended again and again, never a healthy time between ─▶ Quarantined ── an hour, or a change ─▶ Waiting
//! ```
//! Unknown is a VM found in the notes of an earlier life: PID 1 tells what became of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zos_api::local::init::Exit;
use zos_daemon::Backoff;
use zos_types::Fault;
use zos_types::deployment::Vm;
use zos_types::status::State;

use crate::outcome::Outcome;

/// Milliseconds of `CLOCK_BOOTTIME`.
pub type Millis = u64;

/// How long a guest has to go down by itself.
pub const GRACE: Millis = 10_000;
/// A VM that ran this long counts as healthy: its next end is its first.
pub const STABLE: Millis = 60_000;
/// The longest pause between two starts.
pub const LONGEST_PAUSE: Millis = 300_000;
/// How long PID 1 may take to show a VM that it said to have started.
const APPEARS: Millis = 30_000;
/// How long a VM whose share lost its server may take to end by itself.
const CRIPPLED: Millis = 1_000;
/// Ends in a row that are nobody's trouble yet.
const PATIENCE: u32 = 3;
/// Ends in a row after which a VM is left alone: it would only eat the node.
pub const LOOPS: u32 = 5;
/// How long it is left alone.
pub const QUARANTINE: Millis = 3_600_000;

/// What is wanted of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// That it runs.
    Run,
    /// That nothing of it is left.
    Gone,
    /// That it stays down, since the node goes down.
    Down,
}

/// Where a VM stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Noted in an earlier life; not seen yet.
    Unknown,
    /// To be started.
    Waiting {
        /// When.
        at: Millis,
        /// What went wrong before, if that is worth showing.
        fault: Option<Fault>,
    },
    /// It ends again and again, and is left alone for a long time. What it holds it keeps.
    Quarantined {
        /// When it is started again if nobody changes it before.
        at: Millis,
        /// How it ended.
        cause: Fault,
    },
    /// PID 1 is asked to start it.
    Starting {
        /// Since when PID 1 says that it did; none: it has not answered.
        started: Option<Millis>,
    },
    /// Its process runs.
    Running,
    /// It was told to stop.
    Stopping {
        /// When it is told again, without grace.
        again: Millis,
    },
    /// Its process is gone, and what it held is given back.
    Releasing {
        /// When to try again; none: it is being tried.
        again: Option<Millis>,
    },
    /// It ended and stays so.
    Ended {
        /// How it ended.
        cause: String,
    },
    /// Nothing is left of it.
    Gone,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Waiting { fault: None, .. } => f.write_str("to be started"),
            Self::Waiting { fault: Some(fault), .. } => {
                write!(f, "to be started again in a while: {}", fault.detail)
            }
            Self::Quarantined { cause, .. } => write!(f, "quarantined: {}", cause.detail),
            Self::Starting { .. } => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Stopping { .. } => f.write_str("told to stop"),
            Self::Releasing { .. } => f.write_str("down, giving back what it held"),
            Self::Ended { cause } => write!(f, "stopped: {cause}"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

/// What PID 1 shows of a VM's unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// There is none.
    Absent,
    /// Its process runs.
    Alive,
    /// It ended.
    Ended {
        /// How; none if it could not even be started.
        exit: Option<Exit>,
        /// When: what tells one end from the next.
        at: Millis,
    },
}

/// What happens to a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is to be so.
    Ensure(Vm),
    /// It is to be gone.
    Remove,
    /// The node goes down.
    Drain,
    /// PID 1 shows it.
    Seen(Seen),
    /// A start came to its end, which may be that it failed.
    Started {
        /// Which start.
        attempt: u32,
        /// What went wrong.
        result: Result<(), Fault>,
    },
    /// The server of one of its shares is gone, and it runs.
    ServerGone,
    /// What it held was given back, or not.
    Released(Result<(), String>),
    /// Time has passed.
    Tick,
}

/// What is to be done for a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Gather what it needs and have it started; ends in [`Event::Started`].
    Start {
        /// Which start.
        attempt: u32,
    },
    /// Have it stopped.
    Stop {
        /// How long it may go down by itself.
        grace: Millis,
    },
    /// Its end was seen.
    Acknowledge,
    /// Give back volumes that it no longer has, and, if it is to be gone, all that it held; ends in
    /// [`Event::Released`].
    Release,
}

/// A VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// What it is to be.
    pub vm: Vm,
    /// What it was when it was started the last time, if that is something else.
    #[serde(default)]
    pub before: Option<Vm>,
    /// What is wanted of it.
    pub wish: Wish,
    /// How often it was started again.
    pub restarts: u32,
    /// Ends and failed starts in a row without a healthy time between them: they make the pauses longer.
    failures: u32,
    /// Ends of its own alone: a node that can't start it is not its fault.
    #[serde(default)]
    ends: u32,
    /// When it was started the last time.
    started: Millis,
    /// The last end that was acted upon.
    handled: Millis,
    /// Counts starts.
    attempt: u32,
    /// Since when the server of one of its shares is gone, while it ran.
    #[serde(default)]
    crippled: Option<Millis>,
    /// Since when it stands where it stands.
    pub since: Millis,
    /// Of an earlier life only why it is down is worth noting; the rest PID 1 tells.
    #[serde(rename = "down", with = "note")]
    phase: Phase,
}

mod note {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zos_types::Fault;

    use super::{Millis, Phase};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Down {
        Ended { cause: String },
        Quarantined { at: Millis, cause: Fault },
    }

    pub(super) fn serialize<S: Serializer>(phase: &Phase, s: S) -> Result<S::Ok, S::Error> {
        let down = match phase.clone() {
            Phase::Ended { cause } => Some(Down::Ended { cause }),
            Phase::Quarantined { at, cause } => Some(Down::Quarantined { at, cause }),
            _ => None,
        };
        down.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Phase, D::Error> {
        Ok(match Option::<Down>::deserialize(d)? {
            Some(Down::Ended { cause }) => Phase::Ended { cause },
            Some(Down::Quarantined { at, cause }) => Phase::Quarantined { at, cause },
            None => Phase::Unknown,
        })
    }
}

impl Machine {
    /// A VM that was never started.
    pub fn new(now: Millis, vm: Vm) -> Self {
        Self {
            vm,
            before: None,
            wish: Wish::Run,
            restarts: 0,
            failures: 0,
            ends: 0,
            started: 0,
            handled: 0,
            attempt: 0,
            crippled: None,
            since: now,
            phase: Phase::Waiting { at: now, fault: None },
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether no process of it is left, and none will come.
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. } | Phase::Releasing { .. } | Phase::Gone)
    }

    /// The fault that keeps it from running.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.phase {
            Phase::Waiting { fault, .. } => fault.as_ref(),
            Phase::Quarantined { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// Its state in the node's words. `date` turns a moment into the node's time.
    pub fn state(&self, date: impl Fn(Millis) -> jiff::Timestamp) -> State {
        match &self.phase {
            Phase::Unknown | Phase::Starting { .. } | Phase::Waiting { fault: None, .. } => {
                State::Preparing
            }
            Phase::Waiting { at, fault: Some(fault) } => {
                State::Degraded { fault: fault.detail.clone(), retry_at: date(*at) }
            }
            Phase::Quarantined { at, cause } => {
                State::Quarantined { cause: cause.detail.clone(), retry_at: date(*at) }
            }
            Phase::Running => State::Running,
            Phase::Stopping { .. } | Phase::Releasing { .. } | Phase::Gone => State::Stopping,
            Phase::Ended { cause } => State::Stopped { cause: cause.clone() },
        }
    }

    /// When it wants to be told that time has passed.
    pub fn alarm(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Waiting { at, .. } | Phase::Quarantined { at, .. } => Some(*at),
            Phase::Starting { started } => started.map(|at| at + APPEARS),
            Phase::Stopping { again } => Some(*again),
            Phase::Releasing { again } => *again,
            Phase::Running => self.crippled.map(|at| at + CRIPPLED),
            _ => None,
        }
    }

    /// Takes an event; gives what is to be done, in this order.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Ensure(vm) => self.ensure(now, vm),
            Event::Remove => self.wish = Wish::Gone,
            Event::Drain if self.wish == Wish::Run => self.wish = Wish::Down,
            Event::Drain | Event::Tick => {}
            Event::Seen(seen) => self.seen(now, seen, &mut actions),
            Event::Started { attempt, result } if attempt == self.attempt => {
                self.start_ended(now, result);
            }
            Event::Started { .. } => {}
            Event::ServerGone if self.phase == Phase::Running => {
                self.crippled.get_or_insert(now);
            }
            Event::ServerGone => {}
            Event::Released(result) => self.released(now, result),
        }
        self.go_on(now, &mut actions);
        actions
    }

    fn enter(&mut self, now: Millis, phase: Phase) {
        self.since = now;
        self.phase = phase;
    }

    fn ensure(&mut self, now: Millis, vm: Vm) {
        let same = Vm { restart: vm.restart, ..self.vm.clone() } == vm;
        let policy = self.vm.restart != vm.restart;
        let old = std::mem::replace(&mut self.vm, vm);
        if !same && self.started > 0 {
            // The oldest is what runs, however often it changes meanwhile.
            let running = self.before.take().unwrap_or(old);
            self.before = (running != self.vm).then_some(running);
        }
        if !same || policy {
            self.failures = 0;
            self.ends = 0;
            match &self.phase {
                Phase::Waiting { .. } | Phase::Quarantined { .. } => {
                    self.enter(now, Phase::Waiting { at: now, fault: None });
                }
                // What was to stay down may be wanted again.
                Phase::Ended { .. } if self.wish == Wish::Run => {
                    self.enter(now, Phase::Waiting { at: now, fault: None });
                }
                _ => {}
            }
        }
        if self.wish == Wish::Gone {
            self.wish = Wish::Run;
        }
    }

    fn seen(&mut self, now: Millis, seen: Seen, actions: &mut Vec<Action>) {
        match (seen, &self.phase) {
            (Seen::Alive, Phase::Unknown | Phase::Starting { .. }) => {
                self.enter(now, Phase::Running);
            }
            // Found running though it should not: it is as if it had been told to stop.
            (
                Seen::Alive,
                Phase::Ended { .. } | Phase::Releasing { .. } | Phase::Quarantined { .. },
            ) => {
                self.enter(now, Phase::Stopping { again: now });
            }
            (Seen::Absent, Phase::Unknown) if self.wish == Wish::Run => {
                self.enter(now, Phase::Waiting { at: now, fault: None });
            }
            (Seen::Absent, Phase::Unknown | Phase::Stopping { .. }) => {
                self.after_end(now, self.crippled.map(|_| Outcome::Share));
            }
            (Seen::Absent, Phase::Running) => self.after_end(now, Some(Outcome::Lost)),
            (Seen::Ended { exit, at }, phase) if at > self.handled => {
                let told = matches!(phase, Phase::Stopping { .. });
                let concerned =
                    matches!(phase, Phase::Unknown | Phase::Starting { .. } | Phase::Running);
                self.handled = at;
                actions.push(Action::Acknowledge);
                if told || concerned {
                    // The end of one that was told to stop is no sign of anything, but of why it was told.
                    let killed = exit.is_none_or(|exit| exit.code.is_none());
                    let outcome = match self.crippled {
                        Some(_) if killed => Some(Outcome::Share),
                        Some(_) => Some(Outcome::of(exit)),
                        None => concerned.then(|| Outcome::of(exit)),
                    };
                    self.after_end(now, outcome);
                }
            }
            _ => {}
        }
    }

    /// Its process has ended.
    fn after_end(&mut self, now: Millis, outcome: Option<Outcome>) {
        match self.wish {
            Wish::Gone => return self.enter(now, Phase::Releasing { again: Some(now) }),
            Wish::Down => {
                let cause = "the node goes down".to_owned();
                return self.enter(now, Phase::Ended { cause });
            }
            Wish::Run if self.before.is_some() => {
                return self.enter(now, Phase::Releasing { again: Some(now) });
            }
            Wish::Run => {}
        }
        let Some(outcome) = outcome else {
            return self.enter(now, Phase::Waiting { at: now, fault: None });
        };
        if outcome.is_final(self.vm.restart) {
            return self.enter(now, Phase::Ended { cause: outcome.to_string() });
        }
        if now.saturating_sub(self.started) >= STABLE {
            self.failures = 0;
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        if self.ends >= LOOPS {
            let cause = outcome.fault(self.ends);
            return self.enter(now, Phase::Quarantined { at: now + QUARANTINE, cause });
        }
        let pause = match outcome {
            Outcome::Reboot if self.failures == 0 => 0,
            _ => pause(self.failures),
        };
        self.failures = self.failures.saturating_add(1);
        let quiet = !outcome.is_failure() && self.failures <= PATIENCE;
        let fault = (!quiet).then(|| outcome.fault(self.failures));
        self.enter(now, Phase::Waiting { at: now + pause, fault });
    }

    fn start_ended(&mut self, now: Millis, result: Result<(), Fault>) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        match result {
            Ok(()) => self.phase = Phase::Starting { started: Some(now) },
            Err(fault) if self.wish == Wish::Run => {
                let at = now + pause(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.enter(now, Phase::Waiting { at, fault: Some(fault) });
            }
            Err(_) => self.after_end(now, None),
        }
    }

    fn released(&mut self, now: Millis, result: Result<(), String>) {
        if !matches!(self.phase, Phase::Releasing { .. }) {
            return;
        }
        match (result, self.wish) {
            (Err(_), _) => self.phase = Phase::Releasing { again: Some(now + 1000) },
            (Ok(()), Wish::Gone) => self.enter(now, Phase::Gone),
            (Ok(()), _) => {
                self.before = None;
                self.enter(now, Phase::Waiting { at: now, fault: None });
            }
        }
    }

    /// What follows from where it stands and what is wanted.
    fn go_on(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let changed = self.before.is_some();
        match (&self.phase, self.wish) {
            (
                Phase::Waiting { .. } | Phase::Ended { .. } | Phase::Quarantined { .. },
                Wish::Gone,
            ) => {
                self.enter(now, Phase::Releasing { again: None });
                actions.push(Action::Release);
            }
            (Phase::Waiting { .. } | Phase::Quarantined { .. }, Wish::Down) => {
                self.after_end(now, None);
            }
            (Phase::Quarantined { at, .. }, Wish::Run) if *at <= now => {
                self.enter(now, Phase::Waiting { at: now, fault: None });
                self.go_on(now, actions);
            }
            (Phase::Waiting { .. }, Wish::Run) if changed => {
                self.enter(now, Phase::Releasing { again: None });
                actions.push(Action::Release);
            }
            (Phase::Waiting { at, .. }, Wish::Run) if *at <= now => {
                if self.started > 0 {
                    self.restarts = self.restarts.saturating_add(1);
                }
                self.attempt = self.attempt.wrapping_add(1);
                self.started = now.max(1);
                self.crippled = None;
                self.enter(now, Phase::Starting { started: None });
                actions.push(Action::Start { attempt: self.attempt });
            }
            (Phase::Starting { started: Some(at) }, _) if at + APPEARS <= now => {
                self.after_end(now, Some(Outcome::Lost));
            }
            // Told to start, and so known to PID 1: told to stop, it answers with its end.
            (Phase::Starting { started: Some(_) } | Phase::Running, wish)
                if wish != Wish::Run || changed =>
            {
                self.enter(now, Phase::Stopping { again: now + GRACE + 5000 });
                actions.push(Action::Stop { grace: GRACE });
            }
            // A guest can do nothing sensible with what is left of it. One that ends by itself has its servers end, too,
            // and had the time for it.
            (Phase::Running, _) if self.crippled.is_some_and(|at| at + CRIPPLED <= now) => {
                self.enter(now, Phase::Stopping { again: now + GRACE });
                actions.push(Action::Stop { grace: 0 });
            }
            (Phase::Stopping { again }, _) if *again <= now => {
                self.phase = Phase::Stopping { again: now + GRACE };
                actions.push(Action::Stop { grace: 0 });
            }
            (Phase::Releasing { again: Some(at) }, _) if *at <= now => {
                self.phase = Phase::Releasing { again: None };
                actions.push(Action::Release);
            }
            _ => {}
        }
    }
}

/// The pause before the next start after so many ends in a row: 1 s, doubled each time.
fn pause(failures: u32) -> Millis {
    let longest = Duration::from_millis(LONGEST_PAUSE);
    let backoff = Backoff { first: Duration::from_secs(1), longest };
    let pause = backoff.pause(failures.saturating_add(1)).as_millis();
    Millis::try_from(pause).unwrap_or(LONGEST_PAUSE)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
