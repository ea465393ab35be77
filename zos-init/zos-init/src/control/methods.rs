//! The methods: a call in, its answer out.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde_json::{Map, json};
use zos_host::poll::Poll;
use zos_host::power::End;
use zos_host::pstore::Crash;
use zos_host::varlink::{Call, MAX_FDS, Reply, object};

use super::parameters::Parameters;
use super::server::{Answer, Service};
use super::stream::{self, Cursor, Stream};
use super::{access, interfaces};
use crate::evidence;
use crate::run::{Node, RequestError, Start};
use crate::supervise::Refusal;

/// What comes after an ordered stop.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Poweroff,
    Reboot,
    Halt,
    Kexec,
}

impl From<Action> for End {
    fn from(action: Action) -> Self {
        match action {
            Action::Poweroff => Self::Poweroff,
            Action::Reboot => Self::Reboot,
            Action::Halt => Self::Halt,
            Action::Kexec => Self::Kexec,
        }
    }
}

impl Service for Node {
    fn poll(&self) -> &Poll {
        self.poll()
    }

    fn descriptors(&self, uid: u32) -> usize {
        if access::may(uid, "org.zos.Init.StartTransient") { MAX_FDS } else { 0 }
    }

    fn call(
        &mut self,
        uid: u32,
        call: &Call,
        fds: &mut dyn FnMut(usize) -> Option<Vec<OwnedFd>>,
    ) -> Answer {
        if !access::may(uid, &call.method) {
            let why = format!("uid {uid} may not call {}", call.method);
            return Answer::Reply(Reply::error("org.zos.Error.Denied", why));
        }
        let method = match call.split() {
            Some((interfaces::INIT, method)) => method,
            Some((interfaces::SERVICE, method)) => {
                return Answer::Reply(interfaces::service(method, call));
            }
            other => {
                let interface = other.map_or(call.method.as_str(), |(interface, _)| interface);
                return Answer::Reply(interfaces::interface_not_found(interface));
            }
        };
        match answer(self, uid, method, call, fds) {
            Ok(answer) => answer,
            Err(error) => Answer::Reply(refusal(&error)),
        }
    }

    fn news(&self, stream: &mut Stream) -> Option<Reply> {
        stream::news(self, stream)
    }
}

/// Does what a call asks for; the caller's right to it was checked.
fn answer(
    node: &mut Node,
    uid: u32,
    method: &str,
    call: &Call,
    fds: &mut dyn FnMut(usize) -> Option<Vec<OwnedFd>>,
) -> Result<Answer, RequestError> {
    let mut given = Parameters::of(&call.parameters);
    let mut unit = || given.take::<String>("unit");
    let reply = match method {
        "Describe" => {
            given.end()?;
            describe(node)
        }
        "ListUnits" => {
            given.end()?;
            stream::units(node)
        }
        "WatchUnits" => {
            given.end()?;
            if !call.more {
                return Ok(Answer::Reply(interfaces::expected_more()));
            }
            return Ok(Answer::Stream(Stream::Units { seen: None }));
        }
        "DescribeUnit" => {
            let unit = unit()?;
            given.end()?;
            object(&node.describe_unit(&unit)?)
        }
        "StartUnit" | "StopUnit" | "RestartUnit" => {
            let unit = unit()?;
            given.end()?;
            match method {
                "StartUnit" => node.start_unit(&unit)?,
                "StopUnit" => node.stop_unit(&unit)?,
                _ => node.restart_unit(&unit)?,
            }
            Map::new()
        }
        "Reload" => {
            given.end()?;
            object(&node.reload()?)
        }
        "KillUnit" => {
            let unit = unit()?;
            let signal: String = given.take("signal")?;
            given.end()?;
            node.kill_unit(&unit, &signal)?;
            Map::new()
        }
        "ReadLog" => {
            let name = unit()?;
            let after = given.take_or_default("after")?;
            given.end()?;
            let unit = node.unit(&name)?;
            if call.more {
                let cursor = Cursor::after(after);
                return Ok(Answer::Stream(Stream::Log { name, unit, cursor }));
            }
            object(&node.journal.latest(unit, after, stream::PAGE))
        }
        "WatchEvents" => {
            let after = given.take_or_default("after")?;
            given.end()?;
            if call.more {
                return Ok(Answer::Stream(Stream::Events { cursor: Cursor::after(after) }));
            }
            object(&node.journal.events.after(after))
        }
        "StartTransient" => {
            let start = Start {
                template: given.take("template")?,
                name: given.take("name")?,
                twin: given.take("twin")?,
                slot: given.take("slot")?,
                limits: given.take_or_default("limits")?,
                args: given.take_or_default("args")?,
                fds: given.take_or_default("fds")?,
            };
            given.end()?;
            let named = start.fds.len();
            let descriptors = fds(named).ok_or_else(|| {
                let what = format!("fds: {named} names, but fewer descriptors");
                RequestError::Invalid(what)
            })?;
            node.start_transient(start, descriptors)?;
            Map::new()
        }
        "StopTransient" => {
            let unit = unit()?;
            let grace_ms = given.take("grace_ms")?;
            given.end()?;
            node.stop_transient(&unit, grace_ms)?;
            Map::new()
        }
        "Acknowledge" => {
            let unit = unit()?;
            given.end()?;
            node.acknowledge(&unit)?;
            Map::new()
        }
        "Shutdown" => {
            let action: Action = given.take("action")?;
            given.end()?;
            node.shut_down(action.into(), uid)?;
            Map::new()
        }
        "SetLastEnd" => {
            let end: Option<Action> = given.take_or_default("end")?;
            given.end()?;
            node.boot.set_last_end(end.map(End::from));
            Map::new()
        }
        "ListCrashes" => {
            given.end()?;
            object(&json!({ "crashes": crashes() }))
        }
        _ => return Ok(Answer::Reply(interfaces::method_not_found(call))),
    };
    Ok(Answer::Reply(Reply::ok(reply)))
}

fn crashes() -> Vec<serde_json::Value> {
    let shown = |crash: &Crash| json!({ "name": crash.name, "text": crash.text });
    evidence::crashes().iter().map(shown).collect()
}

fn describe(node: &Node) -> Map<String, serde_json::Value> {
    let boot = &node.boot;
    object(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "image": boot.image,
        "boot_reason": boot.boot_reason,
        "ending": node.supervisor.ending().map(evidence::name),
        "watchdog": node.watchdog(),
        "time_quality": boot.time_quality,
        "settings": boot.settings.values(),
        "phases": boot.phases,
        "faults": boot.faults,
    }))
}

fn refusal(error: &RequestError) -> Reply {
    let name = match error {
        RequestError::Parameter(name) => return interfaces::invalid_parameter(name),
        RequestError::Invalid(_) => "org.zos.Error.Invalid",
        RequestError::Failed(_) => "org.zos.Error.Failed",
        RequestError::Conflict(_) => "org.zos.Error.Conflict",
        RequestError::Refused(refusal) => match refusal {
            Refusal::Exists(_) | Refusal::NotExited(_) | Refusal::Broken(..) => {
                "org.zos.Error.Conflict"
            }
            Refusal::Unknown(_) => "org.zos.Error.NotFound",
            Refusal::GoingDown => "org.zos.Error.Busy",
        },
    };
    Reply::error(name, error)
}
