//! `org.zos.Init`: PID 1. Served by `zos-init` without a runtime; these are the daemons' types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zos_types::machine::TimeQuality;
use zos_types::{Fault, TwinId};

use super::{Done, interface};

interface! {
    /// PID 1.
    "Init" on "/run/zos/init.sock";
    /// The boot: image, reason, settings, phases, faults.
    Describe [Storage Identity Net Capacity Vm Provision Api Console] -> Boot;
    /// Every service and transient unit.
    ListUnits [Vm Api Console] -> Units;
    /// The same as a stream: a snapshot first, then again at each change.
    WatchUnits [Vm Console] -> Units;
    /// Starts a program from a template as a child of PID 1; descriptors go beside the call, named
    /// by `fds` in their order.
    StartTransient [Vm] (
        /// `vm`.
        template: String,
        /// `<deployment>.<workload>`; the unit is `vm/<twin>/<name>`.
        name: String,
        /// Whose it is; weight and limits hold per twin first.
        twin: TwinId,
        /// A number of its own below 10,000; its user is 20,000 more.
        slot: u32,
        /// Enforced by its cgroup.
        limits: Limits,
        /// Arguments that the template leaves open.
        args: Vec<String>,
        /// The descriptors' names.
        fds: Vec<String>,
    ) -> Done;
    /// SIGTERM now, and the whole cgroup is killed after the grace. Returns at once.
    StopTransient [Vm] (
        /// The unit's name in `Unit::name`.
        unit: String,
        /// In milliseconds; 0 kills at once.
        grace_ms: u64,
    ) -> Done;
    /// Forgets an exited transient unit.
    Acknowledge [Vm] (
        /// The unit's name in `Unit::name`.
        unit: String,
    ) -> Done;
    /// An ordered stop of the machine. Returns at once.
    Shutdown [Api] (
        /// What comes after it.
        action: Action,
    ) -> Done;
}

/// The boot as PID 1 knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    /// Version of ZOS.
    pub version: String,
    /// SHA-256 of the image's manifest, in hex.
    pub image: String,
    /// Why the machine booted.
    pub boot_reason: String,
    /// How far its clock is to be believed.
    pub time_quality: TimeQuality,
    /// The `zos.` keys of kernel command line and `zos.conf`, without their prefix.
    pub settings: BTreeMap<String, String>,
    /// The phases in their order.
    pub phases: Vec<Phase>,
    /// What PID 1 found wrong.
    pub faults: Vec<Fault>,
}

/// A phase of the boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it ended: milliseconds of `CLOCK_BOOTTIME`.
    pub millis: u64,
}

/// Every unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Units {
    /// Services in their order, then transient units.
    pub units: Vec<Unit>,
}

/// A service, or a program started from a template.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unit {
    /// `storaged`; `vm/<twin>/<deployment>.<workload>`.
    pub name: String,
    /// What kind it is.
    pub kind: UnitKind,
    /// Its state.
    pub state: UnitState,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Since when: milliseconds of `CLOCK_BOOTTIME`.
    pub since_ms: u64,
    /// How it ended the last time.
    pub exit: Option<Exit>,
    /// In words: what it waits for, why it failed.
    pub detail: String,
}

/// What kind a unit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// From the image's unit files.
    Service,
    /// From a template.
    Transient,
}

/// The state of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// For others to be ready.
    Waiting,
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Told to stop.
    Stopping,
    /// Ended, and not to run again.
    Exited,
    /// Ended, and to be started again in a while.
    Backoff,
    /// Given up.
    Failed,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// By itself, with a code.
    pub code: Option<i32>,
    /// By a signal.
    pub signal: Option<i32>,
    /// Whether its cgroup ran out of memory.
    pub oom: bool,
}

/// What a cgroup enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Weight of CPU time, 1 to 10,000; 100 is the kernel's default.
    pub cpu_weight: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// What comes after an ordered stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Off.
    Poweroff,
    /// Boot again.
    Reboot,
    /// Stop, and stay.
    Halt,
}
