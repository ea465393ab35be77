//! How a unit looks from outside: `org.zos.Init.Unit`.

use serde::Serialize;

use zos_host::process::Exit;

use super::{Ended, State, Supervisor, Unit};

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
    /// `waiting`, `starting`, `running`, `stopping`, `exited`, `backoff` or `failed`.
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

impl Supervisor {
    /// Services in start order, then transient units in the order of their start.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<Status> {
        self.units.iter().map(|unit| self.status_of(unit)).collect()
    }

    fn status_of(&self, unit: &Unit) -> Status {
        let (state, pid) = match unit.state {
            State::Waiting => ("waiting", None),
            State::Launching => ("starting", None),
            State::Starting { pid, .. } => ("starting", Some(pid)),
            State::Running { pid } => ("running", Some(pid)),
            State::Stopping { pid, .. } => ("stopping", Some(pid)),
            State::Backoff { .. } => ("backoff", None),
            State::Exited => ("exited", None),
            State::Failed { .. } => ("failed", None),
        };
        Status {
            name: unit.name.clone(),
            kind: unit.kind,
            state,
            pid,
            restarts: unit.restarts,
            since_ms: unit.since,
            exit: unit.last.as_ref().map(ExitStatus::from),
            detail: self.detail(unit),
        }
    }

    fn detail(&self, unit: &Unit) -> String {
        let last = || unit.last.as_ref().map(ToString::to_string).unwrap_or_default();
        match &unit.state {
            State::Waiting if !self.begun => "for the boot to end".to_owned(),
            State::Waiting => match self.waits_for(unit, &self.ways()) {
                Some((other, true)) => match &other.state {
                    State::Failed { cause } => format!("requires {}: {cause}", other.name),
                    _ => format!("requires {}", other.name),
                },
                Some((other, false)) => format!("after {}", other.name),
                None => String::new(),
            },
            State::Launching | State::Running { .. } => String::new(),
            State::Starting { .. } => "not ready yet".to_owned(),
            State::Stopping { killed: false, .. } => "told to stop".to_owned(),
            State::Stopping { killed: true, .. } => "killed".to_owned(),
            State::Backoff { .. } | State::Exited => last(),
            State::Failed { cause } => cause.clone(),
        }
    }
}
