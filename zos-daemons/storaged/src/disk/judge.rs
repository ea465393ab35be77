//! What a disk is, from its bytes alone.
//!
//! ```text
//!  first MiB ── a pool header? ──yes──▶ Ours | Unfinished | Trace | Foreign (somebody wrote over it)
//!      │ no
//!  both ends ── any mark, any byte unlike the first? ──yes──▶ Foreign
//!      │ no
//!    Blank ──── 1 MiB of every 64 MiB is that byte too ─────▶ Empty, else Foreign
//! ```
//! The contract's rule for an empty disk, to the letter; whoever writes to a disk asks twice.

use std::io;

use super::header::{self, Header, Stage};
use super::read::ReadAt;
use super::signature::{self, Ends};
use super::{fingerprint, gpt, header::Found};

/// How much of each end must be one constant byte, in bytes.
pub const ENDS: u64 = 16 << 20;
/// Between two samples, in bytes.
pub const STRIDE: u64 = 64 << 20;
/// Size of a sample.
pub const SAMPLE: usize = 1 << 20;

/// What a disk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A pool that is whole.
    Ours(Box<Header>),
    /// A pool whose making was interrupted, and on which nothing can lie yet.
    Unfinished(Box<Header>),
    /// A pool that was emptied, on a disk whose wiping was interrupted.
    Wiping(Box<Header>),
    /// Nothing but the word that the disk was a pool, and was released.
    Released(Box<Header>),
    /// A trace of a pool that can't be used as it is; why, in words.
    Trace(String),
    /// Somebody's data; what, in words.
    Foreign(String),
    /// No mark, and both ends are one constant byte. The middle wasn't looked at.
    Blank,
    /// As the contract has it: no mark, and all that was read is one constant byte.
    Empty,
    /// A read failed; where and how.
    Unreadable(String),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours(header) => write!(f, "pool {}", header.pool),
            Self::Unfinished(header) => {
                write!(f, "pool {}, interrupted in its making", header.pool)
            }
            Self::Wiping(header) => write!(f, "pool {}, being wiped", header.pool),
            Self::Released(header) => write!(f, "empty, released from pool {}", header.pool),
            Self::Trace(what) => f.write_str(what),
            Self::Foreign(what) => write!(f, "foreign: {what}"),
            Self::Blank => f.write_str("empty at both ends"),
            Self::Empty => f.write_str("empty"),
            Self::Unreadable(error) => write!(f, "unreadable: {error}"),
        }
    }
}

/// Judges a disk by its ends. `block` is its logical block size in bytes.
pub fn probe(disk: &(impl ReadAt + ?Sized), block: u32) -> Verdict {
    try_probe(disk, block).unwrap_or_else(|error| Verdict::Unreadable(error.to_string()))
}

/// Judges a disk completely: a blank one is sampled. `progress` is told the bytes passed so far, and
/// ends it by `false`.
pub fn examine(
    disk: &(impl ReadAt + ?Sized),
    block: u32,
    progress: impl FnMut(u64) -> bool,
) -> Verdict {
    match probe(disk, block) {
        Verdict::Blank => {
            sample(disk, progress).unwrap_or_else(|error| Verdict::Unreadable(error.to_string()))
        }
        verdict => verdict,
    }
}

fn try_probe(disk: &(impl ReadAt + ?Sized), block: u32) -> io::Result<Verdict> {
    let first = disk.head(1 << 20)?;
    let slots = usize::try_from(header::AT).ok().and_then(|at| first.get(at..at + header::SIZE));
    let partitions = gpt::read(disk, block)?;
    let ours = partitions.iter().flatten().any(|p| p.kind == gpt::POOL_TYPE);
    match slots.map_or(Found::None, header::read) {
        Found::Header(header) => return judge_pool(disk, block, header, partitions.as_deref()),
        Found::Newer(version) if ours => {
            return Ok(Verdict::Trace(format!("a pool of a newer version ({version}) of ZOS")));
        }
        Found::None | Found::Broken | Found::Newer(_) if ours => {
            return Ok(Verdict::Trace("a pool whose header is gone or broken".to_owned()));
        }
        Found::Broken | Found::Newer(_) => {
            let left = "what is left of a pool of ZOS";
            return Ok(Verdict::Trace(match &find_marks(disk)?[..] {
                [] => left.to_owned(),
                marks => format!("{left}, beside {}", marks.join(", ")),
            }));
        }
        Found::None => {}
    }
    let marks = find_marks(disk)?;
    if !marks.is_empty() {
        return Ok(Verdict::Foreign(marks.join(", ")));
    }
    let constant = are_ends(disk, 0, disk.head(4096)?.first().copied())?;
    Ok(if constant { Verdict::Blank } else { Verdict::Foreign("data of unknown kind".to_owned()) })
}

fn sample(
    disk: &(impl ReadAt + ?Sized),
    mut progress: impl FnMut(u64) -> bool,
) -> io::Result<Verdict> {
    let size = disk.size();
    let byte = disk.head(4096)?[0];
    let mut at = 0;
    while at < size {
        let length = SAMPLE.min(usize::try_from(size - at).unwrap_or(SAMPLE));
        if !is_all(&disk.read_at(at, length)?, byte) {
            let place = at >> 20;
            return Ok(Verdict::Foreign(format!("data of unknown kind at {place} MiB")));
        }
        if !progress(at) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        at += STRIDE;
    }
    Ok(Verdict::Empty)
}

fn judge_pool(
    disk: &(impl ReadAt + ?Sized),
    block: u32,
    header: Box<Header>,
    partitions: Option<&[gpt::Partition]>,
) -> io::Result<Verdict> {
    let place = gpt::pool_place(header.disk_size.max(4 * gpt::MARGIN));
    let is_its = |p: &gpt::Partition| {
        p.kind == gpt::POOL_TYPE
            && hex::encode(p.id.0) == header.partition
            && (p.start, p.size) == place
    };
    let whole = matches!(partitions, Some([partition]) if is_its(partition));
    let over = header.over.is_some() && header.stage == Stage::Adopting;
    if over && !whole && header.disk_size == disk.size() && disk.size() >= 4 * gpt::MARGIN {
        // What the farmer gave away may be there still, in whole or in part; nothing else may.
        return Ok(match fingerprint::fits(disk, block, &header)? {
            true => Verdict::Unfinished(header),
            false => Verdict::Foreign(strangers(disk)?),
        });
    }
    let marks = foreign_marks(disk, &header, whole)?;
    if !marks.is_empty() {
        return Ok(Verdict::Foreign(format!("{marks}, written over a pool of ZOS")));
    }
    Ok(match header.stage {
        _ if header.disk_size != disk.size() => Verdict::Trace(format!(
            "a pool made on a disk of {} bytes, and this one has {}",
            header.disk_size,
            disk.size()
        )),
        Stage::Ready | Stage::Leaving if whole => Verdict::Ours(header),
        Stage::Wiping => Verdict::Wiping(header),
        Stage::Released if is_clean(disk)? => Verdict::Released(header),
        Stage::Released => {
            Verdict::Foreign("data of unknown kind, on a disk that was released".to_owned())
        }
        Stage::Ready | Stage::Leaving => {
            Verdict::Trace("a pool whose partition table is gone".to_owned())
        }
        Stage::Adopting if whole => Verdict::Unfinished(header),
        // The table was not there yet: then nothing else may be.
        Stage::Adopting if partitions.is_none() && untouched(disk)? => Verdict::Unfinished(header),
        Stage::Adopting => Verdict::Trace("a pool begun, and something beside it".to_owned()),
    })
}

/// The marks of a disk as a whole.
fn find_marks(disk: &(impl ReadAt + ?Sized)) -> io::Result<Vec<&'static str>> {
    let (head, (_, tail)) = (disk.head(signature::HEAD)?, disk.tail(signature::TAIL)?);
    Ok(signature::find(&Ends { size: disk.size(), head: &head, tail: &tail }))
}

/// What lies on a disk that was half given away, and is somebody's now.
fn strangers(disk: &(impl ReadAt + ?Sized)) -> io::Result<String> {
    let marks = find_marks(disk)?;
    let marks = if marks.is_empty() { vec!["data of unknown kind"] } else { marks };
    Ok(format!("{}, written over a pool of ZOS that was begun", marks.join(", ")))
}

/// Whether both ends are one constant byte but for the pool header.
fn is_clean(disk: &(impl ReadAt + ?Sized)) -> io::Result<bool> {
    let mut head = disk.head(1 << 20)?.to_vec();
    let byte = head.first().copied();
    let at = usize::try_from(header::AT).unwrap_or(usize::MAX);
    if let Some(slots) = head.get_mut(at..at + header::SIZE) {
        slots.fill(byte.unwrap_or(0));
    }
    let (_, tail) = disk.tail(1 << 20)?;
    let constant = |bytes: &[u8]| byte.is_some_and(|byte| is_all(bytes, byte));
    Ok(constant(&head) && constant(&tail) && are_ends(disk, gpt::MARGIN, byte)?)
}

/// Marks that don't belong to this pool, in words.
fn foreign_marks(
    disk: &(impl ReadAt + ?Sized),
    header: &Header,
    whole: bool,
) -> io::Result<String> {
    let end = usize::try_from(gpt::MARGIN).unwrap_or(1 << 20);
    // Only the margins: between them lies the pool itself, and its data may look like anything.
    let (head, (_, tail)) = (disk.head(end)?, disk.tail(end)?);
    let size = disk.size();
    let mut marks = signature::find(&Ends { size, head: &head, tail: &tail });
    marks.retain(|mark| !matches!(*mark, "GPT" | "GPT backup" | "MBR or boot sector"));
    if whole {
        let (start, length) = gpt::pool_place(size);
        let bytes = disk.read_at(start, end.min(usize::try_from(length).unwrap_or(end)))?;
        let inside = signature::find(&Ends { size: length, head: &bytes, tail: &[] });
        let label = bytes.get(0x1_012b..0x1_012b + 256).unwrap_or_default();
        let labelled = label.starts_with(header.label().as_bytes());
        marks.extend(inside.into_iter().filter(|mark| *mark != "btrfs" || !labelled));
    }
    Ok(marks.join(", "))
}

/// Whether all but the margins, in which the table and the header lie, is one constant byte.
fn untouched(disk: &(impl ReadAt + ?Sized)) -> io::Result<bool> {
    let byte = disk.read_at(gpt::MARGIN, 4096)?.first().copied();
    are_ends(disk, gpt::MARGIN, byte)
}

/// Whether both ends are this byte, but for a margin (a multiple of 4096) at the very ends. Read
/// piece by piece: a node may have many disks and little memory.
fn are_ends(disk: &(impl ReadAt + ?Sized), margin: u64, byte: Option<u8>) -> io::Result<bool> {
    let (Some(byte), size) = (byte, disk.size()) else { return Ok(false) };
    let from_end = |distance: u64| size.saturating_sub(distance) / 4096 * 4096;
    let end = if margin == 0 { size } else { from_end(margin) };
    for (mut at, to) in [(margin, ENDS.min(end)), (from_end(ENDS).max(margin), end)] {
        while at < to {
            let length = SAMPLE.min(usize::try_from(to - at).unwrap_or(SAMPLE));
            if !is_all(&disk.read_at(at, length)?, byte) {
                return Ok(false);
            }
            at += SAMPLE as u64;
        }
    }
    Ok(true)
}

/// Whether each byte is this one.
pub fn is_all(bytes: &[u8], byte: u8) -> bool {
    let wide = [byte; 4096];
    let mut chunks = bytes.chunks_exact(4096);
    chunks.by_ref().all(|chunk| chunk == wide) && chunks.remainder().iter().all(|b| *b == byte)
}

#[cfg(test)]
mod tests;
