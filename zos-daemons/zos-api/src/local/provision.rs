//! `org.zos.Provision`: deployments, from a twin's signed wish to what runs.

use serde::{Deserialize, Serialize};
use zos_types::capacity::Resources;
use zos_types::status::DeploymentStatus;
use zos_types::volume::SnapshotStatus;
use zos_types::{CloudUnits, Name, TwinId, WorkloadName};

use super::{Change, Done, interface};

interface! {
    /// Deployments.
    "Provision" on "/run/zos/provision.sock";
    /// Takes a deployment: durable when answered, unless it is a dry run. `Invalid` names fields
    /// and rules, `Full` names what there is too little of, `Conflict` names the next version.
    Put [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Its name.
        name: Name,
        /// The request's body, exactly as signed, in base64.
        body: String,
        /// The twin's signature over it.
        evidence: Evidence,
        /// Whether to judge only.
        dry_run: bool,
    ) -> PutReply;
    /// One deployment. `Conflict`, with its next version, tells that there was one; `NotFound`
    /// that there never was.
    Get [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Its name.
        name: Name,
    ) -> DeploymentStatus;
    /// A twin's deployments.
    List [Api] (
        /// Whose.
        twin: TwinId,
    ) -> Deployments;
    /// Takes a deployment away; durable when answered, and its workloads go down after it.
    Delete [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Its name.
        name: Name,
        /// The twin's signature over it.
        evidence: Evidence,
    ) -> Deleted;
    /// Keeps a volume as it is now; durable when answered. Unchanged when there is a snapshot of this name.
    /// `Full` when there is no room for it, or when the volume has as many as it may.
    TakeSnapshot [Api] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// What the snapshot is to be called.
        snapshot: Name,
    ) -> Taken;
    /// A volume's snapshots.
    ListSnapshots [Api] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
    ) -> Snapshots;
    /// Destroys a snapshot; durable when answered. `Conflict` while something is made from it.
    DeleteSnapshot [Api] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// The snapshot.
        snapshot: Name,
    ) -> Done;
    /// Sets a volume back to a snapshot. Durable when answered, and done after it: the VM that has the
    /// volume is stopped, and started again when it is done.
    RestoreSnapshot [Api] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// The snapshot.
        snapshot: Name,
        /// The twin's signature over it.
        evidence: Evidence,
    ) -> SnapshotStatus;
    /// What all twins together hold.
    Usage [Capacity Api Console] -> UsageReply;
}

/// What proves a twin's wish: kept beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// The signature base of the request (RFC 9421, section 2.5).
    pub base: String,
    /// The Ed25519 signature over it, in base64.
    pub signature: String,
}

/// What became of a `Put`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutReply {
    /// Whether anything changed, or would.
    pub change: Change,
    /// The deployment.
    pub status: DeploymentStatus,
    /// What it uses, in cloud units.
    pub used: CloudUnits,
}

/// A twin's deployments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployments {
    /// By name.
    pub deployments: Vec<DeploymentStatus>,
}

/// A deployment that is no longer wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// The version that a next one under this name must carry.
    pub next_version: u64,
}

/// A snapshot, and whether it is new.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// Whether anything changed.
    pub change: Change,
    /// The snapshot.
    pub snapshot: SnapshotStatus,
}

/// A volume's snapshots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshots {
    /// Oldest first.
    pub snapshots: Vec<SnapshotStatus>,
}

/// What all twins together hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsageReply {
    /// In resources.
    pub resources: Resources,
    /// How many deployments.
    pub deployments: u64,
    /// How many VMs are to run.
    pub vms: u64,
}
