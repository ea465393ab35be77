//! capacityd: what the machine has to give.
//!
//! ```text
//!  /proc, /sys ── measure ──▶ Inventory ──┐
//!                     └─────▶ faults      ├── capacity ──▶ Capacity ── offered ──▶ CU, SU
//!  storaged.Settle, ListPools ── pools ───┘
//! ```
//! It measures at each call and keeps nothing. What twins use is provisiond's to know. Absent on
//! purpose: benchmarks, any fact that only a timing shows.
#![forbid(unsafe_code)]

pub mod capacity;
pub mod inventory;

use std::sync::Arc;
use std::time::Duration;

use zos_api::local::capacity::{INTERFACE, Measure, Measured};
use zos_api::local::storage::{ListPools, Settle};
use zos_daemon::{Bus, Call, CallError, Daemon, FaultBoard, Metrics, Owner, Router, View};
use zos_host::SysRoot;
use zos_types::disk::Pool;
use zos_types::{Capacity, Fault, cloud};

pub use capacity::capacity;
pub use inventory::{Inventory, measure};

/// How long storaged may take over its pools, once the disks have settled.
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    run_on(daemon, SysRoot::host()).await
}

/// The same for the machine below a root path: for a simulated one.
pub async fn run_on(daemon: Daemon, root: SysRoot) -> anyhow::Result<()> {
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    let last = Owner::new(None::<Capacity>);
    count(&daemon.metrics, last.view());
    let last = Arc::new(last);
    let measured = move |_: Call, _: Measure| {
        let (bus, faults, root) = (bus.clone(), faults.clone(), root.clone());
        let last = Arc::clone(&last);
        async move {
            let pools = pools(&bus).await?;
            let measured = answer(&root, &pools, &faults);
            last.set(Some(measured.capacity));
            Ok(measured)
        }
    };
    daemon.serve(Router::new(&INTERFACE).on(measured)).await?;
    Ok(())
}

/// What was measured last, in threads, bytes and addresses.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes")]
fn count(metrics: &Metrics, last: View<Option<Capacity>>) {
    metrics.measure("capacity", "What the node has, as measured last", move || {
        let Some(capacity) = Option::clone(&last.now()) else { return Vec::new() };
        let Capacity { cru, mru, sru, hru, ipv4 } = capacity;
        let amounts = [("cru", cru), ("mru", mru), ("sru", sru), ("hru", hru), ("ipv4", ipv4)];
        let labels = |kind: &str| vec![("resource", kind.to_owned())];
        amounts.map(|(kind, amount)| (labels(kind), amount.total as f64)).to_vec()
    });
}

/// The pools, once the disks have settled: before that none is known, which is not the same as none.
async fn pools(bus: &Bus) -> Result<Vec<Pool>, CallError> {
    bus.call(Settle {}).await?;
    Ok(bus.within(PATIENCE).call(ListPools {}).await?.pools)
}

fn answer(root: &SysRoot, pools: &[Pool], faults: &FaultBoard) -> Measured {
    let (inventory, mut wrong) = measure(root);
    if pools.is_empty() {
        let detail = "no disk holds a pool: the node offers no storage, and so no compute units";
        wrong.push(Fault::new("capacity.no-pool", detail));
    }
    faults.replace("capacity.", wrong);
    let capacity = capacity(&inventory, pools);
    Measured {
        processor: inventory.processor,
        offered: cloud::offered(&capacity.offered()),
        capacity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_disk_and_on_an_unknown_machine_the_answer_has_the_same_shape() {
        let folder = tempfile::tempdir().unwrap();
        let faults = FaultBoard::default();
        let measured = answer(&SysRoot::at(folder.path()), &[], &faults);
        assert_eq!(measured.offered, cloud::CloudUnits::default());
        let ids: Vec<_> = faults.list().into_iter().map(|fault| fault.id).collect();
        assert_eq!(ids, ["capacity.cpus", "capacity.memory", "capacity.no-pool"]);
    }
}
