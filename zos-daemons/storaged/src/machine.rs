//! What the keeper's jobs are done with: the port between its decisions and the machine.
//!
//! ```text
//!  Life ── jobs ──▶ Machine ──┬─ Node    disks, btrfs, mounts, device-mapper
//!                             └─ others  a simulated node: folders
//! ```
//! All but `watch` may wait for disks, and runs apart from the daemon's one thread.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use zos_host::block::Disk;
use zos_types::NodeId;

use crate::adopt::contents::Contents;
use crate::care::{self, port::Hands};
use crate::disk::header::{Header, Stage};
use crate::disk::judge::{self, Verdict};
use crate::disk::marks::{self, Marks};
use crate::disk::read::Reader;
use crate::keeper::Event;
use crate::pool::{self, Plan, Pool, PoolError};
use crate::volume::{Crypt, Devices};
use crate::{Places, life, state};

/// A watch over disks; it ends only with an error.
pub type Watching = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A machine with disks.
pub trait Machine: std::fmt::Debug + Send + Sync + 'static {
    /// Tells of the disks that are here, and of those that come and go.
    fn watch(&self, news: mpsc::Sender<Event>) -> Watching;
    /// Judges a disk: by its ends, or completely.
    fn judge(&self, disk: &Disk, completely: bool) -> Verdict;
    /// Looks what lies where on a disk, for people.
    fn marks(&self, disk: &Disk) -> Marks;
    /// Makes a pool on a disk that is still empty, and opens it.
    fn adopt(&self, disk: &Disk, plan: &Plan) -> Result<Pool, PoolError>;
    /// Opens a pool that is ready.
    fn open(&self, disk: &Disk, header: &Header) -> Result<Pool, PoolError>;
    /// Gives a pool an owner; durable when it returns.
    fn own(&self, disk: &Disk, header: &Header, owner: NodeId) -> Result<Header, PoolError>;
    /// Looks at all that the farmer should know of a disk; the disk is as it is now.
    fn look(&self, disk: &Disk) -> Result<(Disk, Contents), PoolError>;
    /// Makes a pool over what is on a disk, if it is as in the plan of this hash, and opens it.
    fn take(&self, disk: &Disk, plan: &Plan, word: &str) -> Result<Pool, PoolError>;
    /// Writes how far a pool is; durable when it returns.
    fn set_stage(&self, disk: &Disk, header: &Header, stage: Stage) -> Result<Header, PoolError>;
    /// Lets go of an empty pool and wipes its disk. `told` hears how far it is, in percent.
    fn wipe(&self, disk: &Disk, header: &Header, told: &dyn Fn(u8)) -> Result<Header, PoolError>;
    /// Writes a pool's header anew; durable when it returns.
    fn inscribe(&self, disk: &Disk, header: &Header) -> Result<Header, PoolError>;
    /// Shows another copy of the state at one of its places, in place of what is there.
    fn show(&self, pool: &Pool, place: usize) -> zos_host::Result<()>;
    /// Shows nothing at one of the state's places any more.
    fn hide(&self, place: usize) -> zos_host::Result<()>;
    /// Lets go of a pool whose disk is gone.
    fn close(&self, pool: &str);
    /// Shows the state of a pool (none: memory) at its place.
    fn prepare(&self, pool: Option<&Pool>) -> zos_host::Result<()>;
    /// What volumes are made of.
    fn devices(&self) -> Arc<dyn Devices>;
    /// What disks and pools are cared for with.
    fn hands(&self) -> Arc<dyn Hands>;
    /// Whether disks may turn up late, so that a boot waits for them; a simulated machine's don't.
    fn waits(&self) -> bool;
}

/// The node that this program runs on.
#[derive(Debug)]
pub struct Node(pub Places);

impl Machine for Node {
    fn watch(&self, news: mpsc::Sender<Event>) -> Watching {
        let places = self.0.clone();
        let watch = tokio::task::spawn_blocking(move || life::watch_disks(&places, &news));
        Box::pin(async move { watch.await? })
    }

    fn judge(&self, disk: &Disk, completely: bool) -> Verdict {
        match Reader::open(&disk.path(), disk.size) {
            Ok(reader) if completely => {
                judge::examine(&reader, disk.logical_block, pool::progress(disk))
            }
            Ok(reader) => judge::probe(&reader, disk.logical_block),
            Err(error) => Verdict::Unreadable(error.to_string()),
        }
    }

    fn marks(&self, disk: &Disk) -> Marks {
        // The kernel may have learnt of partitions since the disk came.
        let now = zos_host::block::disk(&self.0.root, disk.name.clone());
        let partitions = now.map_or_else(|| disk.partitions.clone(), |now| now.partitions);
        let looked = Reader::open(&disk.path(), disk.size)
            .and_then(|reader| marks::look(&reader, &partitions));
        looked.unwrap_or_else(|error| {
            let whole = vec![format!("unreadable: {error}")];
            let partitions = partitions.into_iter().map(|at| (at, Vec::new())).collect();
            Marks { whole, partitions }
        })
    }

    fn adopt(&self, disk: &Disk, plan: &Plan) -> Result<Pool, PoolError> {
        pool::adopt(disk, plan, &self.0)
    }

    fn open(&self, disk: &Disk, header: &Header) -> Result<Pool, PoolError> {
        pool::open(disk, header, &self.0)
    }

    fn own(&self, disk: &Disk, header: &Header, owner: NodeId) -> Result<Header, PoolError> {
        pool::own(disk, header, owner)
    }

    fn look(&self, disk: &Disk) -> Result<(Disk, Contents), PoolError> {
        pool::look(disk, &self.0)
    }

    fn take(&self, disk: &Disk, plan: &Plan, word: &str) -> Result<Pool, PoolError> {
        pool::take(disk, plan, word, &self.0)
    }

    fn set_stage(&self, disk: &Disk, header: &Header, stage: Stage) -> Result<Header, PoolError> {
        pool::set_stage(disk, header, stage)
    }

    fn wipe(&self, disk: &Disk, header: &Header, told: &dyn Fn(u8)) -> Result<Header, PoolError> {
        pool::release(disk, header, &self.0, told)
    }

    fn inscribe(&self, disk: &Disk, header: &Header) -> Result<Header, PoolError> {
        pool::inscribe(disk, header)
    }

    fn show(&self, pool: &Pool, place: usize) -> zos_host::Result<()> {
        state::show(pool, place, &self.0)
    }

    fn hide(&self, place: usize) -> zos_host::Result<()> {
        state::hide(place, &self.0)
    }

    fn close(&self, pool: &str) {
        let root = self.0.pools.join(pool);
        let _ = zos_host::mount::unmount(root, zos_host::mount::UnmountFlags::DETACH);
    }

    fn prepare(&self, pool: Option<&Pool>) -> zos_host::Result<()> {
        state::prepare(pool, &self.0)
    }

    fn devices(&self) -> Arc<dyn Devices> {
        Arc::new(Crypt)
    }

    fn hands(&self) -> Arc<dyn Hands> {
        Arc::new(care::hands::Node(self.0.clone()))
    }

    fn waits(&self) -> bool {
        true
    }
}
