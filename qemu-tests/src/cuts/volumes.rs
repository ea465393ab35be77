//! The volumes on a pool after the sweep: each whole, nothing beside them, and what a guest has synced is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use aes::Aes256;
use aes::cipher::{Array, KeyInit as _};
use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use identityd::seal::Sealer;
use identityd::wrap::Wraps;
use storaged::pool::Pool;
use storaged::volume::files::{self, Files, Record};
use xts_mode::{Xts128, get_tweak_default};

use super::check::Found;
use super::facts::About;

/// What stands beside a volume's bytes, by its ending.
const SIDES: [&str; 2] = ["key", "json"];
/// Where the guest of `builtin:hello` writes its numbers, a sector each (`zos-guest/src/writer.rs`).
const RING: (u64, usize) = (8192, 64);
const SECTOR: usize = 512;

/// Sweeps a pool, and looks at each volume.
pub(super) fn look(pool: &Pool, key: Option<&SigningKey>, found: &mut Found) -> Result<()> {
    let (records, unreadable) = files::sweep(&pool.root).context("sweep the volumes")?;
    found.wrong.extend(unreadable);
    let mut known = BTreeSet::new();
    for record in &records {
        let files = Files::of(&pool.root, &record.twin, &record.name);
        known.insert(files.data());
        known.extend(
            SIDES.map(|side| {
                files.data().with_file_name(format!("{}.{side}", record.name.dotted()))
            }),
        );
        let about = About::Volume(record.twin, record.name.clone());
        if let Err(error) = whole(record, &files, key, found) {
            found.wrong.push(format!("{about}: {error:#}"));
        }
        found.is.insert(about, record.size.0.to_string());
    }
    for folder in fs::read_dir(pool.root.join("@volumes")).context("list the volumes")? {
        for file in fs::read_dir(folder?.path()).context("list a twin's volumes")? {
            let path = file?.path();
            // A record that was being written again keeps its new form beside it until the next writing.
            let again = path.extension().is_some_and(|ending| ending == "new")
                && known.contains(&path.with_extension(""));
            if !known.contains(&path) && !again {
                found.wrong.push(format!("left after the sweep: {}", path.display()));
            }
        }
    }
    Ok(())
}

/// Its bytes are allocated in full, and its key opens.
fn whole(
    record: &Record,
    files: &Files,
    key: Option<&SigningKey>,
    found: &mut Found,
) -> Result<()> {
    let about = fs::metadata(files.data()).context("its bytes")?;
    anyhow::ensure!(about.len() == record.size.0, "it has {} bytes", about.len());
    anyhow::ensure!(about.blocks() * 512 >= record.size.0, "it is not allocated in full");
    let sealed = files.read_key().context("its key")?;
    let node = key.context("there is a volume, and no key of the node")?;
    let context = format!("volume:{}/{}", record.twin, record.name);
    let secret =
        Sealer::new(node, &Wraps::default()).unseal(&context, &sealed).context("its key")?;
    if let Some(number) = highest(&File::open(files.data())?, &secret)? {
        found.is.insert(About::Number(record.twin, record.name.clone()), number.to_string());
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
