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
use crate::unit::{Bytes, KIB, MIB};

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

/// What a volume, or a snapshot of one, takes of the pools that it lies on. All of it is set aside
/// from the begin, written or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// On how many disks.
    pub copies: u8,
    /// On each of them.
    pub each: Bytes,
}

impl Footprint {
    /// Beside the data: its key and record.
    const SIDES: u64 = 64 * KIB;

    /// Of a volume of this size.
    pub fn of(size: Bytes, integrity: Integrity) -> Self {
        let data = size.0.saturating_add(Self::SIDES);
        let detected = data.saturating_add(Self::tags(size).0);
        let (copies, each) = match integrity {
            Integrity::None => (1, data),
            Integrity::Detect => (1, detected),
            Integrity::Repair => (2, detected.saturating_add(Self::MIRROR.0)),
        };
        Self { copies, each: Bytes(each) }
    }

    /// What a mirror knows of one copy: its place in the mirror, what was written of late.
    pub const MIRROR: Bytes = Bytes(MIB);

    /// The checksums of a volume's blocks, 4 bytes for 4 KiB, and 4 MiB for what is being written.
    pub fn tags(size: Bytes) -> Bytes {
        Bytes((size.0 / 1024).next_multiple_of(MIB).saturating_add(4 * MIB))
    }

    /// On all disks together.
    pub fn total(self) -> Bytes {
        Bytes(self.each.0.saturating_mul(u64::from(self.copies)))
    }
}

/// What is known of a volume's key, without the key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeKey {
    /// Who holds it.
    pub holder: KeyHolder,
    /// With `twin`: what the key is derived with from the twin's own, 32 bytes in base64. It is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// With `twin`: whether a key was ever handed over. The first one is the volume's from then on.
    pub given: bool,
    /// Whether the volume waits for its key.
    pub locked: bool,
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
    /// Why it could not be set back, the last time that it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::GIB;

    #[test]
    fn what_a_volume_takes() {
        let check = |integrity, copies, beside| {
            let found = Footprint::of(Bytes(10 * GIB), integrity);
            assert_eq!(
                found,
                Footprint { copies, each: Bytes(10 * GIB + beside) },
                "{integrity:?}"
            );
        };
        check(Integrity::None, 1, 64 * KIB);
        check(Integrity::Detect, 1, 64 * KIB + 14 * MIB);
        check(Integrity::Repair, 2, 64 * KIB + 15 * MIB);
        let huge = Footprint::of(Bytes(u64::MAX), Integrity::Repair);
        assert_eq!(huge.total(), Bytes(u64::MAX));
        assert_eq!(Footprint::tags(Bytes(4096)), Bytes(5 * MIB));
    }
}
