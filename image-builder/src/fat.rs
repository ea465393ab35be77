//! A FAT32 file system written in one go (Microsoft "FAT32 File System Specification" 1.03).
//!
//! ```text
//!  sector 0 boot │ 1 FSInfo │ 6, 7 their copies │ 32 FAT │ FAT again │ cluster 2: root, then all else in order
//! ```
//!
//! Files lie in one piece each, so that firmware reads them in long strokes. Every date is 1980-01-01: equal contents
//! give equal bytes. (The `fatfs` crate gives `.` and `..` long names, which fsck and Windows want to repair; it is the
//! independent reader of the tests.)

use crate::error::{Error, Result};

const SECTOR: usize = 512;
const CLUSTER_SECTORS: usize = 2;
/// Bytes in a cluster: FAT32 begins at 65,525 clusters, so at 64 MiB with these.
pub const CLUSTER: usize = SECTOR * CLUSTER_SECTORS;
const RESERVED: usize = 32;
const MIN_CLUSTERS: usize = 65_525;
const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME_ID: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
/// 1980-01-01: year 0, month 1, day 1.
const DATE: u16 = 0x0021;
const END: u32 = 0x0fff_ffff;

/// What lies in a folder.
#[derive(Clone, Debug)]
pub enum Node<'a> {
    /// A file's content.
    File(&'a [u8]),
    /// A folder's entries: name and content. Names are ASCII.
    Dir(Vec<(&'a str, Node<'a>)>),
}

/// What names a volume.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// Serial number.
    pub id: u32,
    /// Label, padded with spaces.
    pub label: [u8; 11],
    /// Sectors of the disk before this partition.
    pub hidden: u32,
}

/// A file system of `size` bytes with these entries in its root.
///
/// # Errors
/// Contents that don't fit, a size that isn't FAT32's, or a name that isn't ASCII and 1 to 13 characters.
pub fn format(size: usize, volume: Volume, root: &[(&str, Node<'_>)]) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::form("FAT32", why);
    let sectors = size / SECTOR;
    // The FAT grows with the clusters that remain beside it: start large, it only shrinks.
    let mut fat_sectors = (sectors * 4).div_ceil(SECTOR);
    let clusters = loop {
        let used = RESERVED + 2 * fat_sectors;
        let clusters =
            sectors.checked_sub(used).ok_or_else(|| bad("is too small"))? / CLUSTER_SECTORS;
        let needed = ((clusters + 2) * 4).div_ceil(SECTOR);
        if needed >= fat_sectors {
            break clusters;
        }
        fat_sectors -= 1;
    };
    let total = u32::try_from(sectors).map_err(|_| bad("is too large"))?;
    if clusters < MIN_CLUSTERS {
        return Err(bad("is too small: fewer than 65,525 clusters"));
    }
    let mut writer = Writer {
        bytes: vec![0; sectors * SECTOR],
        fat: vec![0x0fff_fff8, END],
        data: (RESERVED + 2 * fat_sectors) * SECTOR,
        clusters,
    };
    let first = writer.reserve(dir_size(root, false))?;
    writer.dir(first, None, Some(volume.label), root)?;

    let Writer { mut bytes, fat, .. } = writer;
    let free = clusters + 2 - fat.len();
    for copy in 0..2 {
        let start = (RESERVED + copy * fat_sectors) * SECTOR;
        for (i, entry) in fat.iter().enumerate() {
            put32(&mut bytes, start + 4 * i, *entry);
        }
    }
    for start in [0, 6 * SECTOR] {
        boot_sector(&mut bytes[start..start + SECTOR], volume, total, word(fat_sectors), first);
        info_sector(&mut bytes[start + SECTOR..start + 2 * SECTOR], word(free), word(fat.len()));
    }
    Ok(bytes)
}

struct Writer {
    bytes: Vec<u8>,
    fat: Vec<u32>,
    /// Where cluster 2 begins.
    data: usize,
    clusters: usize,
}

impl Writer {
    /// A run of clusters for so many bytes; gives the first.
    fn reserve(&mut self, size: usize) -> Result<u32> {
        let count = size.div_ceil(CLUSTER).max(1);
        let first = self.fat.len();
        if first + count > self.clusters + 2 {
            return Err(Error::form("FAT32", "the contents don't fit"));
        }
        self.fat.extend((1..count).map(|i| word(first + i)));
        self.fat.push(END);
        Ok(word(first))
    }

    fn place(&mut self, cluster: u32, offset: usize, data: &[u8]) {
        let at = self.data + (cluster as usize - 2) * CLUSTER + offset;
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// Writes a folder's entries, and all below it. `parent` is absent for the root.
    fn dir(
        &mut self,
        own: u32,
        parent: Option<u32>,
        label: Option<[u8; 11]>,
        entries: &[(&str, Node<'_>)],
    ) -> Result<()> {
        let mut table = Vec::new();
        if let Some(label) = label {
            table.extend(entry(label, VOLUME_ID, 0, 0));
        }
        if let Some(parent) = parent {
            table.extend(entry(*b".          ", DIRECTORY, own, 0));
            table.extend(entry(*b"..         ", DIRECTORY, parent, 0));
        }
        for (number, (name, node)) in entries.iter().enumerate() {
            let short = short_name(name, number)?;
            if !is_short(name) {
                table.extend(long_name(name, &short));
            }
            match node {
                Node::File(data) => {
                    let size = u32::try_from(data.len())
                        .map_err(|_| Error::form(*name, "is 4 GiB or more"))?;
                    // A file without bytes has no cluster.
                    let first = if data.is_empty() { 0 } else { self.reserve(data.len())? };
                    if !data.is_empty() {
                        self.place(first, 0, data);
                    }
                    table.extend(entry(short, ARCHIVE, first, size));
                }
                Node::Dir(below) => {
                    let first = self.reserve(dir_size(below, true))?;
                    // The root is 0 for its children, whatever its cluster.
                    self.dir(first, Some(if parent.is_none() { 0 } else { own }), None, below)?;
                    table.extend(entry(short, DIRECTORY, first, 0));
                }
            }
        }
        self.place(own, 0, &table);
        Ok(())
    }
}

/// Bytes of a folder's table: the label or the two dots, then one or two entries each.
fn dir_size(entries: &[(&str, Node<'_>)], below_root: bool) -> usize {
    let named: usize = entries.iter().map(|(name, _)| if is_short(name) { 1 } else { 2 }).sum();
    (named + if below_root { 2 } else { 1 }) * ENTRY
}

fn entry(name: [u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let mut e = [0; ENTRY];
    e[..11].copy_from_slice(&name);
    e[11] = attributes;
    for at in [16, 18, 24] {
        e[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    let cluster = cluster.to_le_bytes();
    e[20..22].copy_from_slice(&cluster[2..]);
    e[26..28].copy_from_slice(&cluster[..2]);
    e[28..32].copy_from_slice(&size.to_le_bytes());
    e
}

/// Whether a name is its own short name: capitals, digits, underscore, 8.3.
fn is_short(name: &str) -> bool {
    let plain = |part: &str| {
        part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    match name.split_once('.') {
        Some((base, end)) => {
            (1..=8).contains(&base.len())
                && (1..=3).contains(&end.len())
                && plain(base)
                && plain(end)
        }
        None => (1..=8).contains(&name.len()) && plain(name),
    }
}

/// The short name; one made up for a long name carries its number in the folder, so that two never collide.
fn short_name(name: &str, number: usize) -> Result<[u8; 11]> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 13 || !name.bytes().all(good) {
        return Err(Error::form(name, "isn't a name of 1 to 13 letters, digits, `.`, `_`, `-`"));
    }
    let upper = name.to_ascii_uppercase();
    let (base, end) = upper.rsplit_once('.').unwrap_or((&upper, ""));
    let base = if is_short(name) {
        base.to_owned()
    } else {
        let start: String = base.chars().filter(char::is_ascii_alphanumeric).take(4).collect();
        format!("{start}~{}", number + 1)
    };
    let mut short = [b' '; 11];
    for (to, from) in short[..8].iter_mut().zip(base.bytes()) {
        *to = from;
    }
    for (to, from) in short[8..].iter_mut().zip(end.bytes()) {
        *to = from;
    }
    Ok(short)
}

/// The entry before a short name that holds up to 13 characters of the long one.
fn long_name(name: &str, short: &[u8; 11]) -> [u8; ENTRY] {
    const PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let mut e = [0; ENTRY];
    e[0] = 0x41;
    e[11] = LONG_NAME;
    e[13] = short.iter().fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
    // After the name one NUL, then all ones.
    let units = name.bytes().map(u16::from).chain([0]).chain(std::iter::repeat(0xffff));
    for (at, unit) in PLACES.into_iter().zip(units) {
        e[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    e
}

#[expect(clippy::cast_possible_truncation, reason = "constants of this file, all small")]
fn boot_sector(s: &mut [u8], volume: Volume, sectors: u32, fat_sectors: u32, root: u32) {
    // A jump over the fields to an endless loop: nobody boots this by BIOS.
    s[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    s[0x5a..0x5c].copy_from_slice(&[0xeb, 0xfe]);
    s[3..11].copy_from_slice(b"ZOS     ");
    put16(s, 11, SECTOR as u16);
    s[13] = CLUSTER_SECTORS as u8;
    put16(s, 14, RESERVED as u16);
    s[16] = 2;
    s[21] = 0xf8;
    put16(s, 24, 63);
    put16(s, 26, 255);
    put32(s, 28, volume.hidden);
    put32(s, 32, sectors);
    put32(s, 36, fat_sectors);
    put32(s, 44, root);
    put16(s, 48, 1);
    put16(s, 50, 6);
    s[64] = 0x80;
    s[66] = 0x29;
    put32(s, 67, volume.id);
    s[71..82].copy_from_slice(&volume.label);
    s[82..90].copy_from_slice(b"FAT32   ");
    put16(s, 510, 0xaa55);
}

fn info_sector(s: &mut [u8], free: u32, next: u32) {
    put32(s, 0, 0x4161_5252);
    put32(s, 484, 0x6141_7272);
    put32(s, 488, free);
    put32(s, 492, next);
    put32(s, 508, 0xaa55_0000);
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Counts of clusters and sectors: `format` has checked that all of them fit.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Read as _};

    const VOLUME: Volume = Volume { id: 0x1234_abcd, label: *b"ZOS        ", hidden: 2048 };
    const SIZE: usize = 72 << 20;

    fn read(space: Vec<u8>, path: &str) -> Vec<u8> {
        let fs = fatfs::FileSystem::new(Cursor::new(space), fatfs::FsOptions::new()).unwrap();
        assert_eq!(fs.fat_type(), fatfs::FatType::Fat32);
        let mut data = Vec::new();
        fs.root_dir().open_file(path).unwrap().read_to_end(&mut data).unwrap();
        data
    }

    #[test]
    fn fsck_has_nothing_to_say() {
        if !crate::tool::present("fsck.vfat") && !crate::tool::present("/usr/sbin/fsck.vfat") {
            return;
        }
        let efi =
            Node::Dir(vec![("BOOT", Node::Dir(vec![("BOOTX64.EFI", Node::File(&[7; 5000]))]))]);
        let root = [("EFI", efi), ("zos.conf", Node::File(b"x")), ("empty.txt", Node::File(b""))];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format(SIZE, VOLUME, &root).unwrap()).unwrap();
        let mut fsck = std::process::Command::new("fsck.vfat");
        fsck.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-n").arg(file.path());
        let said = crate::tool::output(&mut fsck).unwrap();
        // The version, then the count of files.
        assert_eq!(said.lines().count(), 2, "{said}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(format(8 << 20, VOLUME, &[]).is_err());
        assert!(format(SIZE, VOLUME, &[("A", Node::File(&vec![1; SIZE]))]).is_err());
        for name in ["", "a b", "fourteen.chars", "ä"] {
            assert!(format(SIZE, VOLUME, &[(name, Node::File(b"x"))]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn short_names() {
        for (name, wanted) in
            [("EFI", b"EFI        "), ("BOOTX64.EFI", b"BOOTX64 EFI"), ("zos.conf", b"ZOS~3   CON")]
        {
            assert_eq!(&short_name(name, 2).unwrap(), wanted);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn an_independent_reader_finds_every_byte(
            names in proptest::collection::btree_set("[a-z]{1,6}\\.[a-z]{1,4}", 1..6), size in 0usize..20_000
        ) {
            let data: Vec<u8> = (0u8..251).cycle().take(size).collect();
            let files = names.iter().map(|n| (n.as_str(), Node::File(&data))).collect();
            let space = format(SIZE, VOLUME, &[("EFI", Node::Dir(files))]).unwrap();
            for name in &names {
                prop_assert_eq!(&read(space.clone(), &format!("EFI/{name}")), &data);
            }
        }
    }
}
