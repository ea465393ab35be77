//! btrfs: looking through what has checksums, piece by piece (linux/btrfs.h, `BTRFS_IOC_SCRUB`).

use std::fs::File;
use std::os::fd::AsFd;

use crate::error::{Context, Result};
use crate::sys::{self, Plain};

const SCRUB: u32 = 0xc400_941b;

/// `struct btrfs_ioctl_scrub_args`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    device: u64,
    start: u64,
    end: u64,
    flags: u64,
    progress: Progress,
    unused: [u64; 109],
}

/// `struct btrfs_scrub_progress`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Progress {
    data_extents: u64,
    tree_extents: u64,
    data_bytes: u64,
    tree_bytes: u64,
    read_errors: u64,
    checksum_errors: u64,
    verify_errors: u64,
    without_checksum: u64,
    discarded: u64,
    super_errors: u64,
    memory_errors: u64,
    uncorrectable: u64,
    corrected: u64,
    last_physical: u64,
    unverified: u64,
}

const _: () = assert!(size_of::<Arguments>() == 1024 && size_of::<Progress>() == 120);

// SAFETY: integers and an array of integers only, in both.
unsafe impl Plain for Arguments {}

/// What a look through a piece of a device found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// Where it ended, in bytes from the device's begin: whole extents of the device are looked through,
    /// so it may lie behind what was asked for. The begin, when nothing lay in the piece.
    pub last: u64,
    /// Bytes of data and metadata that were read.
    pub read: u64,
    /// Errors that were repaired from another copy.
    pub repaired: u64,
    /// Errors that could not be repaired.
    pub unrepaired: u64,
}

/// Looks through a piece of a mounted file system's device, given by its number in the file system;
/// `root` is any open folder of it. Returns when it is done. What has a good second copy is repaired.
pub fn scrub(root: &File, device: u64, start: u64, end: u64) -> Result<Scrubbed> {
    let mut arguments = Arguments { device, start, end, ..Arguments::zeroed() };
    // SAFETY: BTRFS_IOC_SCRUB reads and writes one struct btrfs_ioctl_scrub_args, whose size is asserted above.
    unsafe { sys::ioctl_with(root.as_fd(), SCRUB, &mut arguments) }
        .during("scrub", format!("device {device} from {start}"))?;
    let found = arguments.progress;
    Ok(Scrubbed {
        last: found.last_physical.max(start),
        read: found.data_bytes.saturating_add(found.tree_bytes),
        repaired: found.corrected.saturating_add(found.super_errors),
        unrepaired: found.uncorrectable,
    })
}
