//! The volumes on the pools after the sweep: each whole, nothing beside them, what a guest has synced is there; of two
//! copies the record and the mirror say which one is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use aes::Aes256;
use aes::cipher::{Array, KeyInit as _};
use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::SigningKey;
use identityd::seal::Sealer;
use identityd::wrap::Wraps;
use storaged::pool::Pool;
use storaged::volume::files::{self, Files, Part};
use storaged::volume::record::{self, Record, Standing};
use storaged::volume::{Id, Volumes};
use xts_mode::{Xts128, get_tweak_default};
use zos_api::local::storage::Volume;
use zos_types::deployment::Integrity;
use zos_types::volume::VolumeState;

use super::check::Found;
use super::facts::{self, About};

/// Where the guest of `builtin:hello` writes its numbers, a sector each (`zos-guest/src/writer.rs`).
const RING: (u64, usize) = (8192, 64);
const SECTOR: usize = 512;

/// Takes in the pools as storaged does, and looks at each volume.
pub(super) fn look(
    disks: &[(usize, &Pool)],
    key: Option<&SigningKey>,
    found: &mut Found,
) -> Result<()> {
    let volumes = Volumes::default();
    let mut records: BTreeMap<Id, BTreeMap<String, Record>> = BTreeMap::new();
    for (_, pool) in disks {
        found.wrong.extend(volumes.add_pool((*pool).clone()).context("take in a pool")?);
    }
    for (_, pool) in disks {
        let swept = files::sweep(&pool.root, &pool.header.pool).context("sweep a pool")?;
        for record in swept.records {
            let copies = records.entry((record.twin, record.name.clone())).or_default();
            copies.insert(pool.header.pool.clone(), record);
        }
    }
    let pools: Vec<&Pool> = disks.iter().map(|(_, pool)| *pool).collect();
    let mut known = BTreeSet::new();
    for volume in volumes.list() {
        let about = About::Volume(volume.twin, volume.name.clone());
        let places = disks.iter().filter(|(_, pool)| volume.pools.contains(&pool.header.pool));
        let legs: Vec<Leg> = places
            .map(|(number, pool)| {
                let files = Files::of(&pool.root, &volume.twin, &volume.name);
                Leg { number: *number, pool: pool.header.pool.clone(), files }
            })
            .collect();
        known.extend(legs.iter().flat_map(|leg| beside(&leg.files, volume.integrity)));
        if volume.condition.state == VolumeState::Broken {
            found.broken.insert(about, volume.condition.reason.clone());
            continue;
        }
        let copies = records.get(&(volume.twin, volume.name.clone()));
        let Standing::Leads(record) = record::lead(copies.context("it has a record")?) else {
            found.wrong.push(format!("{about}: no record of it leads"));
            continue;
        };
        let whole = match whole_legs(&record, legs) {
            Ok(whole) => whole,
            Err(error) => {
                found.wrong.push(format!("{about}: {error:#}"));
                continue;
            }
        };
        let mut numbers = Vec::new();
        for leg in &whole {
            match look_at(&volume, &leg.files, key) {
                Ok(number) => numbers.push(number),
                Err(error) => found.wrong.push(format!("{about}: {error:#}")),
            }
        }
        // What is acknowledged is on each.
        if let Some(Some(number)) = numbers.into_iter().min() {
            let about = About::Number(volume.twin, volume.name.clone());
            found.is.insert(about, number.to_string());
        }
        if volume.integrity == Integrity::Repair {
            let legs = About::Legs(volume.twin, volume.name.clone());
            found.is.insert(legs, facts::numbers(whole.iter().map(|leg| leg.number)));
        }
        found.is.insert(about, volume.size.0.to_string());
    }
    for shot in volumes.snapshots(None) {
        let about = About::Snapshot(shot.twin, shot.volume.clone(), shot.name.clone());
        for pool in &pools {
            let files = Files::of(&pool.root, &shot.twin, &shot.volume).snapshot(&shot.name);
            if fs::metadata(files.data()).is_ok_and(|data| data.len() != shot.size.0) {
                found.wrong.push(format!("{about}: it has another size than {}", shot.size));
            }
            known.extend(beside(&files, Integrity::Repair));
        }
        found.is.insert(about, shot.size.0.to_string());
    }
    for pool in &pools {
        for folder in fs::read_dir(pool.root.join("@volumes")).context("list the volumes")? {
            for file in fs::read_dir(folder?.path()).context("list a twin's volumes")? {
                let path = file?.path();
                if !known.contains(&path) {
                    found.wrong.push(format!("left after the sweep: {}", path.display()));
                }
            }
        }
    }
    Ok(())
}

/// The files that a volume may have.
fn beside(files: &Files, integrity: Integrity) -> Vec<PathBuf> {
    let name = files.data().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let side = |side: &str| files.data().with_file_name(format!("{name}.{side}"));
    let parts = Part::of(integrity).iter().map(|part| files.part(*part));
    parts.chain(["key", "json"].map(side)).collect()
}

/// A copy of a volume on a disk that is here.
struct Leg {
    number: usize,
    pool: String,
    files: Files,
}

/// The copies that have all that was written: by the record that leads, and by what the mirror itself knows, which was
/// written before it went on without one.
fn whole_legs(record: &Record, mut legs: Vec<Leg>) -> Result<Vec<Leg>> {
    legs.retain(|leg| record.is_whole(&leg.pool));
    let memories = legs.iter().map(|leg| match record.integrity {
        Integrity::Repair => memory(&leg.files),
        Integrity::None | Integrity::Detect => Ok(None),
    });
    let memories: Vec<Option<Memory>> = memories.collect::<Result<_>>()?;
    let newest = memories.iter().flatten().max_by_key(|memory| memory.events).copied();
    let went_on_without = |memory: &Option<Memory>| {
        let (Some(memory), Some(newest)) = (memory, newest) else { return false };
        newest.failed & (1_u64 << memory.position.min(63)) != 0
    };
    let all = legs.into_iter().zip(memories);
    Ok(all.filter(|(_, memory)| !went_on_without(memory)).map(|(leg, _)| leg).collect())
}

/// What dm-raid keeps beside a copy (drivers/md/dm-raid.c, struct dm_raid_superblock).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Memory {
    /// Which of the copies it is.
    position: u32,
    /// Grows with each change of what stands here.
    events: u64,
    /// The copies that failed, a bit each.
    failed: u64,
}

/// None: the mirror was never in use.
fn memory(files: &Files) -> Result<Option<Memory>> {
    let mut bytes = [0; 32];
    let file = files.open(Part::Mirror).context("what its mirror knows")?;
    file.read_exact_at(&mut bytes, 0).context("what its mirror knows")?;
    Ok(parse_memory(&bytes))
}

fn parse_memory(bytes: &[u8; 32]) -> Option<Memory> {
    let eight = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let position = bytes[12..16].try_into().map(u32::from_le_bytes).ok()?;
    let there = bytes.starts_with(b"DmRd");
    Some(Memory { position, events: eight(16)?, failed: eight(24)? }).filter(|_| there)
}

/// Its bytes are allocated in full, and its key opens; the number that its guest wrote last.
fn look_at(volume: &Volume, files: &Files, key: Option<&SigningKey>) -> Result<Option<u64>> {
    for part in Part::of(volume.integrity) {
        let (about, size) = (fs::metadata(files.part(*part)), part.size(volume.size).0);
        let about = about.with_context(|| format!("its {part:?}"))?;
        ensure!(about.len() >= size, "its {part:?} has {} bytes", about.len());
        ensure!(about.blocks() * 512 >= size, "its {part:?} is not allocated in full");
    }
    let sealed = files.read_key().context("its key")?;
    let node = key.context("there is a volume, and no key of the node")?;
    let context = format!("volume:{}/{}", volume.twin, volume.name);
    let secret =
        Sealer::new(node, &Wraps::default()).unseal(&context, &sealed).context("its key")?;
    highest(&File::open(files.data())?, &secret)
}

/// The highest number that the guest of `builtin:hello` wrote, if it wrote any.
fn highest(volume: &File, key: &[u8]) -> Result<Option<u64>> {
    let (data, tweak) = key.split_at_checked(32).context("a key of aes-xts has two halves")?;
    let half = |bytes: &[u8]| -> Result<Aes256> {
        Ok(Aes256::new(&Array::try_from(bytes).context("half a key has 32 bytes")?))
    };
    let xts = Xts128::new(half(data)?, half(tweak)?);
    let mut ring = vec![0; RING.1 * SECTOR];
    if volume.read_exact_at(&mut ring, RING.0).is_err() {
        return Ok(None);
    }
    // dm-crypt's plain64: the sector's number in units of 512 bytes.
    xts.decrypt_area(&mut ring, SECTOR, u128::from(RING.0) / SECTOR as u128, get_tweak_default);
    Ok(ring.chunks(SECTOR).filter_map(number).max())
}

fn number(sector: &[u8]) -> Option<u64> {
    let eight = |at: usize| sector.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let number = eight(8)?;
    // FNV-1a, as the guest does.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let check = number.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    (sector.starts_with(b"ZOSWRITE") && eight(16) == Some(check)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mirror_knows_is_read() {
        let mut bytes = [0; 32];
        assert_eq!(parse_memory(&bytes), None);
        bytes[..4].copy_from_slice(b"DmRd");
        (bytes[8], bytes[12], bytes[16], bytes[24]) = (2, 1, 9, 2);
        assert_eq!(parse_memory(&bytes), Some(Memory { position: 1, events: 9, failed: 2 }));
    }
}
