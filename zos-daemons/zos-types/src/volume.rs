//! What the node says of a volume beside its state.
//!
//! ```text
//!  volume ── condition: ready │ locked │ at-risk │ rebuilding │ broken
//!     ├ sealing: where its key's seal lies
//!     └ snapshots, each with the volume's full size
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deployment::{Class, Integrity, KeyHolder};
use crate::name::Name;
use crate::unit::Bytes;

/// How a volume does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// It works.
    Ready,
    /// It waits for its twin's key.
    Locked,
    /// It works, and its data has no second copy any more, or its disk fails.
    AtRisk,
    /// It works, and a second copy of its data is being made.
    Rebuilding,
    /// It can't be used.
    Broken,
}

/// How a volume does, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeCondition {
    /// How.
    pub state: VolumeState,
    /// Why, in words; empty when all is well.
    pub reason: String,
}

impl VolumeCondition {
    /// All is well.
    pub fn ready() -> Self {
        Self { state: VolumeState::Ready, reason: String::new() }
    }
}

/// What a key that the node holds is sealed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sealing {
    /// The machine's TPM: a disk alone, taken out, tells nothing.
    Tpm,
    /// A key that lies on the node's own disks: whoever has them all can read the volume.
    Beside,
}

/// A snapshot of a volume, as its twin sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotStatus {
    /// Its name.
    pub name: Name,
    /// The volume's size when it was taken; as much of the node is set aside for it.
    pub size: Bytes,
    /// When it was taken, by the node's clock.
    #[schema(value_type = String, format = DateTime)]
    pub taken: Timestamp,
    /// The pool that it lies on.
    pub pool: String,
}

/// A volume as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeStatus {
    /// Its size now; one that grows comes to the size that was asked for.
    pub size: Bytes,
    /// The class of pool it lies on.
    pub class: Class,
    /// What is done about bit rot.
    pub integrity: Integrity,
    /// Who holds its key.
    pub key: KeyHolder,
    /// What its key is sealed with.
    pub sealing: Sealing,
    /// The pools that it lies on: two with `integrity = "repair"`.
    pub pools: Vec<String>,
    /// Why it lies there, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub placed: String,
    /// Its snapshots, oldest first.
    #[serde(default)]
    pub snapshots: Vec<SnapshotStatus>,
    /// The snapshot that it is being set back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<Name>,
}
