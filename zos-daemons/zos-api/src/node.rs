//! What the node API answers where it is more than one of the node's own words.

pub mod disks;
pub mod farmer;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zos_types::status::DeploymentStatus;
use zos_types::volume::SnapshotStatus;
use zos_types::{Capacity, CloudUnits};

use crate::local::Change;

/// The port of the node API.
pub const PORT: u16 = 8443;

/// What the machine has, what of it twins hold, and the cloud units that it offers
/// (`GET /v1/capacity`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeCapacity {
    /// The processor's model, in words.
    pub processor: String,
    /// Resource by resource.
    pub capacity: Capacity,
    /// The cloud units that the whole node offers, in thousandths.
    pub offered: CloudUnits,
    /// How many deployments it holds.
    pub deployments: u64,
    /// How many VMs are to run on it.
    pub vms: u64,
}

/// What became of a `PUT`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// What changed; with `dry_run`, what would.
    pub change: Change,
    /// Whether it was judged only.
    pub dry_run: bool,
    /// What the deployment uses, in thousandths of cloud units.
    pub used: CloudUnits,
    /// The deployment.
    pub status: DeploymentStatus,
}

/// A twin's deployments on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentList {
    /// By name.
    pub deployments: Vec<DeploymentStatus>,
}

/// A volume's snapshots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// Oldest first.
    pub snapshots: Vec<SnapshotStatus>,
}

/// A deployment that is no longer wanted; its workloads go down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// The version that the next deployment of this name must carry.
    pub next_version: u64,
}

/// A volume's key, handed over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyHandover {
    /// HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305) to the node's sealing
    /// key: encapsulated key and ciphertext of the 64 bytes, in base64. `info` is `zos:handover:v1`, the additional
    /// data `zos:volume-key:<node>:<twin>/<deployment>/<workload>`.
    pub sealed: String,
}

impl std::fmt::Debug for KeyHandover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHandover(..)")
    }
}
