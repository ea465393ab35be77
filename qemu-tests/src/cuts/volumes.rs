//! The volumes on a pool after the sweep: each whole, nothing beside them, and what a guest has synced is there.

use std::collections::BTreeSet;
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
use storaged::volume::Volumes;
use storaged::volume::files::{Files, Part};
use xts_mode::{Xts128, get_tweak_default};
use zos_api::local::storage::Volume;
use zos_types::deployment::Integrity;
use zos_types::volume::VolumeState;

use super::check::Found;
use super::facts::About;

/// Where the guest of `builtin:hello` writes its numbers, a sector each (`zos-guest/src/writer.rs`).
const RING: (u64, usize) = (8192, 64);
const SECTOR: usize = 512;

/// Takes in the pools as storaged does, and looks at each volume.
pub(super) fn look(pools: &[&Pool], key: Option<&SigningKey>, found: &mut Found) -> Result<()> {
    let volumes = Volumes::default();
    for pool in pools {
        found.wrong.extend(volumes.add_pool((*pool).clone()).context("take in a pool")?);
    }
    let mut known = BTreeSet::new();
    for volume in volumes.list() {
        let about = About::Volume(volume.twin, volume.name.clone());
        if volume.condition.state == VolumeState::Broken {
            found.wrong.push(format!("{about}: {:?}", volume.condition));
        }
        for pool in pools.iter().filter(|pool| volume.pools.contains(&pool.header.pool)) {
            let files = Files::of(&pool.root, &volume.twin, &volume.name);
            known.extend(beside(&files, volume.integrity));
            if let Err(error) = whole(&volume, &files, key, found) {
                found.wrong.push(format!("{about}: {error:#}"));
            }
        }
        found.is.insert(about, volume.size.0.to_string());
    }
    for shot in volumes.snapshots(None) {
        let about = About::Snapshot(shot.twin, shot.volume.clone(), shot.name.clone());
        for pool in pools {
            let files = Files::of(&pool.root, &shot.twin, &shot.volume).snapshot(&shot.name);
            if fs::metadata(files.data()).is_ok_and(|data| data.len() != shot.size.0) {
                found.wrong.push(format!("{about}: it has another size than {}", shot.size));
            }
            known.extend(beside(&files, Integrity::Repair));
        }
        found.is.insert(about, shot.size.0.to_string());
    }
    for pool in pools {
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

/// Its bytes are allocated in full, and its key opens.
fn whole(
    volume: &Volume,
    files: &Files,
    key: Option<&SigningKey>,
    found: &mut Found,
) -> Result<()> {
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
    if let Some(number) = highest(&File::open(files.data())?, &secret)? {
        found.is.insert(About::Number(volume.twin, volume.name.clone()), number.to_string());
    }
    Ok(())
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
