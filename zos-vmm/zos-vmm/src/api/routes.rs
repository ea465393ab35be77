//! From a method, a path and a body to what is wanted.
//!
//! | Wanted | Answer |
//! |---|---|
//! | a path that isn't there | 404 |
//! | the wrong method, a body where none belongs, none where one does, a body that is no JSON | 400 |
//! | what Cloud Hypervisor has and we don't yet | 501 |

use super::http::Head;
use super::message::{Refusal, Request, Resize};
use serde::de::DeserializeOwned;

/// What all paths begin with.
pub const ROOT: &str = "/api/v1/";

/// What Cloud Hypervisor has and we don't, each with what to do instead.
pub(super) const ABSENT: [(&str, &str); 18] = [
    ("vm.add-device", "devices are given at the start"),
    ("vm.add-disk", "disks are given at the start"),
    ("vm.add-fs", "shares are given at the start"),
    ("vm.add-generic-vhost-user", "devices are given at the start"),
    ("vm.add-net", "network interfaces are given at the start"),
    ("vm.add-pmem", "disks are given at the start"),
    ("vm.add-user-device", "devices are given at the start"),
    ("vm.add-vdpa", "devices are given at the start"),
    ("vm.add-vsock", "the vsock is given at the start"),
    ("vm.coredump", "take a core of the guest from inside"),
    ("vm.nmi", "press the power button, or reboot it"),
    ("vm.receive-migration", "a VM stays where it is"),
    ("vm.remove-device", "devices stay until the VM ends"),
    ("vm.resize-disk", "a disk keeps its size until the VM ends"),
    ("vm.resize-zone", "there are no zones: resize the balloon"),
    ("vm.restore", "there are no snapshots yet"),
    ("vm.send-migration", "a VM stays where it is"),
    ("vm.snapshot", "there are no snapshots yet"),
];

/// Tells what a client wants.
///
/// # Errors
/// Nothing that can be had, with its status.
pub fn route(head: &Head, body: &[u8]) -> Result<Request, Refusal> {
    let name = head.path.strip_prefix(ROOT).unwrap_or_default();
    let request = match name {
        "vmm.ping" => Request::Ping,
        "vmm.shutdown" => Request::End,
        "vm.create" => {
            return put(head, name).and_then(|()| Ok(Request::Create(json(name, body)?)));
        }
        "vm.resize" => return put(head, name).and_then(|()| resize(json(name, body)?)),
        "vm.delete" => Request::Delete,
        "vm.boot" => Request::Boot,
        "vm.info" => Request::Info,
        "vm.counters" => Request::Counters,
        "vm.pause" => Request::Pause,
        "vm.resume" => Request::Resume,
        "vm.shutdown" => Request::Shutdown,
        "vm.reboot" => Request::Reboot,
        "vm.power-button" => Request::PowerButton,
        _ => return Err(absent(name)),
    };
    match request {
        Request::Ping | Request::Info | Request::Counters => method(head, name, "GET")?,
        _ => put(head, name)?,
    }
    if !body.is_empty() {
        return Err(Refusal::new(400, format!("{name}: takes no body")));
    }
    Ok(request)
}

fn absent(name: &str) -> Refusal {
    match ABSENT.iter().find(|(absent, _)| *absent == name) {
        Some((_, advice)) => Refusal::new(501, format!("{name}: isn't there yet")).because(*advice),
        None => Refusal::new(404, "there is no such path").because(format!("see {ROOT}vmm.ping")),
    }
}

fn put(head: &Head, name: &str) -> Result<(), Refusal> {
    method(head, name, "PUT")
}

fn method(head: &Head, name: &str, method: &str) -> Result<(), Refusal> {
    if head.method == method {
        return Ok(());
    }
    Err(Refusal::new(400, format!("{name}: is asked for by {method}")))
}

fn json<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Err(Refusal::new(400, format!("{name}: needs a body of JSON")));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(400, format!("{name}: read the JSON")).because(error.to_string())
    })
}

fn resize(wish: Resize) -> Result<Request, Refusal> {
    if wish.desired_vcpus.is_some() || wish.desired_ram.is_some() {
        let refusal = Refusal::new(501, "vm.resize: CPUs and memory keep their size");
        return Err(refusal.because("start with more memory and a balloon: desired_balloon"));
    }
    if wish.desired_balloon.is_none() {
        return Err(Refusal::new(400, "vm.resize: give desired_balloon in bytes"));
    }
    Ok(Request::Resize(wish))
}
