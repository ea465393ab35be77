//! What callers of `org.zos.Init` ask of the node, checked before anything is done.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use zos_host::cgroup::Usage;
use zos_host::power::End;
use zos_host::process::signal_number;
use zos_host::varlink::MAX_FDS;
use zos_host::{SysRoot, clock, kexec};

use super::{Node, Transient};
use crate::supervise::{Event, Refusal, Status, UnitId};

/// `StartTransient`.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) template: String,
    pub(crate) name: String,
    pub(crate) twin: String,
    pub(crate) slot: u32,
    pub(crate) limits: Limits,
    pub(crate) args: Vec<String>,
    pub(crate) fds: Vec<String>,
}

/// What `DescribeUnit` tells.
#[derive(Debug, Serialize)]
pub(crate) struct Detail {
    unit: Status,
    usage: Option<Usage>,
    log_bytes: usize,
}

/// What the unit's cgroup enforces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// 1 to 10,000.
    pub(crate) cpu_weight: Option<u64>,
    /// Percent of one CPU.
    pub(crate) cpu_quota: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
    /// Bytes of the longest file that it may write, memory files included.
    pub(crate) file_size: Option<u64>,
    /// Descriptors that it may have open.
    pub(crate) files: Option<u64>,
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The core's reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The parameter of this name is missing, unknown or not of its type.
    #[error("parameter {0}")]
    Parameter(String),
    /// A parameter makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something is taken.
    #[error("{0}")]
    Conflict(String),
    /// It was tried and went wrong.
    #[error("{0}")]
    Failed(String),
}

const SIGKILL: i32 = 9;
const NAME: &str = "name: <deployment>.<workload>, or <deployment>.<workload>.<part>, in lower case letters, \
                    digits and -";

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
        let parts: Vec<&str> = start.name.split('.').collect();
        let [deployment, workload, beside @ ..] = &parts[..] else {
            return invalid(NAME.to_owned());
        };
        let good = |part: &&str| plain(part, "-") && part.len() <= 36;
        if beside.len() > 1 || !parts.iter().all(good) {
            return invalid(NAME.to_owned());
        }
        let group = format!("{deployment}.{workload}");
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
            group,
            is_part: !beside.is_empty(),
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

    /// Starts a service.
    pub(crate) fn start_unit(&mut self, name: &str) -> Result<(), RequestError> {
        let actions = self.supervisor.start_unit(clock::boottime_millis(), name)?;
        self.perform(actions);
        Ok(())
    }

    /// Stops a service until it is started.
    pub(crate) fn stop_unit(&mut self, name: &str) -> Result<(), RequestError> {
        let actions = self.supervisor.stop_unit(clock::boottime_millis(), name)?;
        self.perform(actions);
        Ok(())
    }

    /// Stops a service and starts it again.
    pub(crate) fn restart_unit(&mut self, name: &str) -> Result<(), RequestError> {
        let actions = self.supervisor.restart_unit(clock::boottime_millis(), name)?;
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

    /// The unit of a name.
    pub(crate) fn unit(&self, name: &str) -> Result<UnitId, RequestError> {
        let unknown = || Refusal::Unknown(name.to_owned()).into();
        self.supervisor.find(name).ok_or_else(unknown)
    }

    /// One unit, with what its cgroup counts.
    pub(crate) fn describe_unit(&self, name: &str) -> Result<Detail, RequestError> {
        let id = self.unit(name)?;
        let unit = self.status().into_iter().find(|unit| unit.name == name);
        let unit = unit.ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        let group = self.journal.knows(id).then(|| self.cgroup(id)).flatten();
        let usage = group.and_then(|group| group.usage());
        Ok(Detail { unit, usage, log_bytes: self.journal.bytes(id) })
    }

    /// Sends a signal to every process of a unit.
    pub(crate) fn kill_unit(&self, name: &str, signal: &str) -> Result<(), RequestError> {
        let id = self.unit(name)?;
        let Some(number) = signal_number(signal) else {
            let what = format!("signal: {signal} is none; write TERM, KILL, HUP ...");
            return Err(RequestError::Invalid(what));
        };
        let nobody = || RequestError::Conflict(format!("the unit {name} has no process"));
        let done = if self.is_part(id) {
            self.live.get(&id).ok_or_else(nobody)?.child.signal(number).map(|()| 1)
        } else {
            let group = self.cgroup(id).filter(zos_host::cgroup::Cgroup::populated);
            let group = group.ok_or_else(nobody)?;
            match number {
                SIGKILL => group.kill().map(|()| 1),
                number => group.signal(number),
            }
        };
        match done {
            Ok(0) => Err(nobody()),
            Ok(_) => Ok(()),
            Err(error) => Err(RequestError::Failed(error.line())),
        }
    }

    /// Ends the machine in order, because a caller asks for it.
    pub(crate) fn shut_down(&mut self, end: End, uid: u32) -> Result<(), RequestError> {
        if end == End::Kexec && !kexec::loaded(&SysRoot::host()) {
            let what = "there is no kernel to go on with: kexec_file_load(2) loads one";
            return Err(RequestError::Conflict(what.to_owned()));
        }
        self.event(Event::Down { end, why: format!("asked for by uid {uid}") });
        Ok(())
    }
}

/// Lower case letters, digits and these, and at least one; what may be part of a path.
fn plain(text: &str, more: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    !text.is_empty() && text.chars().all(good) && !text.starts_with('.')
}
