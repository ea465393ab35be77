//! `org.varlink.service`: what any varlink client may ask of any service, and how it is told no.
//! <https://varlink.org/Service>

use serde_json::{Value, json};
use zos_api::local::Interface;

use super::RawError;

const NAME: &str = "org.varlink.service";

/// The interface as varlink.org defines it.
const TEXT: &str = "\
# What every varlink service answers.
interface org.varlink.service

# Who serves, and which interfaces.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# An interface in varlink's definition language.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
";

/// Answers a call of `org.varlink.service`; none: the call is of another interface.
pub(super) fn answer(
    served: &[&'static Interface],
    method: &str,
    parameters: Option<&Value>,
) -> Option<Result<Value, RawError>> {
    let method = method.strip_prefix(NAME)?.strip_prefix('.')?;
    Some(match method {
        "GetInfo" => Ok(info(served)),
        "GetInterfaceDescription" => describe(served, parameters),
        other => Err(not_found(served, &format!("{NAME}.{other}"))),
    })
}

fn info(served: &[&'static Interface]) -> Value {
    let names: Vec<&str> = [NAME].into_iter().chain(served.iter().map(|i| i.name)).collect();
    json!({
        "vendor": "ZOS",
        "product": served.first().map_or(NAME, |interface| interface.name),
        "version": env!("CARGO_PKG_VERSION"),
        "url": "",
        "interfaces": names,
    })
}

fn describe(served: &[&'static Interface], parameters: Option<&Value>) -> Result<Value, RawError> {
    let wanted = parameters.and_then(|parameters| parameters.get("interface")?.as_str());
    let wanted = wanted.ok_or_else(|| invalid("interface"))?;
    let texts = served.iter().map(|interface| (interface.name, interface.text));
    let text = texts.chain([(NAME, TEXT)]).find(|(name, _)| *name == wanted);
    let (_, text) = text.ok_or_else(|| error("InterfaceNotFound", "interface", wanted))?;
    Ok(json!({ "description": text }))
}

/// There is no such method, or not even its interface.
pub(super) fn not_found(served: &[&'static Interface], method: &str) -> RawError {
    let interface = method.rsplit_once('.').map_or("", |(interface, _)| interface);
    let known = interface == NAME || served.iter().any(|served| served.name == interface);
    match known {
        true => error("MethodNotFound", "method", method),
        false => error("InterfaceNotFound", "interface", interface),
    }
}

/// A parameter is missing, unknown or malformed.
pub(super) fn invalid(parameter: &str) -> RawError {
    error("InvalidParameter", "parameter", parameter)
}

/// Which parameter is wrong: by its path, or, if it is missing or unknown, as serde names it between
/// backquotes.
pub(super) fn parameter(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    match error.path().to_string() {
        path if path == "." => {
            let words = error.inner().to_string();
            words.split('`').nth(1).unwrap_or(&words).to_owned()
        }
        path => path,
    }
}

fn error(name: &str, key: &str, value: &str) -> RawError {
    RawError { error: format!("{NAME}.{name}"), parameters: Some(json!({ key: value })) }
}
