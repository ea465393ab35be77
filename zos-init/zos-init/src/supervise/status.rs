//! How a unit looks from outside: `org.zos.Init.Unit`.

use serde::Serialize;

use zos_host::process::Exit;

use super::state::Then;
use super::{Ended, State, Supervisor, Unit, UnitId, words};

/// What kind a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// From the image's unit files.
    Service,
    /// From a template.
    Transient,
}

/// A unit as `ListUnits` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// `storaged`; `vm/<twin>/<deployment>.<workload>`.
    pub(crate) name: String,
    /// What kind it is.
    pub(crate) kind: Kind,
    /// `waiting`, `starting`, `running`, `done`, `stopping`, `exited`, `backoff` or `failed`.
    pub(crate) state: &'static str,
    /// Its process, while there is one.
    pub(crate) pid: Option<i32>,
    /// How often it was started again.
    pub(crate) restarts: u64,
    /// Since when it is in this state: milliseconds of `CLOCK_BOOTTIME`.
    pub(crate) since_ms: u64,
    /// How it ended the last time.
    pub(crate) exit: Option<ExitStatus>,
    /// In words: what it waits for, why it failed.
    pub(crate) detail: String,
}

/// A unit came to a state, or its process ended; for those who watch events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Which.
    pub(crate) unit: UnitId,
    /// Its name.
    pub(crate) name: String,
    /// One of `Status::state`.
    pub(crate) state: &'static str,
    /// How its process ended, when it did just now.
    pub(crate) exit: Option<ExitStatus>,
    /// In words.
    pub(crate) detail: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ExitStatus {
    /// By itself, with a code.
    pub(crate) code: Option<i32>,
    /// By a signal.
    pub(crate) signal: Option<i32>,
    /// Whether its cgroup ran out of memory.
    pub(crate) oom: bool,
}

impl From<&Ended> for ExitStatus {
    fn from(ended: &Ended) -> Self {
        let (code, signal) = match ended.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
        };
        Self { code, signal, oom: ended.oom }
    }
}

impl State {
    /// Its name for others.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Launching { .. } | Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Done => "done",
            Self::Exited { .. } | Self::Gone => "exited",
            Self::Failed { .. } | Self::Broken { .. } | Self::Hung { .. } => "failed",
        }
    }
}

impl Unit {
    pub(super) fn word(&self) -> &'static str {
        self.state.word()
    }

    /// Its process, while there is one.
    pub(super) fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Starting { run, .. }
            | State::Running { run, .. }
            | State::Stopping { run, .. }
            | State::Hung { run, .. } => Some(run.pid),
            _ => None,
        }
    }

    /// Its state is news; `ended`: its process has just ended.
    pub(super) fn happened(&self, ended: bool) -> Happened {
        Happened {
            unit: self.id,
            name: self.name.clone(),
            state: self.word(),
            exit: self.last.as_ref().filter(|_| ended).map(ExitStatus::from),
            detail: self.detail(),
        }
    }

    /// In words, as far as it concerns the unit alone.
    fn detail(&self) -> String {
        let last = || self.last.as_ref().map(ToString::to_string).unwrap_or_default();
        match &self.state {
            State::Waiting
            | State::Launching { .. }
            | State::Running { .. }
            | State::Done
            | State::Gone => String::new(),
            State::Starting { .. } => "not ready yet".to_owned(),
            State::Stopping { killed, then, .. } => {
                let what = if *killed { "killed" } else { "told to stop" };
                match then {
                    Then::Again(cause) => format!("{what}: {cause}"),
                    Then::Anew => format!("{what}, to be started anew"),
                    Then::Rest { by_hand: true } => format!("{what} by hand"),
                    Then::Rest { by_hand: false } | Then::Gone => what.to_owned(),
                }
            }
            State::Hung { .. } => words::HUNG.to_owned(),
            State::Exited { by_hand: true } => "stopped by hand".to_owned(),
            State::Backoff { .. } | State::Exited { by_hand: false } => last(),
            State::Failed { cause, .. } | State::Broken { cause } => cause.clone(),
        }
    }
}

impl Supervisor {
    /// Services in start order, then transient units in the order of their start.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<Status> {
        let ways = self.ways();
        (0..self.units.len()).map(|at| self.status_of(at, &ways)).collect()
    }

    fn status_of(&self, at: usize, ways: &[bool]) -> Status {
        let unit = &self.units[at];
        Status {
            name: unit.name.clone(),
            kind: unit.kind,
            state: unit.word(),
            pid: unit.pid(),
            restarts: unit.restarts,
            since_ms: unit.since,
            exit: unit.last.as_ref().map(ExitStatus::from),
            detail: match unit.state {
                State::Waiting if !self.begun => "for the boot to end".to_owned(),
                State::Waiting => self.waiting(at, ways),
                _ => unit.detail(),
            },
        }
    }

    /// What a waiting unit waits for.
    fn waiting(&self, at: usize, ways: &[bool]) -> String {
        match self.waits_for(at, ways) {
            Some((other, true)) => {
                let why = match other.state {
                    State::Failed { .. }
                    | State::Broken { .. }
                    | State::Hung { .. }
                    | State::Backoff { .. }
                    | State::Exited { .. } => other.detail(),
                    _ => String::new(),
                };
                match why.as_str() {
                    "" => format!("requires {}", other.name),
                    why => format!("requires {}: {why}", other.name),
                }
            }
            Some((other, false)) => format!("after {}", other.name),
            None => String::new(),
        }
    }
}
