//! Requests of block devices (`linux/fs.h`) that no crate of ours wraps.
#![allow(unsafe_code)]

use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl};
use std::ffi::c_int;
use std::os::fd::AsFd;

/// `_IO(0x12, n)`.
const BLKROGET: Opcode = 0x125e;
const BLKDISCARD: Opcode = 0x1277;
const BLKIOMIN: Opcode = 0x1278;
const BLKIOOPT: Opcode = 0x1279;

/// Discards a range of bytes. An empty one discards nothing, but is refused as unsupported by a
/// device that can't.
pub(super) fn discard(device: impl AsFd, offset: u64, bytes: u64) -> Result<()> {
    // SAFETY: the request reads two u64, start and length, and nothing else.
    unsafe { ioctl(device, Setter::<BLKDISCARD, [u64; 2]>::new([offset, bytes])) }
}

/// Whether the device refuses writes.
pub(super) fn is_readonly(device: impl AsFd) -> Result<bool> {
    // SAFETY: the request writes one int.
    unsafe { ioctl(device, Getter::<BLKROGET, c_int>::new()) }.map(|flag| flag != 0)
}

/// Smallest and best size of a transfer in bytes; 0: the device doesn't say.
pub(super) fn io_sizes(device: impl AsFd) -> Result<(u32, u32)> {
    // SAFETY: each request writes one unsigned int.
    let (least, best) = unsafe {
        let least = ioctl(device.as_fd(), Getter::<BLKIOMIN, u32>::new())?;
        (least, ioctl(device, Getter::<BLKIOOPT, u32>::new())?)
    };
    Ok((least, best))
}
