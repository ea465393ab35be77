//! virtio-blk (virtio 1.2, 5.2) over a raw file or block device.
//!
//! ```text
//!  chain = [ type u32 | reserved u32 | sector u64 | data out ... ][ data in ... | status u8 ]
//!
//!  Blk ── Disk: what the file can do ── profile: what the guest is told
//!   └── a Part for each queue, with a thread and an Engine of its own; they share Disk, Limiter and
//!       Counters
//! ```
//!
//! Data goes straight between the disk and the guest's memory.

mod barrier;
mod bounce;
mod disk;
mod engine;
mod ioctl;
mod part;
mod request;

use super::{Backend, ConfigSpace, Counters, F_RING, Profile};
use crate::jail::Kind;
use crate::memory::MemoryError;
use crate::rate::Limiter;
use bounce::Bounce;
use disk::Disk;
use engine::{Blocking, Engine, Uring};
use part::Part;
use request::{DISCARD_SECTORS, SEGMENTS, ZERO_SECTORS};
use std::fs::File;
use std::io;
use std::sync::Arc;
use zos_vmm_spec::IoEngine;

const KIND: u16 = 2;
const CLASS: u32 = 0x01_8000;
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const QUEUE: u16 = 256;
/// Bytes of `struct virtio_blk_config` up to `unused1`.
const CONFIG_BYTES: usize = 60;
/// Largest buffer of a request that a driver should use; larger ones are done too.
const SIZE_MAX: u32 = 1 << 20;

/// Counters by their indices.
mod count {
    pub(super) const NAMES: &[&str] = &[
        "read_bytes",
        "read_ops",
        "write_bytes",
        "write_ops",
        "flushes",
        "discards",
        "write_zeroes",
        "failed",
        "throttled",
        "io_uring",
    ];
    pub(super) const READ_BYTES: usize = 0;
    pub(super) const READ_OPS: usize = 1;
    pub(super) const WRITE_BYTES: usize = 2;
    pub(super) const WRITE_OPS: usize = 3;
    pub(super) const FLUSHES: usize = 4;
    pub(super) const DISCARDS: usize = 5;
    pub(super) const WRITE_ZEROES: usize = 6;
    pub(super) const FAILED: usize = 7;
    pub(super) const THROTTLED: usize = 8;
    /// 1: the disk is read and written by io_uring.
    pub(super) const IO_URING: usize = 9;
}

/// How a disk is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Refuse writes, whatever the file allows.
    pub readonly: bool,
    /// What the guest reads as serial number.
    pub serial: [u8; 20],
    /// Queues, 1 to 16.
    pub queues: u16,
    /// How it is read and written.
    pub engine: IoEngine,
    /// How much may go through.
    pub limiter: Limiter,
}

/// A disk of the guest.
#[derive(Debug)]
pub struct Blk {
    disk: Arc<Disk>,
    counters: Counters,
    parts: Vec<Part>,
    kind: Kind,
    fallback: Option<io::Error>,
}

/// Why a file can't be a disk.
#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    /// The file doesn't tell what it is.
    #[error("look at a disk's file")]
    Look(#[source] io::Error),
    /// io_uring was asked for.
    #[error("io_uring isn't to be had (`io`: \"auto\" or \"sync\" go without)")]
    Uring(#[source] io::Error),
    /// Memory for direct I/O.
    #[error("make a disk's aligned buffer")]
    Bounce(#[from] MemoryError),
}

impl Blk {
    /// A disk over this file; its size is what the file has now, in whole blocks. Rings are made
    /// and restricted here, before the guest runs and threads enter their filters.
    ///
    /// # Errors
    /// The file doesn't tell what it is, or the engine can't be had.
    pub fn new(file: File, options: &Options) -> Result<Self, BlkError> {
        let disk = Disk::new(file, options.readonly, options.serial).map_err(BlkError::Look)?;
        let (disk, queues) = (Arc::new(disk), usize::from(options.queues));
        let rings = match options.engine {
            IoEngine::Sync => None,
            _ => {
                Some((0..queues).map(|_| Uring::new(disk.clone())).collect::<io::Result<Vec<_>>>())
            }
        };
        let (rings, fallback) = match rings {
            Some(Err(error)) if options.engine == IoEngine::Uring => {
                return Err(BlkError::Uring(error));
            }
            Some(Err(error)) => (None, Some(error)),
            Some(Ok(rings)) => (Some(rings), None),
            None => (None, None),
        };
        let kind = if rings.is_some() { Kind::Uring } else { Kind::Blk };
        let counters = Counters::new(count::NAMES);
        counters.set(count::IO_URING, rings.is_some().into());
        let engines: Vec<Box<dyn Engine>> = match rings {
            Some(rings) => rings.into_iter().map(|ring| Box::new(ring) as _).collect(),
            None => (0..queues).map(|_| Box::new(Blocking::new(disk.clone())) as _).collect(),
        };
        let part = |engine| {
            let bounce = disk.direct.map(|_| Bounce::new()).transpose()?;
            let (disk, limiter) = (disk.clone(), options.limiter.clone());
            Ok(Part { disk, engine, limiter, counters: counters.clone(), bounce, active: None })
        };
        let parts = engines.into_iter().map(part).collect::<Result<_, MemoryError>>()?;
        Ok(Self { disk, counters, parts, kind, fallback })
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let feature = |there: bool, bit: u64| if there { bit } else { 0 };
        let always = F_RING | F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
        Profile {
            kind: KIND,
            class: CLASS,
            features: always
                | feature(self.disk.readonly, F_RO)
                | feature(self.parts.len() > 1, F_MQ)
                | feature(self.disk.can_discard, F_DISCARD)
                | feature(self.disk.can_zero, F_WRITE_ZEROES),
            queues: vec![QUEUE; self.parts.len()],
            config: ConfigSpace::new(self.config()),
            counters: self.counters.clone(),
        }
    }

    /// `struct virtio_blk_config` (virtio 1.2, 5.2.4).
    fn config(&self) -> Vec<u8> {
        let disk = &self.disk;
        let mut config = vec![0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        let blocks = |bytes: u32| bytes / disk.shape.block;
        let sectors_of_block = disk.shape.block / 512;
        let queues = u16::try_from(self.parts.len()).unwrap_or(1);
        let physical = u8::try_from(blocks(disk.shape.physical).max(1).ilog2()).unwrap_or(0);
        let segments = u32::try_from(SEGMENTS).unwrap_or(1);
        put(0, &disk.sectors.to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &u32::from(QUEUE - 2).to_le_bytes());
        put(20, &disk.shape.block.to_le_bytes());
        put(24, &[physical, 0]);
        put(26, &u16::try_from(blocks(disk.shape.least)).unwrap_or(u16::MAX).to_le_bytes());
        put(28, &blocks(disk.shape.best).to_le_bytes());
        put(34, &queues.to_le_bytes());
        if disk.can_discard {
            put(36, &DISCARD_SECTORS.to_le_bytes());
            put(40, &segments.to_le_bytes());
            put(44, &sectors_of_block.to_le_bytes());
        }
        if disk.can_zero {
            put(48, &ZERO_SECTORS.to_le_bytes());
            put(52, &segments.to_le_bytes());
            put(56, &[1]);
        }
        config
    }

    /// The kind of its threads.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Why it goes without io_uring though it was to have it if it can be had.
    #[must_use]
    pub fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }

    /// Its queues' parts, a queue each.
    #[must_use]
    pub fn into_parts(self) -> Vec<(usize, Box<dyn Backend>)> {
        self.parts.into_iter().map(|part| (1, Box::new(part) as _)).collect()
    }
}

#[cfg(test)]
mod tests;
