//! What a farmer asks of a node, and is told: services, their logs, power, crashes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::local::init::{Action, Crash, UnitState, Usage};

/// The node's services (`GET /v1/services`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceList {
    /// In the order of their start.
    pub services: Vec<ServiceStatus>,
    /// How many programs run for twins. They are the twins' own: a farmer sees no more of them.
    pub transient: u64,
}

/// A service as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name: `storaged`.
    pub name: String,
    /// Its state.
    pub state: UnitState,
    /// Since when, by the node's clock.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How often it was started again.
    pub restarts: u64,
    /// How it ended the last time, in words.
    pub exit: Option<String>,
    /// What it waits for, or why it failed, in words.
    pub detail: String,
}

/// A service with what it uses (`GET /v1/services/{name}`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceDetail {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceStatus,
    /// What its processes use; none while it never ran.
    pub usage: Option<Usage>,
    /// Bytes of its log that the node holds.
    pub log_bytes: u64,
}

/// A service that is being started again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Restarting {
    /// Its name.
    pub name: String,
}

/// A line of `GET /v1/services/{name}/log`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LogRecord {
    /// A line of the service.
    Line(LogLine),
    /// Lines that are no longer there.
    Gap(LogGap),
}

/// A line that a service printed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its place: give it as `after` to go on behind it. Also over restarts of service, API and node.
    pub cursor: String,
    /// When it came, by the node's clock as it stands now.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// When it came: milliseconds since the kernel's start.
    pub time_ms: u64,
    /// Level of syslog(3): 0 the worst, 3 an error, 4 a warning, 6 for information, 7 for debugging.
    #[schema(maximum = 7)]
    pub level: u8,
    /// The line: an object in JSON with `msg` and fields, or plain text. What isn't UTF-8 is replaced.
    pub text: String,
}

/// Lines between two others that are no longer there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogGap {
    /// How many; what was lost with an earlier boot is not counted.
    pub missed: u64,
    /// The node booted since the line of `after`: what came behind it before that is lost, and the log begins
    /// anew.
    pub rebooted: bool,
}

/// What is to come after an ordered stop (`POST /v1/node/power`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// What.
    pub action: PowerAction,
}

/// How a node may be stopped from afar. It may not be halted: nothing would start it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Boot again.
    Reboot,
    /// Off.
    Poweroff,
    /// Start the kernel that was loaded, without the firmware.
    Kexec,
}

impl From<PowerAction> for Action {
    fn from(action: PowerAction) -> Self {
        match action {
            PowerAction::Reboot => Self::Reboot,
            PowerAction::Poweroff => Self::Poweroff,
            PowerAction::Kexec => Self::Kexec,
        }
    }
}

/// What kernels that died left (`GET /v1/node/crashes`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CrashList {
    /// Newest first.
    pub crashes: Vec<Crash>,
    /// Whether those of earlier boots are among them. Not while `storaged` is silent: then these are what this
    /// boot found in the machine's memory.
    pub earlier: bool,
}
