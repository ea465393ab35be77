//! The first bytes of a pool, over whatever was there before.
//!
//! ```text
//!  header "adopting" ─▶ other slot ─▶ in partitions ─▶ the end ─▶ the begin, its first block last ─▶ table
//!       │ from here on the disk is ours: a cut is taken up at the next boot
//!  before: somebody's disk as it was, but for the 4 KiB of a header that isn't whole
//! ```
//! Each arrow is durable before the next begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zos_host::block;

use crate::disk::gpt;
use crate::disk::header::{self, Header};

const MIB: u64 = 1 << 20;

/// What is written to: a disk, or a record of it.
pub trait Target {
    /// Writes bytes at a place.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all of it durable.
    fn sync(&self) -> io::Result<()>;
}

impl Target for File {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Writes the header, wipes what was there if the header says so, and writes the table.
pub fn lay(target: &impl Target, header: &Header, disk: &block::Disk) -> io::Result<()> {
    mark(target, header)?;
    if header.over.is_some() {
        target.write(header.other_place(), &[0; header::SLOT])?;
        target.sync()?;
        for step in steps(disk) {
            for (at, length) in step {
                zero(target, at, length)?;
            }
            target.sync()?;
        }
    }
    let table = gpt::build(disk.size, disk.logical_block, header.table_id(), header.partition_id());
    let (last, first) = table.split_last().expect("a table has pieces");
    for (at, bytes) in first {
        target.write(*at, bytes)?;
    }
    target.sync()?;
    target.write(last.0, &last.1)?;
    target.sync()
}

/// Writes a header; durable when it returns.
pub fn mark(target: &impl Target, header: &Header) -> io::Result<()> {
    target.write(header.place(), &header.encode())?;
    target.sync()
}

/// Writes zeros, piece by piece.
pub fn zero(target: &impl Target, at: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(MIB.min(length)).unwrap_or(0)];
    let mut done = 0;
    while done < length {
        let piece = usize::try_from((length - done).min(MIB)).unwrap_or(0);
        target.write(at + done, &zeros[..piece])?;
        done += piece as u64;
    }
    Ok(())
}

type Range = (u64, u64);

/// Where file systems, tables and volume managers leave marks, as ranges that are zeroed together, in
/// this order: the table that says where the partitions are goes last.
fn steps(disk: &block::Disk) -> Vec<Vec<Range>> {
    let size = disk.size;
    let inside = disk.partitions.iter().flat_map(|partition| {
        let (start, size) = (partition.start, partition.size);
        let ends = [(start, size.min(MIB)), ((start + size).saturating_sub(MIB), size.min(MIB))];
        ends.into_iter().chain(mirrors(start))
    });
    let end = size.saturating_sub(MIB) / 4096 * 4096;
    let begin = [(header::AT + header::SIZE as u64, 5 * MIB), (4096, header::AT)];
    vec![
        inside.collect::<Vec<_>>(),
        mirrors(0).chain([(end, size - end)]).collect(),
        begin.map(|(from, to)| (from, to.min(size) - from)).to_vec(),
        vec![(0, 4096)],
    ]
    .into_iter()
    .map(|step| step.into_iter().flat_map(|range| around_header(range, size)).collect())
    .collect()
}

/// The copies that btrfs keeps of its superblock.
fn mirrors(start: u64) -> impl Iterator<Item = Range> {
    [64 * MIB, 256 << 30].into_iter().map(move |at| (start + at, 4096))
}

/// What of a range lies on the disk and not in the pool header's slots.
fn around_header((at, length): Range, size: u64) -> impl Iterator<Item = Range> {
    let (from, to) = (header::AT, header::AT + header::SIZE as u64);
    let (start, end) = (at.min(size), at.saturating_add(length).min(size));
    [(start, end.min(from)), (start.max(to), end)]
        .into_iter()
        .filter(|(start, end)| start < end)
        .map(|(start, end)| (start, end - start))
}

#[cfg(test)]
mod tests;
