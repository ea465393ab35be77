//! What is on a disk: for the farmer in words, and for his word's hash in full.
//!
//! ```text
//!  verdict   ours, somebody's, empty ...
//!  marks     of the whole disk and of each partition, with the names that people gave
//!  ends      a hash of the first and the last 16 MiB
//!  users     who has it in use
//! ```

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};
use zos_host::block;
use zos_host::{SysRoot, mount};

use super::label;
use crate::disk::header;
use crate::disk::judge::{self, ENDS, Verdict};
use crate::disk::read::{ReadAt, Window};
use crate::disk::signature::{self, Ends};

/// What is on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// What its ends make it.
    pub verdict: Verdict,
    /// What the whole disk holds.
    pub marks: Vec<Mark>,
    /// Its partitions.
    pub parts: Vec<Part>,
    /// SHA-256 of both ends, in hexadecimal.
    pub ends: String,
    /// Who has it or a part of it in use, in words.
    pub users: Vec<String>,
}

/// Something that leaves a mark on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mark {
    /// What it is: `ext2/3/4`.
    pub what: String,
    /// The name that it was given.
    pub name: Option<String>,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Part {
    /// Its number.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// Its name in the table.
    pub name: Option<String>,
    /// What it holds.
    pub marks: Vec<Mark>,
}

/// Looks at a disk. `disk` is how the kernel shows it now.
pub fn look(reader: &(impl ReadAt + ?Sized), disk: &block::Disk) -> io::Result<Contents> {
    let parts = disk.partitions.iter().map(|partition| {
        let window = Window { disk: reader, start: partition.start, size: partition.size };
        Part {
            number: partition.number,
            start: partition.start,
            size: partition.size,
            name: partition.label.clone(),
            // What lies beyond the disk's end holds nothing.
            marks: marks(&window).unwrap_or_default(),
        }
    });
    Ok(Contents {
        verdict: judge::probe(reader, disk.logical_block),
        marks: marks(reader)?,
        parts: parts.collect(),
        ends: ends(reader)?,
        users: Vec::new(),
    })
}

/// Who has a disk in use: other devices, and file systems that are mounted.
pub fn users(root: &SysRoot, disk: &block::Disk) -> zos_host::Result<Vec<String>> {
    let parts = disk.partitions.iter();
    let held = parts.clone().map(|part| (&part.name, &part.holders));
    let mut users: Vec<String> = std::iter::once((&disk.name, &disk.holders))
        .chain(held)
        .filter(|(_, holders)| !holders.is_empty())
        .map(|(name, holders)| format!("{name} is a part of {}", holders.join(", ")))
        .collect();
    let devices: Vec<_> =
        std::iter::once(disk.path()).chain(parts.map(block::Partition::path)).collect();
    for mounted in mount::list(root)? {
        if devices.iter().any(|device| device.as_os_str() == mounted.source.as_str()) {
            users.push(format!("{} is mounted at {}", mounted.source, mounted.target.display()));
        }
    }
    Ok(users)
}

/// The sequence by which a new header outdoes those that lie on the disk.
pub fn next_sequence(reader: &(impl ReadAt + ?Sized)) -> io::Result<u64> {
    let slots = reader.read_at(header::AT, header::SIZE)?;
    Ok(header::next_sequence(&slots))
}

fn marks(disk: &(impl ReadAt + ?Sized)) -> io::Result<Vec<Mark>> {
    let (head, (_, tail)) = (disk.head(signature::HEAD)?, disk.tail(signature::TAIL)?);
    let found = signature::find(&Ends { size: disk.size(), head: &head, tail: &tail });
    let named = |what: &str| Mark { what: what.to_owned(), name: label::find(what, &head) };
    Ok(found.into_iter().map(named).collect())
}

fn ends(disk: &(impl ReadAt + ?Sized)) -> io::Result<String> {
    const PIECE: u64 = 1 << 20;
    let (mut hash, size) = (Sha256::new(), disk.size());
    let last = size.saturating_sub(ENDS) / 4096 * 4096;
    for (from, to) in [(0, ENDS.min(size)), (last, size)] {
        let mut at = from;
        while at < to {
            let length = usize::try_from(PIECE.min(to - at)).map_err(io::Error::other)?;
            hash.update(&*disk.read_at(at, length)?);
            at += PIECE;
        }
    }
    Ok(hex::encode(hash.finalize()))
}
