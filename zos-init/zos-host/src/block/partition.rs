//! Telling the kernel of a partition (linux/blkpg.h), without it reading the table again.

use std::fs::File;
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::sys;

const BLKPG: u32 = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut Partition,
}

#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

const _: () = assert!(size_of::<Partition>() == 152 && size_of::<Argument>() == 24);

/// Makes partition `number` of an open disk known: `start` and `length` in bytes. One that overlaps
/// a known one is refused (`EBUSY`). Its node is there afterwards.
pub fn add_partition(disk: &File, number: u32, start: u64, length: u64) -> Result<()> {
    tell(disk, BLKPG_ADD_PARTITION, "add partition", number, (start, length))
}

/// Makes the kernel forget partition `number` of an open disk. One that is in use is refused (`EBUSY`).
pub fn remove_partition(disk: &File, number: u32) -> Result<()> {
    tell(disk, BLKPG_DEL_PARTITION, "remove partition", number, (0, 0))
}

fn tell(
    disk: &File,
    operation: i32,
    word: &'static str,
    number: u32,
    (start, length): (u64, u64),
) -> Result<()> {
    let object = || format!("{number} at {start}");
    let signed = |value: u64| i64::try_from(value).map_err(|e| Error::invalid(word, object(), e));
    let mut partition = Partition {
        start: signed(start)?,
        length: signed(length)?,
        number: i32::try_from(number).map_err(|e| Error::invalid(word, object(), e))?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let mut argument = Argument { operation, flags: 0, length: 152, data: &raw mut partition };
    // SAFETY: BLKPG reads one struct blkpg_ioctl_arg, and for these operations one struct
    // blkpg_partition behind its pointer, whose sizes are asserted above and which both are live.
    unsafe { sys::ioctl_with(disk.as_fd(), BLKPG, &mut argument) }
        .map(|_| ())
        .map_err(|error| Error::new(word, object(), error))
}
