//! Asking the other daemons, each with a bound of its own.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use zos_api::local::init::{self, ListUnits, UnitKind, UnitState};
use zos_api::local::service::{Faults, ListFaults};
use zos_api::local::{CallError, INTERFACES, capacity, identity, net, provision, vm};
use zos_daemon::{Bus, Settings};
use zos_types::Fault;
use zos_types::machine::Service;
use zos_types::status::State;

use crate::view::View;

const BOUND: Duration = Duration::from_secs(1);

/// The view as it is now.
pub(crate) async fn view(bus: &Bus, settings: &Settings) -> View {
    let (boot, units, identity, network) = tokio::join!(
        ask(bus.call(init::Describe {})),
        ask(bus.call(ListUnits {})),
        ask(bus.call(identity::Describe {})),
        ask(bus.call(net::Describe {})),
    );
    let (measured, usage, vms) = tokio::join!(
        ask(bus.call(capacity::Measure {})),
        ask(bus.call(provision::Usage {})),
        ask(bus.call(vm::List {})),
    );
    let services: Vec<Service> = units
        .into_iter()
        .flat_map(|units| units.units)
        .filter(|unit| unit.kind == UnitKind::Service)
        .map(|unit| Service {
            name: unit.name,
            state: word(unit.state).to_owned(),
            restarts: unit.restarts,
        })
        .collect();
    let mut faults = boot.as_ref().map(|boot| boot.faults.clone()).unwrap_or_default();
    faults.extend(all_faults(bus).await);
    faults.sort();
    faults.dedup();
    View {
        version: boot.as_ref().map(|boot| boot.version.clone()).unwrap_or_default(),
        farm: settings.get("farm").map(ToOwned::to_owned),
        identity: identity.map(|identity| (identity.node, identity.ephemeral)),
        uptime: uptime(),
        network,
        measured,
        used: usage.map(|usage| usage.resources),
        vms: vms.map(|vms| {
            let running = vms.vms.iter().filter(|vm| vm.state == State::Running).count();
            (running, vms.vms.len())
        }),
        services,
        faults,
    }
}

/// The faults of every daemon that answers. One that doesn't shows among the services.
async fn all_faults(bus: &Bus) -> Vec<Fault> {
    let mut faults = Vec::new();
    let asked = |socket: &str| !socket.is_empty() && socket != init::INTERFACE.socket;
    for interface in INTERFACES.iter().filter(|interface| asked(interface.socket)) {
        if let Some(Faults { faults: some }) =
            ask(bus.call_on(interface.socket, ListFaults {})).await
        {
            faults.extend(some);
        }
    }
    faults
}

async fn ask<T>(answer: impl Future<Output = Result<T, CallError>>) -> Option<T> {
    match timeout(BOUND, answer).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!("{error}");
            None
        }
        Err(_) => None,
    }
}

/// Seconds since the kernel started, as /proc/uptime has it (proc(5)).
fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

fn word(state: UnitState) -> &'static str {
    match state {
        UnitState::Waiting => "waiting",
        UnitState::Starting => "starting",
        UnitState::Running => "running",
        UnitState::Stopping => "stopping",
        UnitState::Exited => "exited",
        UnitState::Backoff => "restarting",
        UnitState::Failed => "failed",
    }
}
