//! What lies where on a disk, for people: the marks of the whole and of each partition.
//!
//! ```text
//!  disk ─┬─ both ends of the whole ─▶ GPT, mdraid 1.2, ZFS, a pool of ZOS ...
//!        └─ both ends of each partition that the kernel knows ─▶ NTFS, LUKS, LVM2 ...
//! ```
//! Nothing is decided here: that is `judge`'s, which reads less and asks twice.

use std::io;

use zos_host::block::Partition;

use super::header::{self, Found};
use super::read::{ReadAt, Window};
use super::signature::{self, Ends};

/// What was found on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// On the whole.
    pub whole: Vec<String>,
    /// The partitions that the kernel knew then, each with what is in it.
    pub partitions: Vec<(Partition, Vec<String>)>,
}

impl Marks {
    /// In words: `GPT; partition 1: FAT, partition 2: LUKS`. Empty: nothing known.
    pub fn in_words(&self) -> String {
        let inside = self.partitions.iter().filter(|(_, marks)| !marks.is_empty());
        let inside: Vec<String> = inside
            .map(|(at, marks)| format!("partition {}: {}", at.number, marks.join(" and ")))
            .collect();
        let parts = [self.whole.join(", "), inside.join(", ")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// Looks at a disk with the partitions that the kernel knows of. A partition that can't be read says so.
pub fn look(disk: &(impl ReadAt + ?Sized), partitions: &[Partition]) -> io::Result<Marks> {
    let mut whole = ends(disk)?;
    if whole == ["MBR or boot sector"] && !partitions.is_empty() {
        whole = vec!["MBR".to_owned()];
    }
    let at = usize::try_from(header::AT).unwrap_or(usize::MAX);
    let first = disk.head(1 << 20)?;
    if first.get(at..at + header::SIZE).is_some_and(|slots| header::read(slots) != Found::None) {
        whole.push("pool of ZOS".to_owned());
    }
    let inside = partitions.iter().map(|partition| {
        let window = Window { disk, start: partition.start, size: partition.size };
        let marks = ends(&window).unwrap_or_else(|error| vec![format!("unreadable: {error}")]);
        (partition.clone(), marks)
    });
    Ok(Marks { whole, partitions: inside.collect() })
}

fn ends(disk: &(impl ReadAt + ?Sized)) -> io::Result<Vec<String>> {
    let head = disk.head(signature::HEAD)?;
    let (_, tail) = disk.tail(signature::TAIL)?;
    let marks = signature::find(&Ends { size: disk.size(), head: &head, tail: &tail });
    Ok(marks.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(number: u32, start: u64, size: u64) -> Partition {
        let name = format!("sda{number}");
        let holders = Vec::new();
        Partition {
            name,
            number,
            device: (8, number),
            start,
            size,
            uuid: None,
            label: None,
            holders,
        }
    }

    fn disk(pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = vec![0; 64 << 20];
        for (at, piece) in pieces {
            disk[*at..*at + piece.len()].copy_from_slice(piece);
        }
        disk
    }

    #[test]
    fn each_partition_is_named_for_what_it_holds() {
        const MIB: usize = 1 << 20;
        let uberblock = 0x00ba_b10c_u64.to_le_bytes();
        let rows: &[(&str, usize, &[u8])] = &[
            ("LUKS", 0, b"LUKS\xba\xbe"),
            ("ext2/3/4", 1080, &[0x53, 0xef]),
            ("NTFS", 3, b"NTFS    "),
            ("LVM2", 512, b"LABELONE"),
            ("ZFS", (128 << 10) + 4096, &uberblock),
            ("mdraid 1.2", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
            // at the partition's end, not at the disk's
            ("mdraid 1.0", 10 * MIB - 8192, &[0xfc, 0x4e, 0x2b, 0xa9]),
            ("ZFS", 10 * MIB - (128 << 10), &uberblock),
            ("btrfs", 0x1_0040, b"_BHRfS_M"),
        ];
        for (name, at, mark) in rows {
            let disk = disk(&[(512, b"EFI PART"), (20 * MIB + at, mark)]);
            let parts = [partition(1, MIB as u64, 8 << 20), partition(2, 20 << 20, 10 << 20)];
            let marks = look(&disk[..], &parts).unwrap();
            assert_eq!(marks.partitions[1].1, [*name]);
            assert_eq!(marks.in_words(), format!("GPT; partition 2: {name}"));
        }
    }

    #[test]
    fn wholes() {
        let check = |pieces: &[(usize, &[u8])], parts: &[Partition], expected: &str| {
            assert_eq!(look(&disk(pieces)[..], parts).unwrap().in_words(), expected);
        };
        check(&[], &[], "");
        check(&[(510, &[0x55, 0xaa])], &[], "MBR or boot sector");
        // an extended partition is two sectors long; a table may point beyond the disk
        let parts = [partition(4, 32256, 1024), partition(5, 60 << 20, 8 << 20)];
        let beyond = "MBR; partition 5: unreadable: it lies beyond the disk's end";
        check(&[(510, &[0x55, 0xaa])], &parts, beyond);
        let header = header::sample(1).encode();
        let at = usize::try_from(header::AT).unwrap();
        check(&[(512, b"EFI PART"), (at, &header)], &[], "GPT, pool of ZOS");
    }

    proptest! {
        #[test]
        fn any_table_is_looked_at_without_a_panic(start: u64, size: u64, near in 0..1u64 << 27) {
            let disk = disk(&[]);
            let parts = [partition(1, start, size), partition(2, near, near / 2)];
            let _ = look(&disk[..], &parts);
        }
    }
}
