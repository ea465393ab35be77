//! What the node says of itself: links, services, faults.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::NodeId;

/// Something wrong with the machine or its surroundings that somebody should know of. It stays
/// until it is healed. A rejection is told to the caller instead, an error is tried again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// A stable name, `<part>.<what>[:<object>]`: `storage.foreign-disk:sda`.
    pub id: String,
    /// What is wrong, and what to do, in words.
    pub detail: String,
}

impl Fault {
    /// A fault by name and words.
    pub fn new(id: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { id: id.into(), detail: detail.into() }
    }
}

/// A wired network interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// The kernel's name in this boot: `eth0`.
    pub name: String,
    /// The hardware address.
    pub mac: String,
    /// Whether a cable with somebody at its other end is plugged in.
    pub carrier: bool,
    /// Its addresses with their prefix length: `192.0.2.7/24`.
    pub addresses: Vec<String>,
    /// What it does or waits for: `dhcp: bound`, `no cable`.
    pub detail: String,
}

/// The node's network as a whole.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// The wired interfaces.
    pub links: Vec<Link>,
    /// The way out.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// The name servers.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
}

/// A service of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name: `storaged`.
    pub name: String,
    /// Its state: `running`.
    pub state: String,
    /// How often it was started again.
    pub restarts: u64,
}

/// How far the node's clock is to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimeQuality {
    /// It can't be right.
    Unsure,
    /// As the machine's clock says, which nobody checked.
    Rtc,
    /// Compared with others on the network.
    Synced,
}

/// Why the machine booted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootReason {
    /// It was switched on, after an orderly end or for the first time.
    Cold,
    /// It was told to.
    Reboot,
    /// By the kernel that ran before, without the firmware.
    Kexec,
    /// A watchdog fired.
    Watchdog,
    /// The kernel died; its last words are kept.
    Panic,
    /// It was switched on, and the run before never ended.
    PowerLoss,
    /// The memory was kept, and the run before neither ended nor died: a reset button, or a watchdog that doesn't
    /// tell.
    Reset,
    /// Nothing tells: no memory was kept, and no disk with our state is there.
    #[default]
    Unknown,
}

impl std::fmt::Display for BootReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Cold => "cold",
            Self::Reboot => "reboot",
            Self::Kexec => "kexec",
            Self::Watchdog => "watchdog",
            Self::Panic => "panic",
            Self::PowerLoss => "power loss",
            Self::Reset => "reset",
            Self::Unknown => "unknown",
        })
    }
}

/// A watchdog of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Watchdog {
    /// What its driver calls it: `i6300ESB timer`.
    pub identity: String,
    /// Seconds without food after which it fires.
    pub timeout: u32,
    /// False: the kernel's own timer, which a kernel that hangs takes along.
    pub hardware: bool,
}

/// Who and how the node is (`GET /v1/node`). Public: it holds no serial number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Whether the id is lost with the next boot, since no disk keeps it.
    pub ephemeral: bool,
    /// Whom signed requests must be for: `<node id>/<epoch>`.
    pub audience: String,
    /// The farm that it was booted for.
    pub farm: Option<String>,
    /// The version of ZOS.
    pub version: String,
    /// SHA-256 of the image's manifest, in hex.
    pub image: String,
    /// Why it booted.
    pub boot_reason: BootReason,
    /// The watchdog that boots it again when it hangs.
    pub watchdog: Option<Watchdog>,
    /// The node's clock (RFC 3339).
    pub time: String,
    /// How far the clock is to be believed.
    pub time_quality: TimeQuality,
    /// Seconds since the kernel started.
    pub uptime: u64,
    /// Milliseconds from the kernel's start to the end of each phase of the boot.
    pub phases: BTreeMap<String, u64>,
    /// The network.
    pub network: Network,
    /// The services.
    pub services: Vec<Service>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}
