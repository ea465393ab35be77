//! What a farmer asks about disks and pools, and is told.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zos_types::disk::{Disk, Pool};

/// The node's disks (`GET /v1/disks`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskList {
    /// By name.
    pub disks: Vec<Disk>,
}

/// The node's pools (`GET /v1/pools`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// By id.
    pub pools: Vec<Pool>,
}

/// The farmer's word (`POST /v1/disks/{disk}/adopt` and `/release`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The hash of the plan that he read.
    pub plan: String,
}

/// What is to become of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskChange {
    /// It becomes a pool of the node.
    Adopt,
    /// It is emptied and wiped.
    Release,
}
