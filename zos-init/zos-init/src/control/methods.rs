//! The methods: parameters in, one reply out.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use zos_host::power::End;
use zos_host::varlink::{Call, Reply, object};

use crate::run::{Node, RequestError, Start};
use crate::supervise::Refusal;

/// The interface's text, the one that the daemons' types are checked against.
pub(super) const INTERFACE: &str =
    include_str!("../../../../zos-daemons/zos-api/interfaces/org.zos.Init.varlink");

const SERVICE: &str = include_str!("org.varlink.service.varlink");

#[derive(Deserialize)]
struct Stop {
    unit: String,
    grace_ms: u64,
}

#[derive(Deserialize)]
struct Which {
    unit: String,
}

#[derive(Deserialize)]
struct Shutdown {
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Poweroff,
    Reboot,
    Halt,
}

/// Does what a call asks for; the peer's right to it was checked.
pub(super) fn call(
    call: &Call,
    fds: &mut dyn FnMut(usize) -> Option<Vec<OwnedFd>>,
    node: &mut Node,
    uid: u32,
) -> Reply {
    let done = match call.split() {
        Some(("org.varlink.service", method)) => return service(method, call),
        Some(("org.zos.Init", method)) => match method {
            "Describe" => return Reply::ok(describe(node)),
            "ListUnits" => return Reply::ok(units(node)),
            "WatchUnits" if call.more => return Reply::continuing(units(node)),
            "WatchUnits" => return standard("ExpectedMore", &Map::new()),
            "StartTransient" => parse::<Start>(call).and_then(|start| {
                let Some(fds) = fds(start.fds.len()) else {
                    let what = format!("fds: {} names, but fewer descriptors", start.fds.len());
                    return Err(RequestError::Invalid(what));
                };
                node.start_transient(start, fds)
            }),
            "StopTransient" => {
                parse(call).and_then(|Stop { unit, grace_ms }| node.stop_transient(&unit, grace_ms))
            }
            "Acknowledge" => parse(call).and_then(|Which { unit }| node.acknowledge(&unit)),
            "ListCrashes" => return Reply::ok(object(&json!({ "crashes": [] }))),
            "Shutdown" => parse(call).map(|Shutdown { action }| {
                let end = match action {
                    Action::Poweroff => End::Poweroff,
                    Action::Reboot => End::Reboot,
                    Action::Halt => End::Halt,
                };
                node.go_down(end, format!("asked for by uid {uid}"));
            }),
            _ => return standard("MethodNotFound", &object(&json!({ "method": call.method }))),
        },
        other => {
            let interface = other.map_or(call.method.as_str(), |(interface, _)| interface);
            return standard("InterfaceNotFound", &object(&json!({ "interface": interface })));
        }
    };
    match done {
        Ok(()) => Reply::ok(Map::new()),
        Err(error) => Reply::error(error_name(&error), &error),
    }
}

/// What `ListUnits` and `WatchUnits` tell.
pub(super) fn units(node: &Node) -> Map<String, Value> {
    object(&json!({ "units": node.status() }))
}

fn describe(node: &Node) -> Map<String, Value> {
    let boot = &node.boot;
    object(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "image": boot.image,
        "boot_reason": boot.boot_reason,
        "time_quality": boot.time_quality,
        "settings": boot.settings.values(),
        "phases": boot.phases,
        "faults": boot.faults,
    }))
}

/// The interface that every varlink service has.
fn service(method: &str, call: &Call) -> Reply {
    match method {
        "GetInfo" => Reply::ok(object(&json!({
            "vendor": "ZOS",
            "product": "zos-init",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": ["org.varlink.service", "org.zos.Init"],
        }))),
        "GetInterfaceDescription" => {
            let interface = call.parameters.get("interface").and_then(Value::as_str);
            let text = match interface {
                Some("org.zos.Init") => INTERFACE,
                Some("org.varlink.service") => SERVICE,
                Some(other) => {
                    return standard("InterfaceNotFound", &object(&json!({ "interface": other })));
                }
                None => {
                    let parameter = json!({ "parameter": "interface" });
                    return standard("InvalidParameter", &object(&parameter));
                }
            };
            Reply::ok(object(&json!({ "description": text })))
        }
        _ => standard("MethodNotFound", &object(&json!({ "method": call.method }))),
    }
}

/// An error of varlink itself.
fn standard(name: &str, parameters: &Map<String, Value>) -> Reply {
    Reply {
        error: Some(format!("org.varlink.service.{name}")),
        parameters: parameters.clone(),
        continues: false,
    }
}

fn parse<T: DeserializeOwned>(call: &Call) -> Result<T, RequestError> {
    serde_json::from_value(Value::Object(call.parameters.clone()))
        .map_err(|error| RequestError::Invalid(error.to_string()))
}

fn error_name(error: &RequestError) -> &'static str {
    match error {
        RequestError::Invalid(_) => "org.zos.Error.Invalid",
        RequestError::Conflict(_)
        | RequestError::Refused(Refusal::Exists(_) | Refusal::NotExited(_)) => {
            "org.zos.Error.Conflict"
        }
        RequestError::Refused(Refusal::Unknown(_)) => "org.zos.Error.NotFound",
        RequestError::Refused(Refusal::GoingDown) => "org.zos.Error.Busy",
    }
}
