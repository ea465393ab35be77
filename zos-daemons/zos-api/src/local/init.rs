//! `org.zos.Init`: PID 1. Served by `zos-init` without a runtime; these are the daemons' types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zos_types::machine::{BootReason, TimeQuality, Watchdog};
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
    /// One unit, with what its cgroup counts.
    DescribeUnit [Api] (
        /// The unit's name in `Unit::name`.
        unit: String,
    ) -> UnitDetail;
    /// Starts a service that is stopped or has failed; its crash budget is new.
    StartUnit [] (
        /// The service.
        unit: String,
    ) -> Done;
    /// Stops a service, until it is started. Returns at once.
    StopUnit [] (
        /// The service.
        unit: String,
    ) -> Done;
    /// Stops a service and starts it again; one that has failed is started. Returns at once.
    RestartUnit [Api] (
        /// The service.
        unit: String,
    ) -> Done;
    /// Sends a signal to every process of a unit.
    KillUnit [] (
        /// The unit's name in `Unit::name`.
        unit: String,
        /// `TERM`, `KILL`, `HUP` ...
        signal: String,
    ) -> Done;
    /// What a unit printed, as far as PID 1 still holds it, oldest first. As a stream it goes on with what
    /// comes.
    ReadLog [Api] (
        /// The unit's name in `Unit::name`.
        unit: String,
        /// Only what comes after this cursor; 0 for all.
        after: u64,
    ) -> LogEntries;
    /// What happened to units, as a stream: what PID 1 still remembers after the sequence number, then each as it
    /// comes.
    WatchEvents [Vm Api] (
        /// Only what comes after this sequence number; 0 for all.
        after: u64,
    ) -> Events;
    /// Reads the unit files again: new units start, those that are gone stop, changed ones follow at their next
    /// start.
    Reload [] -> Reloaded;
    /// Starts a program from a template as a child of PID 1; descriptors go beside the call, named
    /// by `fds` in their order.
    StartTransient [Vm] (
        /// `vm`.
        template: String,
        /// `<deployment>.<workload>`; the unit is `vm/<twin>/<name>`. With a third part behind it runs in that
        /// workload's cgroup, and ends with it.
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
    /// An ordered stop of the machine. Returns at once. `kexec` is refused while no kernel is loaded.
    Shutdown [Api] (
        /// What comes after it.
        action: Action,
    ) -> Done;
    /// How the run before this one ended, by the record on the state disk: a cold start after a run that
    /// never said its end was a loss of power.
    SetLastEnd [Storage] (
        /// None: it never said.
        end: Option<Action>,
    ) -> Done;
    /// What kernels that died left in pstore, found at this boot.
    ListCrashes [Storage Api] -> Crashes;
}

/// The boot as PID 1 knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    /// Version of ZOS.
    pub version: String,
    /// SHA-256 of the image's manifest, in hex.
    pub image: String,
    /// Why the machine booted.
    pub boot_reason: BootReason,
    /// The node is going down, to this end.
    pub ending: Option<Action>,
    /// The watchdog that reboots the machine when PID 1 hangs.
    pub watchdog: Option<Watchdog>,
    /// How far its clock is to be believed.
    pub time_quality: TimeQuality,
    /// The `zos.` keys of kernel command line and `zos.conf`, without their prefix.
    pub settings: BTreeMap<String, String>,
    /// The phases in their order.
    pub phases: Vec<Phase>,
    /// What PID 1 found wrong.
    pub faults: Vec<Fault>,
}

/// What a kernel that died left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Crash {
    /// Its name in pstore: `dmesg-ramoops-0`.
    pub name: String,
    /// The last lines of the kernel log.
    pub text: String,
}

/// What kernels that died left.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Crashes {
    /// By name.
    pub crashes: Vec<Crash>,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// For others to be ready.
    Waiting,
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// A oneshot that succeeded.
    Done,
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

/// A unit with what its cgroup counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnitDetail {
    /// The unit.
    pub unit: Unit,
    /// Of its cgroup; none while it never ran.
    pub usage: Option<Usage>,
    /// Bytes of log that PID 1 holds of it.
    pub log_bytes: u64,
}

/// What a cgroup counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Bytes of memory now.
    pub memory: u64,
    /// The most it ever had, bytes.
    pub memory_peak: u64,
    /// Microseconds of CPU time.
    pub cpu_usec: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// Lines of a unit's log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogEntries {
    /// Oldest first.
    pub entries: Vec<LogEntry>,
    /// Lines between the asked cursor and the first entry that are no longer held.
    pub missed: u64,
}

/// A line of a unit's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogEntry {
    /// Number of the line in this unit's log, from 1, over all its starts.
    pub cursor: u64,
    /// When it came: milliseconds of `CLOCK_BOOTTIME`.
    pub time_ms: u64,
    /// Level of syslog(3), 0 to 7.
    pub level: u8,
    /// The line; what isn't UTF-8 is replaced.
    pub text: String,
}

/// What happened to units.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Events between the asked number and the first one that are no longer remembered.
    pub missed: u64,
}

/// Something that happened to a unit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// From 1, without gaps.
    pub sequence: u64,
    /// When: milliseconds of `CLOCK_BOOTTIME`.
    pub time_ms: u64,
    /// The unit's name in `Unit::name`.
    pub unit: String,
    /// The state that it came to.
    pub state: UnitState,
    /// How its process ended, when it did just now.
    pub exit: Option<Exit>,
    /// In words.
    pub detail: String,
}

/// What reading the unit files again changed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// Units that are new or changed.
    pub changed: Vec<String>,
    /// Units that are gone.
    pub removed: Vec<String>,
    /// What is wrong with files; their units stay as they were.
    pub problems: Vec<String>,
}

/// What a cgroup enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Weight of CPU time, 1 to 10,000; 100 is the kernel's default.
    pub cpu_weight: Option<u64>,
    /// Percent of one CPU: 150 is one and a half.
    pub cpu_quota: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of the longest file that it may write; a file of memory is one.
    pub file_size: Option<u64>,
    /// Descriptors that it may have open; the template's number is the most.
    pub files: Option<u64>,
}

/// What comes after an ordered stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Off.
    Poweroff,
    /// Boot again.
    Reboot,
    /// Stop, and stay.
    Halt,
    /// Start the kernel that was loaded (kexec_file_load(2)).
    Kexec,
}
