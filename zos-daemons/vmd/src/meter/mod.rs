//! What VMs take of the node, for its farmer: from their cgroups, and from what their VMMs tell.
//!
//! ```text
//!  Host ── which run ──▶ Meter, every 15 s ─┬─ cgroup: CPU time, memory      the kernel's word
//!                                           └─ GET vm.counters: the rest     the VMM's, 2 s at most
//!                              │
//!                              ▼
//!                   readings by slot ──▶ zos_vmd_vm_*{vm="<slot>"}
//! ```
//! A farmer doesn't look into twins' deployments: a VM is told by its slot, neither by its twin nor by
//! its name.

mod ask;
mod known;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zos_daemon::{Metrics, Owner, View};
use zos_host::cgroup::{Cgroup, Usage};
use zos_types::deployment::Vm;

pub use self::known::Told;

/// How often VMs are read.
const EVERY: Duration = Duration::from_secs(15);
/// How many VMMs are asked at once.
const AT_ONCE: usize = 16;

/// A VM that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// What it is told by.
    pub slot: u32,
    /// `<twin>/<deployment>.<workload>`: its cgroup below the tenants'.
    pub group: String,
    /// Where its sockets lie.
    pub sockets: PathBuf,
    /// What it is, and so which devices its VMM may tell of.
    pub vm: Vm,
}

/// What was read of a VM.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reading {
    /// What its cgroup counts; none: there is no such thing.
    pub usage: Option<Usage>,
    /// What its VMM told; none: it did not answer in time, or not in its words.
    pub told: Option<Told>,
}

/// Readings by slot.
pub type Readings = BTreeMap<u32, Reading>;

/// Reads the VMs again and again, until nobody owns them.
pub async fn run(cgroups: PathBuf, live: View<Vec<Live>>, readings: Owner<Readings>) {
    loop {
        readings.put(read(&cgroups, &live.now()).await);
        tokio::time::sleep(EVERY).await;
    }
}

/// Reads VMs, some at a time.
pub async fn read(cgroups: &std::path::Path, live: &[Live]) -> Readings {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut reading = JoinSet::new();
    for vm in live.iter().cloned() {
        let (turns, group) = (turns.clone(), Cgroup::at(cgroups.join(&vm.group)));
        reading.spawn(async move {
            let _turn = turns.acquire().await;
            let told = match ask::counters(&vm.sockets).await {
                Ok(counters) => Some(Told::from_counters(&counters, &vm.vm)),
                Err(error) => {
                    tracing::debug!("the VMM of slot {} does not tell: {error:#}", vm.slot);
                    None
                }
            };
            (vm.slot, Reading { usage: group.usage(), told })
        });
    }
    reading.join_all().await.into_iter().collect()
}

/// Shows readings as the daemon's metrics.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub fn show(metrics: &Metrics, readings: &View<Readings>) {
    let told = readings.clone();
    let cpu = |reading: &Reading| reading.usage.map(|usage| usage.cpu_usec as f64 / 1e6);
    let name = "vm_cpu_seconds";
    metrics.count(name, "CPU time of a VM, its devices included", move || each(&told, cpu));
    let told = readings.clone();
    let memory = |reading: &Reading| reading.usage.map(|usage| usage.memory as f64);
    metrics.measure("vm_memory_bytes", "Memory that a VM has taken", move || each(&told, memory));
    let told = readings.clone();
    let answers = |reading: &Reading| Some(f64::from(u8::from(reading.told.is_some())));
    metrics.measure("vm_tells", "Whether a VM's process tells what follows", move || {
        each(&told, answers)
    });
    known::show(metrics, readings);
}

fn each(
    readings: &View<Readings>,
    value: impl Fn(&Reading) -> Option<f64>,
) -> Vec<(zos_daemon::Labels, f64)> {
    let one =
        |(slot, reading): (&u32, &Reading)| Some((vec![("vm", slot.to_string())], value(reading)?));
    readings.now().iter().filter_map(one).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
