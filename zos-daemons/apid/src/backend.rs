//! What the API asks of the rest of the node, port by port.
//!
//! Behind them stand the other daemons ([`crate::bus`]), or a node in memory (`crate::fake`).

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;
use zos_api::local::CallError;
use zos_api::local::capacity::Measured;
use zos_api::local::identity::PublicSealingKey;
use zos_api::local::init::{Action, Boot, Crash, LogEntries, Unit, UnitDetail};
use zos_api::local::provision::{
    Delete, DeleteSnapshot, Deleted, Get, List, ListSnapshots, Put, PutReply, RestoreSnapshot,
    TakeSnapshot, Taken, UsageReply,
};
use zos_api::local::storage::{DescribeKey, UnlockVolume};
use zos_api::local::vm::ReadLog;
pub use zos_api::node::disks::DiskChange;
use zos_types::Fault;
use zos_types::disk::{Disk, DiskPlan, Pool};
use zos_types::machine::Network;
use zos_types::status::DeploymentStatus;
use zos_types::volume::{SnapshotStatus, VolumeKey};

/// A call under way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A call under way that may fail.
pub type Answer<'a, T> = Pending<'a, Result<T, CallError>>;
/// A VM's console as it comes; ends when the sender goes.
pub type LogStream = mpsc::Receiver<Result<Piece, CallError>>;
/// A service's log as it comes; ends when the sender goes.
pub type LineStream = mpsc::Receiver<Result<LogEntries, CallError>>;

/// A piece of a VM's console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Bytes ever written before it.
    pub from: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// The machine.
pub trait Machine: Send + Sync + 'static {
    /// How the node is. It answers in bounded time, whatever the other daemons do.
    fn about(&self) -> Pending<'_, About>;
    /// What the node has, and what twins hold of it.
    fn capacity(&self) -> Answer<'_, (Measured, UsageReply)>;
    /// An ordered stop. Answers when it is noted.
    fn shut_down(&self, action: Action) -> Answer<'_, ()>;
    /// What kernels that died left.
    fn crashes(&self) -> Answer<'_, CrashReport>;
    /// What every part counts. It answers in bounded time, whatever the other daemons do.
    fn counts(&self) -> Pending<'_, Counts>;
}

/// The node's services, which are the farmer's.
pub trait Services: Send + Sync + 'static {
    /// Every unit, those of twins too.
    fn units(&self) -> Answer<'_, Vec<Unit>>;
    /// One unit.
    fn describe(&self, name: String) -> Answer<'_, UnitDetail>;
    /// Stops a service and starts it again. Answers when it is noted.
    fn restart(&self, name: String) -> Answer<'_, ()>;
    /// A service's log after a cursor; with `follow` also what comes.
    fn read_lines(&self, name: String, after: u64, follow: bool) -> Answer<'_, LineStream>;
}

/// The node's disks, which are the farmer's.
pub trait Disks: Send + Sync + 'static {
    /// Every disk.
    fn disks(&self) -> Answer<'_, Vec<Disk>>;
    /// Every pool.
    fn pools(&self) -> Answer<'_, Vec<Pool>>;
    /// Begins a scrub.
    fn scrub(&self, pool: String) -> Answer<'_, ()>;
    /// What a change would do to a disk.
    fn plan(&self, disk: String, change: DiskChange) -> Answer<'_, DiskPlan>;
    /// Carries out a plan by its hash. Answers when a disk is adopted, or when its release is noted.
    fn confirm(&self, disk: String, change: DiskChange, plan: String) -> Answer<'_, ()>;
}

/// Twins' deployments.
pub trait Deployments: Send + Sync + 'static {
    /// Takes a deployment.
    fn put(&self, put: Put) -> Answer<'_, PutReply>;
    /// One deployment.
    fn get(&self, get: Get) -> Answer<'_, DeploymentStatus>;
    /// A twin's deployments.
    fn list(&self, list: List) -> Answer<'_, Vec<DeploymentStatus>>;
    /// Takes a deployment away.
    fn delete(&self, delete: Delete) -> Answer<'_, Deleted>;
    /// A VM's console.
    fn read_log(&self, read: ReadLog) -> Answer<'_, LogStream>;
}

/// Snapshots of twins' volumes.
pub trait Snapshots: Send + Sync + 'static {
    /// Keeps a volume as it is now.
    fn take(&self, take: TakeSnapshot) -> Answer<'_, Taken>;
    /// A volume's snapshots.
    fn list_of(&self, list: ListSnapshots) -> Answer<'_, Vec<SnapshotStatus>>;
    /// Destroys a snapshot.
    fn destroy(&self, delete: DeleteSnapshot) -> Answer<'_, ()>;
    /// Sets a volume back to a snapshot. Answers when it is noted.
    fn restore(&self, restore: RestoreSnapshot) -> Answer<'_, SnapshotStatus>;
}

/// Keys of volumes that twins hold.
pub trait Keys: Send + Sync + 'static {
    /// The key that twins seal to.
    fn sealing_key(&self) -> Answer<'_, PublicSealingKey>;
    /// What is known of a volume's key.
    fn describe(&self, describe: DescribeKey) -> Answer<'_, VolumeKey>;
    /// Opens a volume with a key.
    fn unlock(&self, unlock: UnlockVolume) -> Answer<'_, ()>;
}

/// How the node is, as far as its parts answered; one that did not is among the faults.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The boot, by PID 1.
    pub boot: Option<Boot>,
    /// The units, by PID 1.
    pub units: Vec<Unit>,
    /// The network.
    pub network: Option<Network>,
    /// Every part's faults.
    pub faults: Vec<Fault>,
}

/// What kernels that died left.
#[derive(Clone, Debug, Default)]
pub struct CrashReport {
    /// Newest first.
    pub crashes: Vec<Crash>,
    /// Whether those of earlier boots are among them.
    pub earlier: bool,
}

/// What every part counts, as far as it answered.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The boot, by PID 1.
    pub boot: Option<Boot>,
    /// The units, by PID 1; none if it did not answer.
    pub units: Option<Vec<Unit>>,
    /// The services with what they use, by name.
    pub details: BTreeMap<String, UnitDetail>,
    /// The other daemons: what each counts, as OpenMetrics text.
    pub daemons: BTreeMap<String, Result<String, CallError>>,
}
