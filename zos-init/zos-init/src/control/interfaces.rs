//! `org.varlink.service`: what every varlink service says of itself, and the errors of varlink itself.

use serde_json::{Value, json};
use zos_host::varlink::{Call, Reply, object};

/// Our own interface.
pub(super) const INIT: &str = "org.zos.Init";
/// The one that every varlink service has.
pub(super) const SERVICE: &str = "org.varlink.service";

/// The interface's text, the one that the daemons' types are checked against.
const INIT_TEXT: &str =
    include_str!("../../../../zos-daemons/zos-api/interfaces/org.zos.Init.varlink");
const SERVICE_TEXT: &str = include_str!("org.varlink.service.varlink");

/// Answers a call of `org.varlink.service`.
pub(super) fn service(method: &str, call: &Call) -> Reply {
    match method {
        "GetInfo" => Reply::ok(object(&json!({
            "vendor": "ZOS",
            "product": "zos-init",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [SERVICE, INIT],
        }))),
        "GetInterfaceDescription" => match call.parameters.get("interface").and_then(Value::as_str)
        {
            Some(INIT) => Reply::ok(object(&json!({ "description": INIT_TEXT }))),
            Some(SERVICE) => Reply::ok(object(&json!({ "description": SERVICE_TEXT }))),
            Some(other) => interface_not_found(other),
            None => invalid_parameter("interface"),
        },
        _ => method_not_found(call),
    }
}

pub(super) fn interface_not_found(interface: &str) -> Reply {
    standard("InterfaceNotFound", &json!({ "interface": interface }))
}

pub(super) fn method_not_found(call: &Call) -> Reply {
    standard("MethodNotFound", &json!({ "method": call.method }))
}

pub(super) fn invalid_parameter(parameter: &str) -> Reply {
    standard("InvalidParameter", &json!({ "parameter": parameter }))
}

/// The method only answers as a stream.
pub(super) fn expected_more() -> Reply {
    standard("ExpectedMore", &json!({}))
}

fn standard(name: &str, parameters: &Value) -> Reply {
    Reply::failure(&format!("{SERVICE}.{name}"), object(parameters))
}
