//! `org.zos.Storage`: disks, the state's place, pools and volumes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::disk::{Disk, Pool};
use zos_types::volume::{Sealing, VolumeCondition, VolumeKey};
use zos_types::{Bytes, Name, NodeId, Origin, TwinId, WorkloadName};

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
    /// What adopting a disk would do, and what would be lost. `Conflict` tells why it can't be adopted.
    PlanAdoption [Api] (
        /// The kernel's name or the stable id.
        disk: String,
    ) -> zos_types::disk::DiskPlan;
    /// Wipes a disk and makes it a pool; answered when the pool is there. `Conflict`: the disk is no longer as in the
    /// plan, and nothing was written.
    AdoptDisk [Api] (
        /// The kernel's name or the stable id.
        disk: String,
        /// The plan's hash.
        plan: String,
    ) -> Done;
    /// What releasing a disk would do. `Conflict` tells why it can't be released.
    PlanRelease [Api] (
        /// The kernel's name or the stable id.
        disk: String,
    ) -> zos_types::disk::DiskPlan;
    /// Empties a pool and wipes its disk, so that it can be taken out; answered when the word is durable. The disk's
    /// reason tells how far it is.
    ReleaseDisk [Api] (
        /// The kernel's name or the stable id.
        disk: String,
        /// The plan's hash.
        plan: String,
    ) -> Done;
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
        /// What it is a copy of: a volume of the same twin, or a snapshot of one. It lies where that lies.
        from: Option<Origin>,
        /// What is in it.
        holds: Content,
    ) -> VolumeChange;
    /// Makes a volume larger, open or not; durable when answered. A smaller size is `Invalid`.
    GrowVolume [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
        /// The size that it is to have.
        size: Bytes,
    ) -> VolumeChange;
    /// Keeps a volume as it is now, open or not; durable when answered. `Conflict` when the name is taken.
    TakeSnapshot [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// The snapshot's name.
        snapshot: Name,
    ) -> Snapshot;
    /// Snapshots, oldest first.
    ListSnapshots [Provision Api] (
        /// Of this twin only.
        twin: Option<TwinId>,
    ) -> Snapshots;
    /// Forgets a snapshot. Done also when there is none.
    DeleteSnapshot [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// The snapshot.
        snapshot: Name,
    ) -> Done;
    /// Makes a volume again what it was; what was written since is lost. `Busy` while it is open.
    RestoreSnapshot [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// The volume.
        name: WorkloadName,
        /// The snapshot.
        snapshot: Name,
    ) -> Done;
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
    /// What is known of a volume's key.
    DescribeKey [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> VolumeKey;
    /// Opens a volume with the key that its twin hands over; the first one is the volume's from then on. Durable when
    /// answered. `Invalid` when it can't be opened, or is no key; `Conflict` when it is another than the volume's.
    UnlockVolume [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
        /// Sealed to identityd's present key for this volume, in base64.
        sealed: String,
    ) -> Done;
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
    /// Looks through all that has checksums in a pool, once no other pool is being looked through. `ListPools` tells
    /// how far it is and what it found.
    ScrubPool [Api] (
        /// The pool's id.
        pool: String,
    ) -> Done;
    /// What kernels that died left, of this boot and of earlier ones as far as the state disk keeps them, newest
    /// first.
    ListCrashes [Api] -> Crashes;
    /// Where the copies of the node's state lie: once the state has its place, then again at each change.
    WatchState [Identity Net Provision] -> StateCopies;
    /// A copy failed: when this is answered, it is noted durably in the others that they go on without it. Refused
    /// when no other is left.
    LoseState [Identity Net Provision] (
        /// The copy's pool.
        pool: String,
        /// Which coming of that pool.
        coming: String,
        /// What failed, in words.
        reason: String,
    ) -> Done;
    /// The caller's part of a copy that is being filled is whole, and gets each of its writes from now on.
    JoinState [Identity Net Provision] (
        /// The copy's pool.
        pool: String,
        /// Which coming of that pool.
        coming: String,
    ) -> Done;
}

/// The copies of the node's state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StateCopies {
    /// Whether they outlive this boot.
    pub durable: bool,
    /// One, or two. What is acknowledged is in each that is current.
    pub copies: Vec<StateCopy>,
}

/// A copy of the node's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateCopy {
    /// Its pool; empty in memory.
    pub pool: String,
    /// Names this coming of the pool: when it goes and comes again, it is another.
    pub coming: String,
    /// Its folder; each daemon owns the folder of its noun there.
    pub path: String,
    /// Whether it holds all that was acknowledged; else it is being filled.
    pub current: bool,
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
    /// The pool; of two the first.
    pub pool: String,
    /// Every pool that it lies on: two with `integrity = repair`.
    pub pools: Vec<String>,
    /// Why it lies there, in words.
    pub placed: String,
    /// What is done about bit rot.
    pub integrity: Integrity,
    /// Who holds its key.
    pub key: KeyHolder,
    /// What a key that the node holds is sealed with.
    pub sealing: Sealing,
    /// What is in it.
    pub holds: Content,
    /// How it does.
    pub condition: VolumeCondition,
}

impl Volume {
    /// A volume of the simplest kind on one pool: no care for bit rot, the node holds its key.
    pub fn new(twin: TwinId, name: WorkloadName, size: Bytes, class: Class, pool: &str) -> Self {
        Self {
            twin,
            name,
            size,
            class,
            pool: pool.to_owned(),
            pools: vec![pool.to_owned()],
            placed: String::new(),
            integrity: Integrity::None,
            key: KeyHolder::Node,
            sealing: Sealing::Beside,
            holds: Content::Disk,
            condition: VolumeCondition::ready(),
        }
    }
}

/// A volume as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose it is.
    pub twin: TwinId,
    /// The volume.
    pub volume: WorkloadName,
    /// Its own name, one of this volume.
    pub name: Name,
    /// The volume's size then; as much is set aside for it.
    pub size: Bytes,
    /// The class of pool that it lies on: the volume's.
    pub class: Class,
    /// The pool; of two the first.
    pub pool: String,
    /// When it was taken.
    pub taken: Timestamp,
}

/// Snapshots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshots {
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
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
