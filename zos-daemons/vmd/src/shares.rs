//! The shared folders of a VM: a server for each, which runs beside the VM, in its cgroup, and ends with it.
//!
//! ```text
//!  storaged.OpenShare ─▶ root of a mount that stands nowhere ─▶ Init.StartTransient `virtiofsd` ◀─ socket, listening
//!                                                                                                  │ connected
//!                                                     zos-vmm: `share-N` ◀─────────────────────────┘
//! ```
//! A server serves one connection: it ends with its VM, and a VM that lost one is started again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use zos_api::local::init::{Acknowledge, Limits, StartTransient, StopTransient};
use zos_api::local::storage::{CloseVolume, OpenShare};
use zos_daemon::{Bus, CallError};
use zos_types::deployment::{ShareOf, Vm};
use zos_types::{Fault, WorkloadName};
use zos_vmm_spec::Share;

use crate::effects::Passed;
use crate::notes::Key;
use crate::sockets::Socket;

/// Descriptors of a server cost about so much memory each, with the kernel's file, name and inode.
const FILE: u64 = 2048;
/// What a server takes beside them.
const SERVER: u64 = 24 << 20;
/// Slots for each VM: as many as it may have shares.
const PER_VM: u32 = 8;
/// How long an earlier server may take to be gone.
const GOING: Duration = Duration::from_secs(10);

/// `virtiofsd/<twin>/<deployment>.<workload>.<share>`: what PID 1 calls a server.
pub(crate) fn unit((twin, name): &Key, share: &ShareOf) -> String {
    format!("virtiofsd/{twin}/{}.{}", name.dotted(), share.share)
}

/// Whether PID 1's unit is a server's.
pub(crate) fn is_server(unit: &str) -> bool {
    unit.starts_with("virtiofsd/")
}

/// Starts the servers of a VM and connects to each. `limits` are the VM's, since they share a cgroup.
pub(crate) async fn start(
    bus: &Bus,
    key: &Key,
    slot: u32,
    vm: &Vm,
    folder: &Path,
    limits: Limits,
    passed: &mut Passed,
) -> Result<Vec<Share>, Fault> {
    let mut shares = Vec::new();
    for (i, share) in vm.shares.iter().enumerate() {
        let fault = |why: String| Fault::new("vm.share", format!("share {}: {why}", share.share));
        retire(bus, key, share).await.map_err(|e| fault(format!("end its old server: {e}")))?;
        let open = OpenShare { twin: key.0, name: volume(&key.1, share) };
        let opened = bus.call_with_fds(open, Vec::new()).await;
        let (_, mut fds) = opened.map_err(|e| fault(e.to_string()))?;
        let root = fds.pop().ok_or_else(|| fault("no descriptor came".to_owned()))?;
        let bound = Socket::Share.bind(folder);
        let listener = bound.map_err(|e| fault(format!("bind the socket of its server: {e}")))?;
        let path = Socket::Share.path(folder);
        let connected = std::os::unix::net::UnixStream::connect(&path);
        let connected = connected.map_err(|e| fault(format!("connect to its server: {e}")))?;
        // Nobody else is to come.
        fs::remove_file(&path).map_err(|e| fault(format!("unlink its server's socket: {e}")))?;
        let start = StartTransient {
            template: "virtiofsd".to_owned(),
            name: format!("{}.{}", key.1.dotted(), share.share),
            twin: key.0,
            slot: server_slot(slot, i),
            limits: Limits { file_size: None, files: Some(files(vm)), ..limits },
            args: Vec::new(),
            fds: vec!["socket".to_owned(), "folder".to_owned()],
        };
        let started = bus.call_with_fds(start, vec![listener.into(), root]).await;
        started.map_err(|e| fault(format!("start its server: {e}")))?;
        let source = passed.add(format!("share-{i}"), connected);
        shares.push(Share { tag: share.tag().to_owned(), source, queues: 1 });
    }
    Ok(shares)
}

/// Ends servers, and closes the shares that no VM has open any more.
pub(crate) async fn release<'a>(
    bus: &Bus,
    key: &Key,
    servers: impl Iterator<Item = &'a ShareOf>,
    is_kept: impl Fn(&ShareOf) -> bool,
) -> Result<(), CallError> {
    for share in servers {
        retire(bus, key, share).await?;
        if is_kept(share) {
            continue;
        }
        let close = CloseVolume { twin: key.0, name: volume(&key.1, share) };
        match bus.call(close).await {
            // Another VM has it, and will close it.
            Ok(_) | Err(CallError::NotFound { .. } | CallError::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sees to it that a server is gone and forgotten.
async fn retire(bus: &Bus, key: &Key, share: &ShareOf) -> Result<(), CallError> {
    let unit = unit(key, share);
    let gone = async {
        loop {
            match bus.call(Acknowledge { unit: unit.clone() }).await {
                Ok(_) | Err(CallError::NotFound { .. }) => return Ok(()),
                Err(CallError::Busy { .. } | CallError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
            match bus.call(StopTransient { unit: unit.clone(), grace_ms: 0 }).await {
                Ok(_) | Err(CallError::NotFound { .. } | CallError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let late = || CallError::busy(format!("{unit} does not end"));
    tokio::time::timeout(GOING, gone).await.map_err(|_| late())?
}

/// Each server has a user of its own, so each share of each VM has a slot of its own.
fn server_slot(slot: u32, share: usize) -> u32 {
    slot * PER_VM + u32::try_from(share).unwrap_or(0)
}

/// As many files as the server's part of the memory is enough for: past it the guest is told that there are
/// too many, where else all of the VM would go.
fn files(vm: &Vm) -> u64 {
    vm.share_charged().0.saturating_sub(SERVER) / FILE
}

fn volume(vm: &WorkloadName, share: &ShareOf) -> WorkloadName {
    WorkloadName { deployment: vm.deployment.clone(), workload: share.share.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::SLOTS;
    use zos_types::Bytes;
    use zos_types::deployment::MAX_DEVICES;

    #[test]
    fn every_server_has_a_slot_of_its_own_below_the_templates_number() {
        let slots = (0..SLOTS).flat_map(|vm| (0..MAX_DEVICES).map(move |i| server_slot(vm, i)));
        let slots: Vec<u32> = slots.collect();
        assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert_eq!((slots[0], slots.last()), (0, Some(&79_999)));
    }

    #[test]
    fn larger_guests_may_know_more_files() {
        let vm = |memory: u64| -> Vm {
            let mut vm: Vm = serde_json::from_value(serde_json::json!({
                "cpu": 1, "memory": "64MiB", "image": "builtin:hello",
            }))
            .unwrap();
            vm.memory = Bytes(memory);
            vm
        };
        assert_eq!([64 << 20, 256 << 20, 4 << 30].map(|m| files(&vm(m))), [13_312, 16_384, 77_824]);
    }
}
