//! `org.zos.Storage`: disks, the state's place, pools and volumes.

use serde::{Deserialize, Serialize};
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::disk::{Disk, Pool};
use zos_types::{Bytes, Name, NodeId, TwinId, WorkloadName};

use super::init::Crashes;
use super::{Change, Done, interface};

interface! {
    /// Disks, the state's place, pools and volumes.
    "Storage" on "/run/zos/storage.sock";
    /// Waits until the disks have settled, and tells where the state lies.
    Settle [Identity Capacity Provision Vm Net Api Console] -> Settled;
    /// Tells storaged who the node is, once identityd knows. Pools without an owner get this one;
    /// a pool that turns up later with another owner is a conflict.
    SetIdentity [Identity] (
        /// The node.
        node: NodeId,
        /// Whether it is lost with the next boot; such an owner is written nowhere.
        ephemeral: bool,
    ) -> Done;
    /// Every disk, with what it is to the node and why.
    ListDisks [Capacity Api Console] -> Disks;
    /// Every pool.
    ListPools [Capacity Provision Api Console] -> Pools;
    /// Makes a volume, or finds it made; durable when answered.
    CreateVolume [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which workload it is.
        name: WorkloadName,
        /// Its size.
        size: Bytes,
        /// The class of pool that it is to lie on.
        class: Class,
        /// What is done about bit rot.
        integrity: Integrity,
        /// Who holds its key.
        key: KeyHolder,
        /// What it is to hold.
        holds: Content,
    ) -> VolumeChange;
    /// Every volume.
    ListVolumes [Provision Vm Api] -> Volumes;
    /// Makes a volume's plain block device and passes a descriptor of it (fd 0 beside the reply),
    /// open for reading and writing.
    OpenVolume [Vm] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> Volume;
    /// Mounts a share's file system nowhere in the node's tree, and passes a descriptor of that mount's root (fd 0
    /// beside the reply). Each caller gets a mount of its own; the file system is the same one.
    OpenShare [Vm] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> Volume;
    /// Takes the block device away again, once its user has gone. `Busy` while it is in use.
    CloseVolume [Vm Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> Done;
    /// Destroys a volume, its key first. Done also when there is none.
    DeleteVolume [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> Done;
    /// What kernels that died left, of this boot and of earlier ones as far as the state disk keeps them, newest
    /// first.
    ListCrashes [Api] -> Crashes;
}

/// Where the node's state lies, and what the disks know of the node's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// The state's folder: `/state`. Each daemon owns `/state/<noun>`.
    pub path: String,
    /// Whether it outlives this boot. If not it lies in memory.
    pub durable: bool,
    /// Why no new identity may be made and kept: a disk shows a trace of ours, or can't be read, and
    /// the farmer did not say `zos.identity=new`. None: one may. If the state holds no key and this
    /// says why not, the identity is ephemeral.
    pub identity_refusal: Option<String>,
}

/// Every disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disks {
    /// By name.
    pub disks: Vec<Disk>,
}

/// Every pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pools {
    /// By id.
    pub pools: Vec<Pool>,
}

/// Every volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volumes {
    /// By twin and name.
    pub volumes: Vec<Volume>,
}

/// A volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Whose it is.
    pub twin: TwinId,
    /// Which workload it is.
    pub name: WorkloadName,
    /// Its size.
    pub size: Bytes,
    /// The class of pool that it lies on.
    pub class: Class,
    /// The pool.
    pub pool: String,
    /// What it holds.
    pub holds: Content,
}

/// A volume, and whether it is new.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeChange {
    /// Whether anything changed.
    pub change: Change,
    /// The volume.
    pub volume: Volume,
}

/// The serial number by which a guest finds a volume: its workload's name, at most 20 bytes as
/// virtio has it (virtio 1.2, section 5.2.6.1).
pub fn serial(name: &Name) -> String {
    name.as_str().chars().take(20).collect()
}
