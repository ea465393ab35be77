//! Plans that a farmer reads and confirms: what is done to a disk, what is lost, and a hash of all that it rests on.
//!
//! ```text
//!  what is there ─┬─▶ words: does, loses         for people
//!                 └─▶ facts, as JSON ─▶ SHA-256   for the confirmation
//! ```
//! No clock and no chance: the same disk has the same plan until something on it changes.

use serde::Serialize;
use sha2::{Digest, Sha256};
use zos_host::block;
use zos_types::Bytes;
use zos_types::disk::{Disk, DiskPlan};

use super::contents::{Contents, Mark, Part};
use crate::disk::gpt;
use crate::disk::judge::Verdict;
use crate::pool;

/// Something on a pool that is to move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Move {
    /// What: `volume web/data of twin yqoo…`.
    pub what: String,
    /// How much room it takes.
    pub size: Bytes,
    /// The pool that has room for it; none: none has.
    pub to: Option<String>,
}

/// The plan of an adoption, or why there is none. `state`: the node's state is to lie on the disk.
pub fn adoption(
    report: Disk,
    disk: &block::Disk,
    contents: &Contents,
    state: bool,
) -> Result<DiskPlan, String> {
    if let Some(user) = contents.users.first() {
        return Err(format!("{} is in use: {user}", disk.name));
    }
    if let Verdict::Unreadable(error) = &contents.verdict {
        return Err(format!("{} can't be read: {error}", disk.name));
    }
    let loses = losses(contents);
    let (_, room) = gpt::pool_place(disk.size.max(4 * gpt::MARGIN));
    let room = Bytes(room.saturating_sub(pool::reserve(room)));
    let mut does = Vec::new();
    if !loses.is_empty() {
        does.push("all that is on the disk is wiped, for good".to_owned());
    }
    let class = report.class;
    does.push(format!("the whole disk becomes a pool for {class} volumes, with {room} for twins"));
    if state {
        does.push(
            "the node's state will lie on it from the next boot on: boot the node again".to_owned(),
        );
    }
    Ok(DiskPlan { hash: adoption_hash(disk, contents), disk: report, does, loses })
}

/// The plan of a release. `pool` lies on the disk, and `moves` is all that is on it.
pub fn release(report: Disk, disk: &block::Disk, pool: &str, moves: &[Move]) -> DiskPlan {
    #[derive(Serialize)]
    struct Facts<'a> {
        plan: &'static str,
        disk: Device<'a>,
        pool: &'a str,
        moves: &'a [Move],
    }
    let mut does = vec![format!("pool {pool} takes no new volumes from now on")];
    for Move { what, size, to } in moves {
        does.push(match to {
            Some(to) => format!("{what} ({size}) moves to pool {to}"),
            None => format!("{what} ({size}) stays: no other pool has room for it"),
        });
    }
    does.push(match moves.iter().any(|moved| moved.to.is_none()) {
        true => "the disk is wiped once nothing is left on it: make room, or delete what stays"
            .to_owned(),
        false => "then the disk is wiped, and can be taken out".to_owned(),
    });
    let facts = Facts { plan: "release", disk: Device::of(disk), pool, moves };
    DiskPlan { hash: hash(&facts), disk: report, does, loses: Vec::new() }
}

/// The hash that an adoption is confirmed by.
pub fn adoption_hash(disk: &block::Disk, contents: &Contents) -> String {
    #[derive(Serialize)]
    struct Facts<'a> {
        plan: &'static str,
        disk: Device<'a>,
        verdict: String,
        marks: &'a [Mark],
        parts: &'a [Part],
        ends: &'a str,
    }
    let Contents { verdict, marks, parts, ends, users: _ } = contents;
    let (disk, verdict) = (Device::of(disk), verdict.to_string());
    hash(&Facts { plan: "adopt", disk, verdict, marks, parts, ends })
}

/// Which device it is.
#[derive(Serialize)]
struct Device<'a> {
    id: &'a str,
    size: u64,
    serial: Option<&'a str>,
}

impl<'a> Device<'a> {
    fn of(disk: &'a block::Disk) -> Self {
        Self { id: &disk.id, size: disk.size, serial: disk.serial.as_deref() }
    }
}

fn hash(facts: &impl Serialize) -> String {
    let text = serde_json::to_vec(facts).expect("plain data");
    hex::encode(&Sha256::digest(&text)[..16])
}

fn losses(contents: &Contents) -> Vec<String> {
    let mut lost = match &contents.verdict {
        Verdict::Ours(header) => {
            let owner =
                header.owner.map_or("no node yet".to_owned(), |owner| format!("node {owner}"));
            let state = if header.state { ", the node's state and key" } else { "" };
            let pool = &header.pool;
            return vec![format!("pool {pool} of {owner}: every volume on it{state}")];
        }
        Verdict::Trace(what) => vec![what.clone()],
        Verdict::Unfinished(_)
        | Verdict::Wiping(_)
        | Verdict::Released(_)
        | Verdict::Blank
        | Verdict::Empty => return Vec::new(),
        Verdict::Foreign(_) | Verdict::Unreadable(_) => Vec::new(),
    };
    let table = |mark: &&Mark| mark.what.starts_with("GPT") || mark.what.starts_with("MBR");
    // A table is told by what it has.
    let whole = contents.marks.iter().filter(|mark| contents.parts.is_empty() || !table(mark));
    lost.extend(whole.map(words));
    for Part { number, size, name, marks, .. } in &contents.parts {
        let name = name.as_ref().map_or(String::new(), |name| format!(" \u{201c}{name}\u{201d}"));
        let holds = match marks[..] {
            [] => "nothing that is known".to_owned(),
            _ => marks.iter().map(words).collect::<Vec<_>>().join(", "),
        };
        lost.push(format!("partition {number}{name}, {}: {holds}", Bytes(*size)));
    }
    if lost.is_empty() {
        lost.push("data of unknown kind".to_owned());
    }
    lost
}

/// A mark in words that a farmer understands, with its proper name for who wants to look it up.
fn words(Mark { what, name }: &Mark) -> String {
    let kind = match what.as_str() {
        "GPT" | "GPT backup" | "Sun label" | "Apple partition map" => "a partition table",
        "MBR or boot sector" => "a partition table or boot sector",
        "LVM2" => "a part of a Linux volume group",
        "LUKS" | "LUKS2 backup header" | "BitLocker" => "encrypted data",
        "ZFS" | "Stratis" | "bcache" | "VDO" => "a part of a storage pool",
        "swap" | "hibernation image" => "swapped-out memory",
        "Ceph BlueStore" => "a part of a storage cluster",
        "NTFS" | "NTFS backup" | "ReFS" => "a Windows file system",
        "APFS" | "HFS+" | "HFSX" => "a macOS file system",
        "ext2/3/4" | "xfs" | "btrfs" | "bcachefs" | "f2fs" | "jfs" | "reiserfs" | "reiser4" => {
            "a Linux file system"
        }
        _ if what.contains("RAID") || what.starts_with("mdraid") => "a part of a RAID",
        _ if what.starts_with("dm-") => "a part of a Linux volume",
        _ => "a file system or volume",
    };
    match name {
        Some(name) => format!("{kind} \u{201c}{name}\u{201d} ({what})"),
        None => format!("{kind} ({what})"),
    }
}

#[cfg(test)]
mod tests;
