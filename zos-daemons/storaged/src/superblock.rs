//! btrfs's superblock, made whole after a torn write.
//!
//! ```text
//!  64 KiB  the one that a mount reads      written after all it points to is on the medium
//!  64 MiB  its copy                        written after it, and not when only a file was synced
//!
//!  4096 bytes are eight sectors, and a power cut may leave some old and some new. The first has the checksum over all.
//!    the first is old   with the copy's other seven it is the old one again: the checksum says so
//!    the first is new   what is old in the others is no more than a hint (backup roots): a new checksum makes it whole
//! ```
//! Without this a cut at the wrong moment costs a pool: btrfs mounts by the first superblock or not at all. The form is
//! that of `struct btrfs_super_block` (linux/btrfs_tree.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const FIRST: u64 = 64 << 10;
const COPY: u64 = 64 << 20;
const SIZE: usize = 4096;
const SECTOR: usize = 512;

const CHECKED: usize = 32;
const FSID: std::ops::Range<usize> = 32..48;
const PLACE: usize = 48;
const MAGIC: std::ops::Range<usize> = 64..72;
const GENERATION: usize = 72;
const CHECKSUM_KIND: usize = 196;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mended {
    /// Nothing: it is whole, or nothing that this code knows how to make whole.
    Nothing,
    /// The one before the write that was torn is back.
    Old,
    /// The write that was torn is finished.
    New,
}

/// Makes the superblock of a partition whole, which nobody uses now. Durable when it returns.
pub fn mend(partition: &Path) -> io::Result<Mended> {
    let mut first = [0; SIZE];
    let mut copy = [0; SIZE];
    let file = File::open(partition)?;
    file.read_exact_at(&mut first, FIRST)?;
    if is_whole(&first, FIRST) {
        return Ok(Mended::Nothing);
    }
    file.read_exact_at(&mut copy, COPY)?;
    let Some((whole, mended)) = whole(&first, &copy) else { return Ok(Mended::Nothing) };
    // Exclusive: fails when anybody, the kernel included, has it in use.
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(exclusive).open(partition)?;
    file.write_all_at(&whole, FIRST)?;
    file.sync_all()?;
    Ok(mended)
}

/// What the torn one was before, or was to be.
fn whole(first: &[u8; SIZE], copy: &[u8; SIZE]) -> Option<([u8; SIZE], Mended)> {
    let same = [FSID, MAGIC].into_iter().all(|range| first[range.clone()] == copy[range]);
    if !is_whole(copy, COPY) || !same || number(first, PLACE) != FIRST {
        return None;
    }
    let mut old = *copy;
    old[..SECTOR].copy_from_slice(&first[..SECTOR]);
    if is_whole(&old, FIRST) {
        return Some((old, Mended::Old));
    }
    // The copy is of the last full commit, so the one that was torn is of the next, or a sync's after it.
    let behind = number(first, GENERATION).checked_sub(number(copy, GENERATION))?;
    let mut new = *first;
    let sum = checksum(&new[CHECKED..]);
    new[..4].copy_from_slice(&sum.to_le_bytes());
    (behind <= 1).then_some((new, Mended::New))
}

fn is_whole(bytes: &[u8; SIZE], place: u64) -> bool {
    // Other kinds of checksums than crc32c are never made here.
    bytes[MAGIC] == *b"_BHRfS_M"
        && bytes[CHECKSUM_KIND..CHECKSUM_KIND + 2] == [0, 0]
        && number(bytes, PLACE) == place
        && bytes[..4] == checksum(&bytes[CHECKED..]).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: it is for 4 KiB.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(place: u64, generation: u64, log: u64) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[FSID].fill(7);
        bytes[PLACE..PLACE + 8].copy_from_slice(&place.to_le_bytes());
        bytes[MAGIC].copy_from_slice(b"_BHRfS_M");
        bytes[GENERATION..GENERATION + 8].copy_from_slice(&generation.to_le_bytes());
        bytes[96..104].copy_from_slice(&log.to_le_bytes());
        // A full commit also writes one of the backup roots and what is in the second sector.
        bytes[563..571].copy_from_slice(&generation.to_le_bytes());
        bytes[2859..3531].fill(u8::try_from(generation).unwrap());
        let sum = checksum(&bytes[CHECKED..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    /// Each of the 256 ways in which a full commit may be torn gives the one before (what was synced since the last full
    /// commit with it) or the one that was to be.
    #[test]
    fn whatever_is_torn_is_made_whole() {
        let copy = superblock(COPY, 8, 0);
        let before = superblock(FIRST, 8, 4711);
        let after = superblock(FIRST, 9, 0);
        for mask in 0..256_u32 {
            let mut torn = before;
            for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                torn[range.clone()].copy_from_slice(&after[range]);
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("partition");
            let file = File::create(&path).unwrap();
            file.write_all_at(&torn, FIRST).unwrap();
            file.write_all_at(&copy, COPY).unwrap();
            let mended = mend(&path).unwrap();
            let mut found = [0; SIZE];
            File::open(&path).unwrap().read_exact_at(&mut found, FIRST).unwrap();
            assert!(is_whole(&found, FIRST), "{mask:08b}");
            if mask & 1 == 0 {
                assert_eq!(found, before, "{mask:08b}");
                assert_ne!(mended, Mended::New);
            } else {
                assert_eq!(found[CHECKED..SECTOR], after[CHECKED..SECTOR], "{mask:08b}");
                assert_ne!(mended, Mended::Old);
            }
            assert_eq!(mended == Mended::Nothing, torn == found, "{mask:08b}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_as_it_is() {
        let torn = {
            let mut torn = superblock(FIRST, 9, 0);
            torn[3000] ^= 1;
            torn
        };
        let check = |first: [u8; SIZE], copy: [u8; SIZE]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("partition");
            let file = File::create(&path).unwrap();
            file.write_all_at(&first, FIRST).unwrap();
            file.write_all_at(&copy, COPY).unwrap();
            assert_eq!(mend(&path).unwrap(), Mended::Nothing);
            let mut found = [0; SIZE];
            File::open(&path).unwrap().read_exact_at(&mut found, FIRST).unwrap();
            assert_eq!(found, first);
        };
        // No copy, one that is torn too, one of another file system, one of long ago; and what is no superblock.
        check(torn, [0; SIZE]);
        let mut broken = superblock(COPY, 8, 0);
        broken[100] ^= 1;
        check(torn, broken);
        let mut other = superblock(COPY, 8, 0);
        other[40] = 1;
        let sum = checksum(&other[CHECKED..]);
        other[..4].copy_from_slice(&sum.to_le_bytes());
        check(torn, other);
        check(torn, superblock(COPY, 3, 0));
        check([9; SIZE], superblock(COPY, 8, 0));
    }
}
