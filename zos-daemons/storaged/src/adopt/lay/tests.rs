//! A power cut between any two writes of an adoption, and in the midst of each.

use std::cell::RefCell;

use proptest::prelude::*;
use zos_host::block::{Bus, Disk, Kind, Partition};

use super::*;
use crate::disk::fingerprint;
use crate::disk::header::{Stage, sample};
use crate::disk::judge::{self, Verdict};
use crate::disk::read::ReadAt;

const SIZE: usize = 20 << 20;
/// Sectors are written whole or not at all.
const SECTOR: usize = 512;

/// Bytes and where they are written.
type Write = (usize, Vec<u8>);

/// Writes in order; a sync ends a group of those that may become durable in any order.
#[derive(Default)]
struct Record {
    groups: RefCell<Vec<Vec<Write>>>,
    open: RefCell<Vec<Write>>,
}

impl Target for Record {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.open.borrow_mut().push((usize::try_from(at).unwrap(), bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.groups.borrow_mut().push(self.open.take());
        Ok(())
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn disk(partitions: &[(u32, u64, u64)]) -> Disk {
    let partitions = partitions.iter().map(|(number, start, size)| Partition {
        name: format!("sda{number}"),
        number: *number,
        device: (8, *number),
        start: *start,
        size: *size,
        uuid: None,
        label: None,
        holders: Vec::new(),
    });
    Disk {
        name: "sda".into(),
        kind: Kind::Disk,
        bus: Bus::Ata,
        device: (8, 0),
        size: SIZE as u64,
        logical_block: 512,
        physical_block: 512,
        rotational: true,
        removable: false,
        read_only: false,
        model: None,
        serial: None,
        id: "sda".into(),
        id_is_slot: false,
        holders: Vec::new(),
        partitions: partitions.collect(),
    }
}

/// Disks that are somebody's: the image, its partitions, what it is recognised by.
fn foreign() -> Vec<(Vec<u8>, Disk, &'static str)> {
    let image = |pieces: &[(usize, &[u8])]| {
        // Not zeros, so that what is zeroed and what isn't differ.
        let mut image = vec![0xa5; SIZE];
        image[..4096].fill(0);
        pieces.iter().for_each(|(at, bytes)| put(&mut image, *at, bytes));
        image
    };
    let guid = |byte| gpt::Guid([byte; 16]);
    let mut table = image(&[((2 << 20) + 1080, &[0x53, 0xef]), ((9 << 20) + 3, b"NTFS    ")]);
    for (at, bytes) in gpt::build(SIZE as u64, 512, guid(1), guid(2)) {
        put(&mut table, usize::try_from(at).unwrap(), &bytes);
    }
    // Not of our type: the first entry of either copy of the table is named anew, and the sums with it.
    let mut other = table.clone();
    retype(&mut other);
    let old = Header { disk_size: SIZE as u64, owner: None, ..sample(9) };
    let mut pool = table.clone();
    for (at, bytes) in gpt::build(SIZE as u64, 512, old.table_id(), old.partition_id()) {
        put(&mut pool, usize::try_from(at).unwrap(), &bytes);
    }
    put(&mut pool, usize::try_from(old.place()).unwrap(), &old.encode());
    put(&mut pool, usize::try_from(old.other_place()).unwrap(), &[0; header::SLOT]);
    pool[1 << 20..(1 << 20) + (1 << 17)].fill(0);
    let mut newer = pool.clone();
    let next = Header { version: 9, sequence: 4, ..old.clone() };
    put(&mut newer, usize::try_from(next.place()).unwrap(), &next.encode());
    vec![
        (image(&[(1080, &[0x53, 0xef])]), disk(&[]), "ext2/3/4"),
        (image(&[(0, b"LUKS\xba\xbe")]), disk(&[]), "LUKS"),
        (image(&[(512, b"LABELONE")]), disk(&[]), "LVM2"),
        (image(&[(0x1_0040, b"_BHRfS_M")]), disk(&[]), "btrfs"),
        (image(&[(SIZE - 8192, &[0xfc, 0x4e, 0x2b, 0xa9])]), disk(&[]), "mdraid 1.0"),
        (other, disk(&[(1, 2 << 20, 5 << 20), (2, 9 << 20, 4 << 20)]), "GPT"),
        (pool, disk(&[(1, 1 << 20, 18 << 20)]), "pool 0000000000000009"),
        (newer, disk(&[(1, 1 << 20, 18 << 20)]), "a pool of a newer version (9)"),
    ]
}

/// Gives the partition of a table of ours another type, by the table's own rules.
fn retype(image: &mut [u8]) {
    let last = SIZE - 512;
    for (header, entries) in [(512, 1024), (last, last - 32 * 512)] {
        image[entries..entries + 16].fill(0x77);
        let table = crc32fast::hash(&image[entries..entries + 128 * 128]);
        image[header + 88..header + 92].copy_from_slice(&table.to_le_bytes());
        image[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&image[header..header + 92]);
        image[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

fn judged(image: &[u8]) -> Verdict {
    judge::examine(image, 512, |_| true)
}

fn begin(image: &[u8]) -> Header {
    let at = usize::try_from(header::AT).unwrap();
    let sequence = header::next_sequence(&image[at..at + header::SIZE]);
    let over = Some(fingerprint::take(image).unwrap());
    let disk_size = image.size();
    Header { disk_size, sequence, over, stage: Stage::Adopting, ..sample(3) }
}

fn record(header: &Header, disk: &Disk) -> Vec<Vec<Write>> {
    let target = Record::default();
    lay(&target, header, disk).unwrap();
    assert!(target.open.borrow().is_empty(), "all of it is durable in the end");
    target.groups.take()
}

/// Somebody's as before, or ours and taken up again; never empty, and never without a word.
fn check(image: &[u8], header: &Header, name: &str, when: &str) {
    match judged(image) {
        Verdict::Unfinished(found) => assert_eq!(*found, *header, "{name} {when}"),
        Verdict::Ours(old) => assert_eq!(format!("pool {}", old.pool), name, "{when}"),
        Verdict::Foreign(what) | Verdict::Trace(what) => {
            // A header of ours that isn't whole is named with what it lies beside.
            let at = usize::try_from(header.place()).unwrap();
            let torn = image[at..].starts_with(b"ZOSPOOL1");
            assert!(what.contains(name) || torn && what.contains("pool"), "{name} {when}: {what}");
            assert_ne!(image[at..at + header::SLOT], header.encode()[..], "{name} {when}: {what}");
        }
        other => panic!("{name} {when}: {other:?}"),
    }
}

#[test]
fn a_cut_anywhere_leaves_the_foreign_disk_or_one_that_is_taken_up_again() {
    let mut cuts = 0;
    for (before, disk, name) in foreign() {
        assert!(judged(&before).to_string().contains(name), "{name}: {:?}", judged(&before));
        let header = begin(&before);
        let groups = record(&header, &disk);
        let mut image = before.clone();
        for (step, group) in groups.iter().enumerate() {
            for (nth, (at, bytes)) in group.iter().enumerate() {
                // This write alone, of those that are under way; and torn at a sector.
                for length in [SECTOR, bytes.len() / 2 / SECTOR * SECTOR, bytes.len()] {
                    let kept = image[*at..*at + bytes.len()].to_vec();
                    let length = length.min(bytes.len());
                    put(&mut image, *at, &bytes[..length]);
                    let when = format!("step {step}, write {nth} at {at}, {length} bytes");
                    check(&image, &header, name, &when);
                    put(&mut image, *at, &kept);
                    cuts += 1;
                }
            }
            group.iter().for_each(|(at, bytes)| put(&mut image, *at, bytes));
            check(&image, &header, name, &format!("after step {step}"));
            cuts += 1;
        }
        assert!(matches!(judged(&image), Verdict::Unfinished(_)), "{name}");
    }
    assert!(cuts > 400, "{cuts}");
}

/// What was begun is begun again from wherever it was cut, and comes to the same end.
#[test]
fn a_second_try_comes_to_the_same_end() {
    for (before, disk, name) in foreign() {
        let header = begin(&before);
        let groups = record(&header, &disk);
        for cut in 1..=groups.len() {
            let mut image = before.clone();
            groups[..cut].iter().flatten().for_each(|(at, bytes)| put(&mut image, *at, bytes));
            let again = Header { sequence: header.sequence + 1, ..header.clone() };
            for group in record(&again, &disk) {
                group.iter().for_each(|(at, bytes)| put(&mut image, *at, bytes));
                check(&image, &again, name, &format!("again after step {cut}"));
            }
            let ready =
                Header { sequence: again.sequence + 1, stage: Stage::Ready, over: None, ..again };
            put(&mut image, usize::try_from(ready.place()).unwrap(), &ready.encode());
            assert_eq!(judged(&image), Verdict::Ours(Box::new(ready)), "{name}");
            let inside = [(2 << 20) + 1080, (9 << 20) + 3];
            let left = disk.partitions.len() == 2 && inside.iter().any(|at| image[*at] != 0);
            assert!(!left, "{name}: a mark is left in a partition");
        }
    }
}

/// Taken to another machine while it was half-wiped, and used there: it is somebody's again.
#[test]
fn what_was_used_since_is_not_wiped() {
    for (before, disk, name) in foreign() {
        let header = begin(&before);
        let groups = record(&header, &disk);
        for cut in 1..groups.len() {
            let mut image = before.clone();
            groups[..cut].iter().flatten().for_each(|(at, bytes)| put(&mut image, *at, bytes));
            put(&mut image, 0, b"XFSB new");
            let verdict = judged(&image);
            assert!(matches!(verdict, Verdict::Foreign(_)), "{name} {cut}: {verdict:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any subset of the sectors that are under way, in any step.
    #[test]
    fn sectors_that_are_under_way_come_in_any_order(
        which in 0..8usize, step: prop::sample::Index, seed: u64,
    ) {
        let (mut image, disk, name) = foreign().swap_remove(which);
        let header = begin(&image);
        let groups = record(&header, &disk);
        let step = step.index(groups.len());
        groups[..step].iter().flatten().for_each(|(at, bytes)| put(&mut image, *at, bytes));
        let mut random = seed;
        for (at, bytes) in &groups[step] {
            for (nth, sector) in bytes.chunks(SECTOR).enumerate() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if random >> 63 == 1 {
                    put(&mut image, at + nth * SECTOR, sector);
                }
            }
        }
        check(&image, &header, name, &format!("step {step}, seed {seed}"));
    }

    #[test]
    fn no_range_touches_the_header_or_leaves_the_disk(start in 0..1u64 << 41, size in 0..1u64 << 41) {
        let mut disk = disk(&[(1, start, size)]);
        disk.size = 1 << 40;
        for (at, length) in steps(&disk).into_iter().flatten() {
            prop_assert!(at + length <= disk.size && length > 0);
            let slots = (header::AT, header::AT + header::SIZE as u64);
            prop_assert!(at + length <= slots.0 || at >= slots.1);
        }
    }
}
