//! Unique ids of partitions, from the disk itself (UEFI 2.10, 5.3 "GUID Partition Table").
//!
//! The kernel knows them, and tells them in `uevent` only since 6.13; before that we read what it read. Both
//! checksums must be right, so that garbage names nothing.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

/// Most entries that are read, and their largest size in bytes: tables in use have 128 of 128.
const MAX_ENTRIES: u32 = 1024;
const MAX_ENTRY: u32 = 1024;

/// Unique ids by partition number, lower case with dashes; `None` when there is no good table. `block` is the
/// disk's logical block size in bytes.
pub(super) fn unique_ids(
    disk: &mut (impl Read + Seek),
    block: u32,
) -> Option<BTreeMap<u32, String>> {
    let header = read(disk, u64::from(block), 512)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if header.get(..8)? != b"EFI PART" {
        return None;
    }
    let size = usize::try_from(u32_at(12)?).ok().filter(|size| (92..=512).contains(size))?;
    let mut unsigned = header.get(..size)?.to_vec();
    unsigned.get_mut(16..20)?.fill(0);
    if crc32(&unsigned) != u32_at(16)? {
        return None;
    }
    let first = u64::from_le_bytes(header.get(72..80)?.try_into().ok()?);
    let (count, entry) = (u32_at(80)?, u32_at(84)?);
    if count > MAX_ENTRIES || !(128..=MAX_ENTRY).contains(&entry) {
        return None;
    }
    let length = usize::try_from(count * entry).ok()?;
    let table = read(disk, first.checked_mul(u64::from(block))?, length)?;
    if crc32(&table) != u32_at(88)? {
        return None;
    }
    let entries = table.chunks_exact(usize::try_from(entry).ok()?);
    // A type of zeros is an unused entry.
    let used = (1..).zip(entries).filter(|(_, entry)| entry[..16].iter().any(|byte| *byte != 0));
    Some(used.map(|(number, entry)| (number, guid(&entry[16..32]))).collect())
}

fn read(disk: &mut (impl Read + Seek), at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    disk.seek(SeekFrom::Start(at)).ok()?;
    disk.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The first three fields are little-endian, the rest stands as it is written (UEFI, appendix A).
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (place, at) in ORDER.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(*at).copied().unwrap_or(0)));
    }
    text
}

/// CRC-32 as Ethernet has it: polynomial 04C11DB7, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A disk of 40 blocks with one partition, number 2.
    fn disk(block: usize) -> Vec<u8> {
        let mut disk = vec![0; 40 * block];
        let mut table = vec![0_u8; 128 * 128];
        table[128..144].fill(7);
        for (at, byte) in table[144..160].iter_mut().enumerate() {
            *byte = u8::try_from(at).unwrap();
        }
        disk[2 * block..2 * block + table.len()].copy_from_slice(&table);
        let mut header = vec![0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[block..block + 92].copy_from_slice(&header);
        disk
    }

    #[test]
    fn ids_by_number() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        for block in [512, 4096] {
            let found = unique_ids(&mut Cursor::new(disk(block)), u32::try_from(block).unwrap());
            let expect = "03020100-0504-0706-0809-0a0b0c0d0e0f".to_owned();
            assert_eq!(found, Some(BTreeMap::from([(2, expect)])), "{block}");
        }
    }

    #[test]
    fn damage_names_nothing() {
        for at in [512, 512 + 17, 512 + 73, 512 + 89, 1024 + 130] {
            let mut disk = disk(512);
            disk[at] ^= 1;
            assert_eq!(unique_ids(&mut Cursor::new(disk), 512), None, "{at}");
        }
        assert_eq!(unique_ids(&mut Cursor::new(vec![0; 600]), 512), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(header in proptest::collection::vec(any::<u8>(), 84), right in any::<bool>()) {
            let mut disk = disk(512);
            disk[520..604].copy_from_slice(&header);
            if right {
                disk[512 + 12..512 + 16].copy_from_slice(&92_u32.to_le_bytes());
                disk[512 + 16..512 + 20].fill(0);
                let crc = crc32(&disk[512..604]);
                disk[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = unique_ids(&mut Cursor::new(disk), 512);
        }
    }
}
