//! The partition table of our disks: GPT (UEFI 2.10, chapter 5) with one partition of our own type.
//!
//! ```text
//!  LBA 0      protective MBR
//!  LBA 1      header              ─┐ each says where the other is
//!  LBA 2..    128 entries          │
//!  512 KiB    pool header          │  (header.rs; the gap before the first partition is ours)
//!  1 MiB      the pool             │
//!  ...                             │
//!  last 1 MiB 128 entries, header ─┘
//! ```

use std::io;

use super::read::ReadAt;

/// The type of a partition that holds a pool: `5a4f5350-6f6f-4c31-a7d2-3c9e01b48f66`.
pub const POOL_TYPE: Guid = Guid([
    0x50, 0x53, 0x4f, 0x5a, 0x6f, 0x6f, 0x31, 0x4c, 0xa7, 0xd2, 0x3c, 0x9e, 0x01, 0xb4, 0x8f, 0x66,
]);
/// Where the pool's partition begins, and how much of the disk's end it leaves, in bytes.
pub const MARGIN: u64 = 1 << 20;

const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const TABLE: usize = ENTRIES * ENTRY;
const SIGNATURE: &[u8; 8] = b"EFI PART";

/// A GUID in its bytes on disk: the first three fields are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A random one (RFC 9562, version 4).
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

/// A partition, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its type.
    pub kind: Guid,
    /// Its own id.
    pub id: Guid,
    /// First byte.
    pub start: u64,
    /// Size.
    pub size: u64,
}

/// Bytes and where on the disk they belong.
pub type Piece = (u64, Vec<u8>);

/// The place of the pool on a disk of this size.
pub fn pool_place(size: u64) -> (u64, u64) {
    let end = (size - MARGIN) / MARGIN * MARGIN;
    (MARGIN, end - MARGIN)
}

/// A table with one partition for a pool, as pieces in the order in which they must become durable:
/// the last one (protective MBR and primary header) makes it a table.
pub fn build(size: u64, block: u32, disk: Guid, pool: Guid) -> Vec<Piece> {
    let block = u64::from(block);
    let (start, length) = pool_place(size);
    let table_blocks = (TABLE as u64).div_ceil(block);
    let last = size / block - 1;
    let mut table = vec![0; TABLE];
    table[..16].copy_from_slice(&POOL_TYPE.0);
    table[16..32].copy_from_slice(&pool.0);
    put64(&mut table, 32, start / block);
    put64(&mut table, 40, (start + length) / block - 1);
    for (unit, at) in "zos pool".encode_utf16().zip((56..).step_by(2)) {
        table[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    let header = |mine: u64, other: u64, entries: u64| {
        let mut header = vec![0; usize::try_from(block).unwrap_or(512)];
        header[..8].copy_from_slice(SIGNATURE);
        put32(&mut header, 8, 0x0001_0000);
        put32(&mut header, 12, 92);
        put64(&mut header, 24, mine);
        put64(&mut header, 32, other);
        put64(&mut header, 40, 2 + table_blocks);
        put64(&mut header, 48, last - table_blocks - 1);
        header[56..72].copy_from_slice(&disk.0);
        put64(&mut header, 72, entries);
        put32(&mut header, 80, 128);
        put32(&mut header, 84, 128);
        put32(&mut header, 88, crc32fast::hash(&table));
        let sum = crc32fast::hash(&header[..92]);
        put32(&mut header, 16, sum);
        header
    };
    let mut first = protective_mbr(last);
    first.resize(usize::try_from(block).unwrap_or(512), 0);
    first.extend(header(1, last, 2));
    vec![
        ((last - table_blocks) * block, table.clone()),
        (last * block, header(last, 1, last - table_blocks)),
        (2 * block, table.clone()),
        (0, first),
    ]
}

fn protective_mbr(last: u64) -> Vec<u8> {
    let mut mbr = vec![0; 512];
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    put32(&mut mbr, 458, u32::try_from(last).unwrap_or(u32::MAX));
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

/// The partitions of a disk by its primary table or, if that is broken, by its backup; none when
/// there is no valid table.
pub fn read(disk: &(impl ReadAt + ?Sized), block: u32) -> io::Result<Option<Vec<Partition>>> {
    let block = u64::from(block);
    if disk.size() < 128 * block {
        return Ok(None);
    }
    for lba in [1, disk.size() / block - 1] {
        let at = lba * block;
        let from = at - at % 4096;
        let length = 4096.min(usize::try_from(disk.size() - from).unwrap_or(4096));
        let bytes = disk.read_at(from, length)?;
        let Some(header) = Header::parse(&bytes[usize::try_from(at - from).unwrap_or(0)..]) else {
            continue;
        };
        let Some(entries) = header.entries_at.checked_mul(block) else { continue };
        if header.mine != lba || entries + TABLE as u64 > disk.size() {
            continue;
        }
        let from = entries - entries % 4096;
        let skip = usize::try_from(entries - from).unwrap_or(0);
        let length = (skip + TABLE).next_multiple_of(4096);
        let length = length.min(usize::try_from(disk.size() - from).unwrap_or(length));
        let bytes = disk.read_at(from, length)?;
        let table = &bytes[skip..skip + TABLE];
        if crc32fast::hash(table) == header.table_sum {
            return Ok(Some(partitions(table, block)));
        }
    }
    Ok(None)
}

struct Header {
    mine: u64,
    entries_at: u64,
    table_sum: u32,
}

impl Header {
    /// A header with 128 entries of 128 bytes, as everybody writes them.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..92)?;
        let mut summed = header.to_vec();
        summed[16..20].fill(0);
        let fits = &header[..8] == SIGNATURE
            && get32(header, 12) == 92
            && get32(header, 16) == crc32fast::hash(&summed)
            && get32(header, 80) == 128
            && get32(header, 84) == 128;
        fits.then(|| Self {
            mine: get64(header, 24),
            entries_at: get64(header, 72),
            table_sum: get32(header, 88),
        })
    }
}

fn partitions(table: &[u8], block: u64) -> Vec<Partition> {
    let guid = |bytes: &[u8]| Guid(bytes.try_into().expect("16 bytes"));
    table
        .chunks_exact(ENTRY)
        .filter(|entry| entry[..16] != [0; 16])
        .filter_map(|entry| {
            let (first, last) = (get64(entry, 32), get64(entry, 40));
            Some(Partition {
                kind: guid(&entry[..16]),
                id: guid(&entry[16..32]),
                start: first.checked_mul(block)?,
                size: last.checked_sub(first)?.checked_add(1)?.checked_mul(block)?,
            })
        })
        .collect()
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POOL: Guid = Guid([7; 16]);

    fn written(size: u64, block: u32) -> Vec<u8> {
        let mut disk = vec![0; usize::try_from(size).unwrap()];
        for (at, bytes) in build(size, block, Guid([9; 16]), POOL) {
            let at = usize::try_from(at).unwrap();
            disk[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        disk
    }

    #[test]
    fn a_table_is_read_as_it_was_written_from_either_end() {
        let check = |size: u64, block: u32| {
            let disk = written(size, block);
            let (start, length) = pool_place(size);
            let pool = Partition { kind: POOL_TYPE, id: POOL, start, size: length };
            assert_eq!(read(&disk[..], block).unwrap(), Some(vec![pool]), "{size} {block}");
            assert!(start + length <= size - MARGIN);
            let mut broken = disk.clone();
            broken[..4096 * 2].fill(0);
            assert_eq!(
                read(&broken[..], block).unwrap(),
                Some(vec![pool]),
                "backup {size} {block}"
            );
            let end = broken.len();
            broken[end - 4096..].fill(0);
            assert_eq!(read(&broken[..], block).unwrap(), None);
        };
        check(8 << 20, 512);
        check((8 << 20) + 512, 512);
        check((9 << 20) + 7 * 512, 512);
        check(8 << 20, 4096);
        check((8 << 20) + 4096, 4096);
    }

    /// An independent implementation reads what we write.
    #[test]
    fn others_read_it_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), written(8 << 20, 512)).unwrap();
        let disk = gpt::GptConfig::new().writable(false).open(file.path()).unwrap();
        let header = disk.primary_header().unwrap();
        assert!(disk.backup_header().is_ok());
        let found = &disk.partitions()[&1];
        assert_eq!(found.part_type_guid.guid.to_string(), "5a4f5350-6f6f-4c31-a7d2-3c9e01b48f66");
        assert_eq!((found.first_lba, found.last_lba), (2048, 14335));
        assert_eq!(found.name, "zos pool");
        assert!(header.first_usable <= found.first_lba && found.last_lba <= header.last_usable);
    }

    proptest! {
        #[test]
        fn any_change_in_the_primary_is_noticed_or_harmless(at in 512..2048usize, bit in 0..8u8) {
            let mut disk = written(4 << 20, 512);
            let before = read(&disk[..], 512).unwrap();
            disk[at] ^= 1 << bit;
            prop_assert_eq!(read(&disk[..], 512).unwrap(), before);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, at in 0..4096usize) {
            let mut disk = written(1 << 21, 512);
            let to = (at + bytes.len()).min(disk.len());
            disk[at..to].copy_from_slice(&bytes[..to - at]);
            let _ = read(&disk[..], 512);
            let _ = read(&bytes[..], 512);
        }

        #[test]
        fn a_forged_header_is_read_without_a_panic(entries: u64, mine in 0..3u64) {
            let mut disk = written(1 << 21, 512);
            put64(&mut disk, 512 + 24, mine);
            put64(&mut disk, 512 + 72, entries);
            put32(&mut disk, 512 + 16, 0);
            let sum = crc32fast::hash(&disk[512..512 + 92]);
            put32(&mut disk, 512 + 16, sum);
            let _ = read(&disk[..], 512);
        }
    }
}
