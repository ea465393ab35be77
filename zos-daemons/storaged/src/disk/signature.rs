//! What a disk holds, by the marks that file systems, tables and volume managers leave on it.
//!
//! Both ends are looked at: GPT, RAID and ZFS keep copies of what they are at the end. A mark that
//! is found by chance makes an empty disk foreign, which costs a question to the farmer; a mark
//! that is missed costs his data. So the rules are short and few of them check further.

/// Enough of the begin for every mark known here, in bytes.
pub const HEAD: usize = 5 << 20;
/// Enough of the end.
pub const TAIL: usize = 1 << 20;

/// Both ends of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The disk's size in bytes.
    pub size: u64,
    /// From its begin.
    pub head: &'a [u8],
    /// To its end.
    pub tail: &'a [u8],
}

impl<'a> Ends<'a> {
    /// The bytes at an offset, if they were read.
    fn at(&self, offset: u64, length: usize) -> Option<&'a [u8]> {
        let within = |bytes: &'a [u8], offset: u64| {
            let from = usize::try_from(offset).ok()?;
            bytes.get(from..from.checked_add(length)?)
        };
        let tail_from = self.size.checked_sub(self.tail.len() as u64)?;
        within(self.head, offset).or_else(|| within(self.tail, offset.checked_sub(tail_from)?))
    }

    fn has(&self, offset: u64, mark: &[u8]) -> bool {
        self.at(offset, mark.len()) == Some(mark)
    }
}

/// A mark at fixed places: name, offsets from the begin, bytes.
type Mark = (&'static str, &'static [u64], &'static [u8]);

/// Marks by the begin of the disk.
const AT_BEGIN: &[Mark] = &[
    ("GPT", &[512, 4096], b"EFI PART"),
    ("ext2/3/4", &[1024 + 56], &[0x53, 0xef]),
    ("xfs", &[0], b"XFSB"),
    ("btrfs", &[0x1_0040], b"_BHRfS_M"),
    (
        "bcachefs",
        &[4096 + 24],
        &[
            0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d,
            0xf7, 0xef,
        ],
    ),
    (
        "bcache",
        &[4096 + 24],
        &[
            0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba,
            0x6d, 0x81,
        ],
    ),
    ("LVM2", &[0, 512, 1024, 1536], b"LABELONE"),
    ("LUKS", &[0], b"LUKS\xba\xbe"),
    (
        "LUKS2 backup header",
        &[0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000],
        b"SKUL\xba\xbe",
    ),
    ("mdraid 1.1", &[0], &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("mdraid 1.2", &[4096], &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("NTFS", &[3], b"NTFS    "),
    ("ReFS", &[3], b"ReFS\0\0\0\0"),
    ("BitLocker", &[3], b"-FVE-FS-"),
    ("exFAT", &[3], b"EXFAT   "),
    ("FAT", &[54], b"FAT12   "),
    ("FAT", &[54], b"FAT16   "),
    ("FAT", &[54], b"FAT     "),
    ("FAT", &[82], b"FAT32   "),
    ("swap", &[4086, 8182, 16374, 65526], b"SWAPSPACE2"),
    ("swap", &[4086, 8182, 16374, 65526], b"SWAP-SPACE"),
    ("hibernation image", &[4086], b"S1SUSPEND"),
    ("ISO9660", &[0x8001], b"CD001"),
    ("UDF", &[0x8001, 0x8801], b"BEA01"),
    ("UDF", &[0x8001, 0x8801, 0x9001], b"NSR0"),
    ("f2fs", &[1024], &[0x10, 0x20, 0xf5, 0xf2]),
    ("erofs", &[1024], &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("squashfs", &[0], b"hsqs"),
    ("HFS+", &[1024], b"H+\0\x04"),
    ("HFSX", &[1024], b"HX\0\x05"),
    ("APFS", &[32], b"NXSB"),
    ("jfs", &[0x8000], b"JFS1"),
    ("reiserfs", &[0x1_0034], b"ReIsEr"),
    ("reiser4", &[0x1_0000], b"ReIsEr4"),
    ("nilfs2", &[1024 + 6], &[0x34, 0x34]),
    ("gfs2", &[0x1_0000], &[0x01, 0x16, 0x19, 0x70]),
    ("ocfs2", &[1024, 2048, 4096, 8192], b"OCFSV2"),
    ("VMFS", &[0x10_0000], &[0x0d, 0xd0, 0x01, 0xc0]),
    ("VMFS", &[0x20_0000], &[0x5e, 0xf1, 0xab, 0x2f]),
    ("Ceph BlueStore", &[0], b"bluestore block device"),
    ("Stratis", &[512 + 4, 512 * 9 + 4], b"!Stra0tis\x86\xff\x02^Arh"),
    ("VDO", &[0], b"dmvdo001"),
    ("dm-integrity", &[0], b"integrt\0"),
    ("dm-verity", &[0], b"verity\0\0"),
    ("dm-snapshot", &[0], b"SnAp"),
    ("Sun label", &[508], &[0xda, 0xbe]),
    ("Apple partition map", &[512], b"PM\0\0"),
    ("Atari or Amiga label", &[0], b"RDSK"),
    ("minix", &[1024 + 16], &[0x8f, 0x13]),
    ("UFS", &[8192 + 1372, 65536 + 1372], &[0x19, 0x01, 0x54, 0x19]),
    ("UFS", &[8192 + 1372, 65536 + 1372], &[0x54, 0x19, 0x01, 0x00]),
];

/// Marks by the end of the disk: offsets back from it.
const AT_END: &[Mark] = &[
    ("GPT backup", &[512, 4096], b"EFI PART"),
    ("DDF RAID", &[512], &[0xde, 0x11, 0xde, 0x11]),
    ("Intel RAID", &[1024, 8192], b"Intel Raid ISM Cfg Sig. "),
    ("NTFS backup", &[512 - 3, 4096 - 3], b"NTFS    "),
];

const MD_MAGIC: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

/// Every kind of thing that is found, each once; empty when nothing is known of the disk.
pub fn find(ends: &Ends<'_>) -> Vec<&'static str> {
    let at_begin = AT_BEGIN
        .iter()
        .filter(|(_, places, mark)| places.iter().any(|place| ends.has(*place, mark)));
    let at_end = AT_END.iter().filter(|(_, places, mark)| {
        places.iter().any(|back| ends.size.checked_sub(*back).is_some_and(|at| ends.has(at, mark)))
    });
    let mut found: Vec<&'static str> = at_begin.chain(at_end).map(|(name, ..)| *name).collect();
    let sized = [
        ("mdraid 1.0", mdraid_1_0(ends.size).is_some_and(|at| ends.has(at, MD_MAGIC))),
        ("mdraid 0.9", mdraid_0_9(ends.size).is_some_and(|at| ends.has(at, MD_MAGIC))),
        ("ZFS", zfs(ends)),
    ];
    found.extend(sized.iter().filter(|(_, there)| *there).map(|(name, _)| *name));
    // A boot sector's last two bytes say little by themselves: every FAT, NTFS and GPT has them.
    if found.is_empty() && ends.has(510, &[0x55, 0xaa]) {
        found.push("MBR or boot sector");
    }
    found.dedup();
    found
}

/// Superblock 1.0: at least 8 KiB before the end, at a multiple of 4 KiB (md(4)).
fn mdraid_1_0(size: u64) -> Option<u64> {
    Some(((size / 512).checked_sub(16)? & !7) * 512)
}

/// Superblock 0.90: the last whole 64 KiB (md(4)).
fn mdraid_0_9(size: u64) -> Option<u64> {
    (size & !0xffff).checked_sub(0x1_0000)
}

/// An uberblock (magic 0x00bab10c in either order of bytes) in one of the four labels of 256 KiB:
/// two at each end, uberblocks in their second half.
fn zfs(ends: &Ends<'_>) -> bool {
    const LABEL: u64 = 256 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    let end = ends.size - ends.size % LABEL;
    let labels = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
    labels.into_iter().flatten().any(|label| {
        (LABEL / 2..LABEL).step_by(1024).any(|at| {
            let magic = ends.at(label + at, 8).and_then(|bytes| bytes.try_into().ok());
            magic.is_some_and(|m| u64::from_le_bytes(m) == MAGIC || u64::from_be_bytes(m) == MAGIC)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 80 << 20;

    /// A disk of one constant byte but for a mark.
    fn marked(at: usize, mark: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut disk = vec![0; SIZE];
        disk[at..at + mark.len()].copy_from_slice(mark);
        (disk[..HEAD].to_vec(), disk[SIZE - TAIL..].to_vec())
    }

    fn found(ends: &(Vec<u8>, Vec<u8>)) -> Vec<&'static str> {
        find(&Ends { size: SIZE as u64, head: &ends.0, tail: &ends.1 })
    }

    #[test]
    fn every_mark_is_found_at_each_of_its_places() {
        for (name, places, mark) in AT_BEGIN {
            for place in places.iter().filter(|place| **place < HEAD as u64) {
                let ends = marked(usize::try_from(*place).unwrap(), mark);
                assert!(found(&ends).contains(name), "{name} at {place}");
            }
        }
        for (name, places, mark) in AT_END {
            for back in *places {
                let ends = marked(SIZE - usize::try_from(*back).unwrap(), mark);
                assert!(found(&ends).contains(name), "{name} at -{back}");
            }
        }
    }

    #[test]
    fn marks_whose_place_hangs_on_the_size() {
        let check = |at: usize, mark: &[u8], name: &str| {
            assert_eq!(found(&marked(at, mark)), [name], "at {at}");
        };
        check(SIZE - 8192, MD_MAGIC, "mdraid 1.0");
        check(SIZE - 65536, MD_MAGIC, "mdraid 0.9");
        let uberblock = 0x00ba_b10c_u64.to_le_bytes();
        check((128 << 10) + 4096, &uberblock, "ZFS");
        check((256 << 10) + (255 << 10), &0x00ba_b10c_u64.to_be_bytes(), "ZFS");
        check(SIZE - (512 << 10) + (128 << 10), &uberblock, "ZFS");
        check(SIZE - (128 << 10), &uberblock, "ZFS");
        check(510, &[0x55, 0xaa], "MBR or boot sector");
    }

    #[test]
    fn nothing_is_found_on_nothing() {
        for byte in [0, 0xff, 0x53] {
            let ends = (vec![byte; HEAD], vec![byte; TAIL]);
            assert!(found(&ends).is_empty(), "{byte}");
        }
    }

    proptest! {
        #[test]
        fn any_disk_is_judged_without_a_panic(bytes: Vec<u8>, size: u64, cut in 0..1usize << 17) {
            let _ = find(&Ends { size, head: &bytes, tail: &bytes });
            let zeros = vec![0; cut];
            let _ = find(&Ends { size: cut as u64, head: &zeros, tail: &zeros });
        }
    }
}
