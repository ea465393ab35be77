//! What the node says of its disks and pools.
//!
//! ```text
//!  disk   what the device says (id, model, transport, health) and what was found on it
//!    └ role: empty │ ours │ foreign │ other-node │ failing │ boot-medium │ leaving
//!        └ pool: what it can hold, what is free of it, how it is cared for
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deployment::Class;
use crate::unit::Bytes;

/// What a disk is to the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nothing is on it; it may be adopted.
    Empty,
    /// It holds a pool of this node.
    Ours,
    /// It holds somebody's data; it is left alone.
    Foreign,
    /// It holds a pool of another node identity; it is left alone.
    OtherNode,
    /// It can't be read.
    Failing,
    /// The node was booted from it.
    BootMedium,
    /// It holds a pool of this node that is being emptied, so that the disk can be taken out.
    Leaving,
}

/// How a disk is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// NVM Express.
    Nvme,
    /// SATA or PATA.
    Sata,
    /// SAS, or another SCSI bus.
    Sas,
    /// USB.
    Usb,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// SD card or eMMC.
    Mmc,
    /// Unknown.
    Other,
}

/// What a disk's own watch over itself (SMART, the NVMe health log) comes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The disk doesn't say.
    Unknown,
    /// Nothing is wrong.
    Good,
    /// It works, and wears out or has had errors.
    Warning,
    /// It says that it fails, or it does.
    Failing,
}

/// A disk's health.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in words; empty when nothing is wrong.
    pub reasons: Vec<String>,
    /// Degrees Celsius.
    pub temperature: Option<i16>,
    /// Hours under power.
    pub hours: Option<u64>,
    /// Percent of its life that was used up, as the device counts; may pass 100.
    pub used: Option<u16>,
    /// Blocks that it could not read and gave up.
    pub media_errors: Option<u64>,
    /// Whether its motor stands still, to save power.
    pub standby: bool,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Its size.
    pub size: Bytes,
    /// Its name in the table, if it has one.
    pub label: Option<String>,
    /// What was found in it: `ext2/3/4`, `LUKS`.
    pub holds: Vec<String>,
}

/// A disk. Serial numbers are for the farmer, not for the public part of the API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// The kernel's name in this boot: `nvme0n1`.
    pub name: String,
    /// Its stable id over boots and slots: the world-wide id, else model and serial number, else the slot.
    pub id: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// How it is attached.
    pub transport: Transport,
    /// Its size.
    pub size: Bytes,
    /// The smallest unit that can be addressed, in bytes.
    pub logical_block: u32,
    /// The unit in which the device writes, in bytes.
    pub physical_block: u32,
    /// Whether it rotates, by what the device says.
    pub class: Class,
    /// Its health, once it was asked.
    pub health: Option<Health>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// What was found on it: file systems, tables, volume managers.
    pub signatures: Vec<String>,
    /// What it is to the node.
    pub role: Role,
    /// Why: what was found on it, or what it waits for.
    pub reason: String,
    /// The pool on it, if it is one of this node.
    pub pool: Option<String>,
}

/// What adopting or releasing a disk would do. The farmer's word names it by its hash, and holds for nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskPlan {
    /// The disk as it is now.
    pub disk: Disk,
    /// What is done, step by step.
    pub does: Vec<String>,
    /// What is lost by it; empty: nothing.
    pub loses: Vec<String>,
    /// Over all that the plan rests on: 32 hexadecimal digits.
    pub hash: String,
}

/// How a pool does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolState {
    /// It takes volumes.
    Ready,
    /// Its disk fails or had errors: it takes no new volumes, and those on it are moved where there is room.
    AtRisk,
    /// Its file system has no room left for itself: it takes no new volumes until it has.
    Full,
    /// The farmer takes its disk out: it takes no new volumes, and is emptied.
    Leaving,
}

/// The last look through all that has checksums in a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Scrub {
    /// When it began, by the node's clock.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// When it ended; none: it goes on, or was cut short and goes on later.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// What was read.
    pub read: Bytes,
    /// Errors that were found and repaired from a second copy.
    pub repaired: u64,
    /// Errors that could not be repaired.
    pub unrepaired: u64,
}

/// A pool: one btrfs on one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its id, also in the file system's label `zos-<id>`.
    pub id: String,
    /// The disk it lies on.
    pub disk: String,
    /// The class of the disk.
    pub class: Class,
    /// What it can hold.
    pub size: Bytes,
    /// What may still be given to volumes.
    pub free: Bytes,
    /// Whether the node's state lies on it.
    pub state: bool,
    /// How it does.
    pub condition: PoolState,
    /// Why, in words; empty when nothing is wrong.
    pub reasons: Vec<String>,
    /// The last scrub, once there was one.
    pub scrub: Option<Scrub>,
}
