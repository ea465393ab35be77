//! Ranges of a disk that are given back or zeroed (linux/fs.h, `BLKDISCARD`, `BLKZEROOUT`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::sys;

const BLKDISCARD: u32 = 0x1277;
const BLKZEROOUT: u32 = 0x127f;

/// Tells an open disk that a range holds nothing any more: bytes, in multiples of its logical block.
/// `Unsupported`: it takes no such word.
pub fn discard(disk: &File, start: u64, length: u64) -> io::Result<()> {
    on_range(disk, BLKDISCARD, start, length)
}

/// Makes a range of an open disk read as zeros: bytes, in multiples of its logical block.
pub fn zero(disk: &File, start: u64, length: u64) -> io::Result<()> {
    on_range(disk, BLKZEROOUT, start, length)
}

fn on_range(disk: &File, request: u32, start: u64, length: u64) -> io::Result<()> {
    let mut range = [start, length];
    // SAFETY: both requests read two u64 behind their pointer, which are live.
    unsafe { sys::ioctl_with(disk.as_fd(), request, &mut range) }.map(|_| ())
}
