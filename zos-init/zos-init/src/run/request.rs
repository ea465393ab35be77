//! What callers of `org.zos.Init` ask of the node, checked before anything is done.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use zos_host::{clock, power::End};

use super::{Node, Transient};
use crate::supervise::{Event, Refusal, Status};

/// `StartTransient`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) template: String,
    pub(crate) name: String,
    pub(crate) twin: String,
    pub(crate) slot: u32,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) fds: Vec<String>,
}

/// What the unit's cgroup enforces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// 1 to 10,000.
    pub(crate) cpu_weight: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The core's reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A parameter makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something is taken.
    #[error("{0}")]
    Conflict(String),
}

/// Descriptors that a unit may get.
const MAX_FDS: usize = 64;

impl Node {
    /// Starts a program from a template.
    pub(crate) fn start_transient(
        &mut self,
        start: Start,
        fds: Vec<OwnedFd>,
    ) -> Result<(), RequestError> {
        let invalid = |what: String| Err(RequestError::Invalid(what));
        let Some(template) = self.templates.get(&start.template) else {
            return invalid(format!("there is no template {}", start.template));
        };
        if !plain(&start.twin, "") || start.twin.len() > 64 {
            return invalid("twin: lower case letters and digits, at most 64".to_owned());
        }
        let halves: Vec<&str> = start.name.split('.').collect();
        if halves.len() != 2 || !halves.iter().all(|half| plain(half, "-") && half.len() <= 36) {
            return invalid(
                "name: <deployment>.<workload> in lower case letters, digits and -".to_owned(),
            );
        }
        if start.slot >= template.slots {
            return invalid(format!("slot: below {}", template.slots));
        }
        if start.args.len() > template.open_arguments {
            return invalid(format!("args: the template leaves {} open", template.open_arguments));
        }
        if start.args.iter().any(|argument| argument.contains('\0')) {
            return invalid("args: NUL inside".to_owned());
        }
        if start.fds.len() > MAX_FDS
            || start.fds.iter().any(|name| !plain(name, "-._") || name.len() > 64)
        {
            return invalid(format!(
                "fds: at most {MAX_FDS} names in lower case letters, digits and -._"
            ));
        }
        if let Some(what) = self.broken(&template.exec[0]) {
            return Err(RequestError::Conflict(what));
        }
        let slot_taken = |(id, other): (&crate::supervise::UnitId, &Transient)| {
            other.template == start.template
                && other.slot == start.slot
                && self.live.contains_key(id)
        };
        if self.transients.iter().any(slot_taken) {
            return Err(RequestError::Conflict(format!("slot {} is taken", start.slot)));
        }
        let unit = format!("{}/{}/{}", start.template, start.twin, start.name);
        let (signal, timeout) = (template.stop_signal, template.stop_timeout);
        let now = clock::boottime_millis();
        let (id, actions) = self.supervisor.start_transient(now, &unit, signal, timeout)?;
        let transient = Transient {
            template: start.template,
            twin: start.twin,
            name: start.name,
            slot: start.slot,
            limits: start.limits,
            arguments: start.args,
            descriptors: start.fds.into_iter().zip(fds).collect(),
        };
        self.transients.insert(id, transient);
        self.perform(actions);
        Ok(())
    }

    /// Stops a transient unit.
    pub(crate) fn stop_transient(&mut self, unit: &str, grace_ms: u64) -> Result<(), RequestError> {
        // A day: longer is a mistake, and would overflow nothing.
        let grace = grace_ms.min(86_400_000);
        let actions = self.supervisor.stop_transient(clock::boottime_millis(), unit, grace)?;
        self.perform(actions);
        Ok(())
    }

    /// Forgets an exited transient unit.
    pub(crate) fn acknowledge(&mut self, unit: &str) -> Result<(), RequestError> {
        let actions = self.supervisor.acknowledge(unit)?;
        self.perform(actions);
        Ok(())
    }

    /// Every unit as callers see it.
    pub(crate) fn status(&self) -> Vec<Status> {
        self.supervisor.status()
    }

    /// Ends the machine in order.
    pub(crate) fn go_down(&mut self, end: End, why: String) {
        self.event(Event::Down { end, why });
    }
}

/// Lower case letters, digits and these, and at least one; what may be part of a path.
fn plain(text: &str, more: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    !text.is_empty() && text.chars().all(good) && !text.starts_with('.')
}
