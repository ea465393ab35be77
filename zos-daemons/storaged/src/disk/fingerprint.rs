//! What is remembered of a disk that the farmer gives away, so that a wipe that was cut short goes on, and only on
//! what he gave away.
//!
//! ```text
//!  0   4   16   32   64 KiB ...            last 4 KiB      blocks in which file systems say who they are
//!  each sector of them: as it was │ zeros │ our own table   ─▶ still what the farmer gave
//!                       anything else                       ─▶ somebody used the disk since: it is his
//! ```
//! By sectors, since a power cut may leave any of them written and the next one not.

use std::io;

use sha2::{Digest, Sha256};

use super::gpt;
use super::header::Header;
use super::read::ReadAt;

/// Characters of a fingerprint.
pub const LENGTH: usize = 6 * (BLOCK / SECTOR) * SUM * 2;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Bytes of a hash that are kept of each sector.
const SUM: usize = 4;

fn blocks(size: u64) -> [u64; 6] {
    [0, 4 << 10, 16 << 10, 32 << 10, 64 << 10, size.saturating_sub(1) / BLOCK as u64 * BLOCK as u64]
}

/// Takes a disk's fingerprint.
pub fn take(disk: &(impl ReadAt + ?Sized)) -> io::Result<String> {
    let mut sums = Vec::new();
    for at in blocks(disk.size()) {
        sums.extend(sectors(disk, at)?.iter().flat_map(|sector| sum(sector)));
    }
    Ok(hex::encode(sums))
}

/// Whether a disk is still the one that a header was written over, as far as it was wiped.
pub fn fits(disk: &(impl ReadAt + ?Sized), block: u32, header: &Header) -> io::Result<bool> {
    let Some(sums) = header.over.as_deref().and_then(|over| hex::decode(over).ok()) else {
        return Ok(false);
    };
    let mut sums = sums.chunks_exact(SUM);
    let table = gpt::build(header.disk_size, block, header.table_id(), header.partition_id());
    for at in blocks(disk.size()) {
        for (place, sector) in (at..).step_by(SECTOR).zip(sectors(disk, at)?) {
            let was = sums.next().is_some_and(|was| was == sum(&sector));
            let ours = || table.iter().any(|piece| holds(piece, place, &sector));
            if !was && sector.iter().any(|byte| *byte != 0) && !ours() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn sectors(disk: &(impl ReadAt + ?Sized), at: u64) -> io::Result<Vec<Vec<u8>>> {
    let length = BLOCK.min(usize::try_from(disk.size() - at).unwrap_or(BLOCK));
    let mut sectors: Vec<Vec<u8>> =
        disk.read_at(at, length)?.chunks(SECTOR).map(<[u8]>::to_vec).collect();
    sectors.resize(BLOCK / SECTOR, vec![0; SECTOR]);
    Ok(sectors)
}

fn sum(sector: &[u8]) -> [u8; SUM] {
    let hash = Sha256::digest(sector);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn holds((from, bytes): &gpt::Piece, at: u64, sector: &[u8]) -> bool {
    let offset = at.checked_sub(*from).and_then(|offset| usize::try_from(offset).ok());
    offset.and_then(|offset| bytes.get(offset..offset + sector.len())) == Some(sector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::header::sample;

    const SIZE: usize = 8 << 20;

    fn foreign() -> Vec<u8> {
        let mut disk = vec![0; SIZE];
        disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
        disk[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
        disk[SIZE - 512..SIZE - 504].copy_from_slice(b"EFI PART");
        disk
    }

    #[test]
    fn what_was_wiped_in_part_fits_and_what_was_used_since_does_not() {
        let over = take(&foreign()[..]).unwrap();
        assert_eq!(over.len(), LENGTH);
        let header = Header { over: Some(over), ..sample(3) };
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: bool| {
            let mut disk = foreign();
            change(&mut disk);
            assert_eq!(fits(&disk[..], 512, &header).unwrap(), expected);
        };
        check(&|_| {}, true);
        check(&|disk| disk[1024..1536].fill(0), true);
        check(&|disk| disk[..].fill(0), true);
        // what nobody watches
        check(&|disk| disk[3 << 20] = 7, true);
        for (at, bytes) in gpt::build(SIZE as u64, 512, header.table_id(), header.partition_id()) {
            let put = |disk: &mut Vec<u8>| {
                let at = usize::try_from(at).unwrap();
                disk[at..at + bytes.len()].copy_from_slice(&bytes);
            };
            check(&put, true);
        }
        check(&|disk| disk[0] = 1, false);
        check(&|disk| disk[1024..1028].copy_from_slice(b"XFSB"), false);
        check(&|disk| disk[SIZE - 1] = 1, false);
        let other = gpt::build(SIZE as u64, 512, gpt::Guid([1; 16]), gpt::Guid([2; 16]));
        check(&|disk| disk[..1024].copy_from_slice(&other[3].1), false);
        let never = Header { over: None, ..header.clone() };
        assert!(!fits(&foreign()[..], 512, &never).unwrap());
    }
}
