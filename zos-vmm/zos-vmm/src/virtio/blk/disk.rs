//! What a disk stands on: a raw file or block device, and what that can do.
//!
//! | | file | block device |
//! |---|---|---|
//! | block size | 512, or what its direct I/O wants | the logical block |
//! | discard | hole by fallocate | `BLKDISCARD` |
//! | zeros, may unmap | hole | fallocate; where it can't unmap, zeros are written |
//! | zeros, mapped | zero range; a hole where the file system has none | fallocate, writes zeros |
//!
//! It is asked without changing anything: a hole behind a file's end, an empty discard.

use super::ioctl;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, OFlags, SeekFrom, StatxFlags, fallocate, fcntl_getfl, fstat,
    ioctl_blkpbszget, ioctl_blksszget, seek, statx,
};
use std::fs::File;
use std::io;

/// What virtio counts in.
pub(super) const SECTOR: u64 = 512;
/// What a file's blocks are, for guests that choose their own by it.
const FILE_BLOCK: u32 = 4096;

/// A disk's backing. Threads share it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) readonly: bool,
    /// A whole number of blocks.
    pub(super) sectors: u64,
    pub(super) serial: [u8; 20],
    pub(super) is_device: bool,
    /// Opened with `O_DIRECT`: what addresses in memory must be multiples of. Places and lengths
    /// must be whole blocks then.
    pub(super) direct: Option<usize>,
    pub(super) can_discard: bool,
    pub(super) can_zero: bool,
    pub(super) shape: Shape,
}

/// Sizes that a guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a logical block.
    pub(super) block: u32,
    /// Bytes of a physical block.
    pub(super) physical: u32,
    /// Smallest good transfer in bytes.
    pub(super) least: u32,
    /// Best transfer in bytes, or 0.
    pub(super) best: u32,
}

/// A range of bytes that loses its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Ways to clear a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clear {
    /// `BLKDISCARD`: what it reads as is the device's affair.
    Discard,
    /// A hole: zeros that take no room.
    Hole,
    /// Zeros that may take room.
    Zeros,
}

impl Disk {
    /// Takes a file or block device as it was opened: who may only read has a read-only disk.
    ///
    /// # Errors
    /// It doesn't tell what it is.
    pub(super) fn new(file: File, readonly: bool, serial: [u8; 20]) -> io::Result<Self> {
        let flags = fcntl_getfl(&file)?;
        let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
        let is_device = kind == FileType::BlockDevice;
        let mut readonly = readonly || flags & OFlags::ACCMODE == OFlags::RDONLY;
        readonly |= is_device && ioctl::is_readonly(&file)?;
        let is_direct = flags.contains(OFlags::DIRECT);
        let (shape, direct) =
            if is_device { device_shape(&file)? } else { file_shape(&file, is_direct) };
        // Seeking tells the size of files and block devices alike; nobody uses the offset.
        let bytes = seek(&file, SeekFrom::End(0))?;
        let sectors = bytes / u64::from(shape.block) * (u64::from(shape.block) / SECTOR);
        let can_discard = !readonly
            && match is_device {
                true => ioctl::discard(&file, 0, 0) != Err(rustix::io::Errno::OPNOTSUPP),
                false => clear_file(&file, Clear::Hole, Range { offset: bytes, bytes: 1 }).is_ok(),
            };
        let can_zero = !readonly && (is_device || can_discard);
        let direct = is_direct.then_some(direct);
        Ok(Self {
            file,
            readonly,
            sectors,
            serial,
            is_device,
            direct,
            can_discard,
            can_zero,
            shape,
        })
    }

    /// Clears a range in one of the ways.
    pub(super) fn clear(&self, how: Clear, range: Range) -> io::Result<()> {
        clear_file(&self.file, how, range)
    }

    /// How a discard is done.
    pub(super) fn discard(&self) -> Clear {
        if self.is_device { Clear::Discard } else { Clear::Hole }
    }

    /// What to try when a way isn't supported.
    pub(super) fn instead_of(&self, how: Clear, discard: bool) -> Option<Clear> {
        match how {
            Clear::Hole if self.is_device && !discard => Some(Clear::Zeros),
            Clear::Zeros if !self.is_device => Some(Clear::Hole),
            _ => None,
        }
    }
}

impl Clear {
    /// The mode for `fallocate(2)`; none for what isn't done by it.
    pub(super) fn mode(self) -> Option<FallocateFlags> {
        match self {
            Clear::Discard => None,
            Clear::Hole => Some(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
            Clear::Zeros => Some(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
        }
    }
}

fn clear_file(file: &File, how: Clear, range: Range) -> io::Result<()> {
    let Range { offset, bytes } = range;
    match how.mode() {
        Some(mode) => fallocate(file, mode, offset, bytes),
        None => ioctl::discard(file, offset, bytes),
    }?;
    Ok(())
}

fn device_shape(file: &File) -> io::Result<(Shape, usize)> {
    let block = ioctl_blksszget(file)?.max(512);
    let physical = ioctl_blkpbszget(file)?.max(block);
    let (least, best) = ioctl::io_sizes(file)?;
    let shape = Shape { block, physical, least: least.max(physical), best };
    // What the device's memory access wants is never more than a block.
    Ok((shape, usize::try_from(block).unwrap_or(4096)))
}

fn file_shape(file: &File, is_direct: bool) -> (Shape, usize) {
    let asked = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let told = asked.ok().filter(|told| {
        told.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && told.stx_dio_offset_align > 0
    });
    let (block, memory) = match told {
        Some(told) => (told.stx_dio_offset_align.max(512), told.stx_dio_mem_align),
        // A file system that doesn't tell: no disk has larger sectors.
        None => (FILE_BLOCK, FILE_BLOCK),
    };
    let block = if is_direct { block } else { 512 };
    let shape = Shape { block, physical: FILE_BLOCK.max(block), least: FILE_BLOCK, best: 0 };
    (shape, usize::try_from(memory).unwrap_or(4096).max(1))
}
