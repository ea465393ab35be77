//! Plans as rows; and whatever changes, the hash changes with it.

use proptest::prelude::*;
use zos_host::block::{Bus, Kind};
use zos_types::deployment::Class;
use zos_types::disk::{Role, Transport};

use super::*;
use crate::disk::header::{Header, sample};

fn device() -> block::Disk {
    block::Disk {
        name: "sda".into(),
        kind: Kind::Disk,
        bus: Bus::Ata,
        device: (8, 0),
        size: 100 << 30,
        logical_block: 512,
        physical_block: 4096,
        rotational: true,
        removable: false,
        read_only: false,
        model: Some("Rotor 100".into()),
        serial: Some("R-1".into()),
        id: "wwn-1".into(),
        id_is_slot: false,
        holders: Vec::new(),
        partitions: Vec::new(),
    }
}

fn report() -> Disk {
    Disk {
        name: "sda".into(),
        id: "wwn-1".into(),
        model: "Rotor 100".into(),
        serial: "R-1".into(),
        transport: Transport::Sata,
        size: Bytes(100 << 30),
        logical_block: 512,
        physical_block: 4096,
        class: Class::Hdd,
        health: None,
        partitions: Vec::new(),
        signatures: Vec::new(),
        role: Role::Foreign,
        reason: String::new(),
        pool: None,
    }
}

fn mark(what: &str, name: Option<&str>) -> Mark {
    Mark { what: what.into(), name: name.map(str::to_owned) }
}

fn contents(verdict: Verdict, marks: &[Mark], parts: &[Part]) -> Contents {
    let (marks, parts) = (marks.to_vec(), parts.to_vec());
    Contents { verdict, marks, parts, ends: "00".into(), users: Vec::new() }
}

fn three() -> Contents {
    let part = |number: u32, size: u64, name: Option<&str>, marks: &[Mark]| Part {
        number,
        start: u64::from(number) << 30,
        size,
        name: name.map(str::to_owned),
        marks: marks.to_vec(),
    };
    let parts = [
        part(1, 512 << 20, Some("EFI"), &[mark("FAT", Some("ESP"))]),
        part(2, 40 << 30, None, &[mark("ext2/3/4", Some("photos"))]),
        part(3, 8 << 30, None, &[]),
    ];
    let marks = [mark("GPT", None), mark("GPT backup", None)];
    contents(Verdict::Foreign("GPT, GPT backup".into()), &marks, &parts)
}

#[test]
fn what_is_lost_is_told_in_words() {
    let check = |contents: Contents, lost: &[&str]| {
        let plan = adoption(report(), &device(), &contents, false).unwrap();
        assert_eq!(plan.loses, lost);
        assert_eq!(plan.does.len(), if lost.is_empty() { 1 } else { 2 }, "{:?}", plan.does);
        assert_eq!(plan.does.last().unwrap(), POOL);
    };
    const POOL: &str = "the whole disk becomes a pool for hdd volumes, with 94.9 GiB for twins";
    let foreign = |mark: Mark| contents(Verdict::Foreign(mark.what.clone()), &[mark], &[]);
    check(contents(Verdict::Blank, &[], &[]), &[]);
    check(contents(Verdict::Released(Box::new(sample(1))), &[], &[]), &[]);
    check(foreign(mark("NTFS", None)), &["a Windows file system (NTFS)"]);
    check(foreign(mark("xfs", Some("home"))), &["a Linux file system “home” (xfs)"]);
    check(foreign(mark("mdraid 1.2", Some("nas:0"))), &["a part of a RAID “nas:0” (mdraid 1.2)"]);
    check(foreign(mark("LVM2", None)), &["a part of a Linux volume group (LVM2)"]);
    check(foreign(mark("LUKS", None)), &["encrypted data (LUKS)"]);
    check(foreign(mark("ZFS", None)), &["a part of a storage pool (ZFS)"]);
    check(contents(Verdict::Foreign("data".into()), &[], &[]), &["data of unknown kind"]);
    check(
        three(),
        &[
            "partition 1 “EFI”, 512 MiB: a file system or volume “ESP” (FAT)",
            "partition 2, 40 GiB: a Linux file system “photos” (ext2/3/4)",
            "partition 3, 8 GiB: nothing that is known",
        ],
    );
    let pool = contents(Verdict::Ours(Box::new(sample(9))), &[], &[]);
    let lost = "pool 0000000000000009 of no node yet: every volume on it, the node's state and key";
    check(pool, &[lost]);
    let newer = contents(Verdict::Trace("a pool of a newer version (7) of ZOS".into()), &[], &[]);
    check(newer, &["a pool of a newer version (7) of ZOS"]);
}

#[test]
fn what_is_in_use_or_unreadable_has_no_plan() {
    let used = Contents { users: vec!["/dev/sda1 is mounted at /mnt".into()], ..three() };
    let why = adoption(report(), &device(), &used, false).unwrap_err();
    assert_eq!(why, "sda is in use: /dev/sda1 is mounted at /mnt");
    let broken = contents(Verdict::Unreadable("I/O error".into()), &[], &[]);
    assert_eq!(
        adoption(report(), &device(), &broken, false).unwrap_err(),
        "sda can't be read: I/O error"
    );
}

#[test]
fn a_release_tells_what_moves_and_what_stays() {
    let moved = |name: &str, to: Option<&str>| Move {
        what: format!("volume {name}"),
        size: Bytes(1 << 30),
        to: to.map(str::to_owned),
    };
    let check = |moves: &[Move], does: &[&str]| {
        let plan = release(report(), &device(), "p1", moves);
        assert_eq!(
            (&plan.does[1..], plan.loses.len()),
            (&does.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()[..], 0)
        );
    };
    check(&[], &["then the disk is wiped, and can be taken out"]);
    check(
        &[moved("a", Some("p2")), moved("b", None)],
        &[
            "volume a (1 GiB) moves to pool p2",
            "volume b (1 GiB) stays: no other pool has room for it",
            "the disk is wiped once nothing is left on it: make room, or delete what stays",
        ],
    );
    let hash = |moves: &[Move], pool: &str| release(report(), &device(), pool, moves).hash;
    let all = [
        hash(&[], "p1"),
        hash(&[], "p2"),
        hash(&[moved("a", None)], "p1"),
        hash(&[moved("a", Some("p2"))], "p1"),
    ];
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

/// One thing that is otherwise.
#[derive(Clone, Debug)]
enum Change {
    Id(String),
    Size(u64),
    Serial(Option<String>),
    Verdict(String),
    Pool(u64),
    Mark(String),
    MarkName(Option<String>),
    MarkGone,
    PartNumber(u32),
    PartStart(u64),
    PartSize(u64),
    PartName(Option<String>),
    PartMark(String),
    PartGone(prop::sample::Index),
    Ends(String),
}

fn change() -> impl Strategy<Value = Change> {
    let text = "[a-z0-9]{0,12}";
    let maybe = proptest::option::of(text);
    prop_oneof![
        text.prop_map(Change::Id),
        any::<u64>().prop_map(Change::Size),
        maybe.clone().prop_map(Change::Serial),
        text.prop_map(Change::Verdict),
        any::<u64>().prop_map(Change::Pool),
        text.prop_map(Change::Mark),
        maybe.clone().prop_map(Change::MarkName),
        Just(Change::MarkGone),
        any::<u32>().prop_map(Change::PartNumber),
        any::<u64>().prop_map(Change::PartStart),
        any::<u64>().prop_map(Change::PartSize),
        maybe.prop_map(Change::PartName),
        text.prop_map(Change::PartMark),
        any::<prop::sample::Index>().prop_map(Change::PartGone),
        text.prop_map(Change::Ends),
    ]
}

fn changed(disk: &mut block::Disk, contents: &mut Contents, change: Change) {
    match change {
        Change::Id(id) => disk.id = id,
        Change::Size(size) => disk.size = size,
        Change::Serial(serial) => disk.serial = serial,
        Change::Verdict(what) => contents.verdict = Verdict::Foreign(what),
        Change::Pool(pool) => {
            contents.verdict =
                Verdict::Ours(Box::new(Header { pool: format!("{pool:016x}"), ..sample(0) }));
        }
        Change::Mark(what) => contents.marks[0].what = what,
        Change::MarkName(name) => contents.marks[0].name = name,
        Change::MarkGone => drop(contents.marks.pop()),
        Change::PartNumber(number) => contents.parts[0].number = number,
        Change::PartStart(start) => contents.parts[1].start = start,
        Change::PartSize(size) => contents.parts[2].size = size,
        Change::PartName(name) => contents.parts[0].name = name,
        Change::PartMark(what) => contents.parts[1].marks[0].what = what,
        Change::PartGone(which) => drop(contents.parts.remove(which.index(3))),
        Change::Ends(ends) => contents.ends = ends,
    }
}

proptest! {
    #[test]
    fn whatever_changes_the_hash_changes(one in change()) {
        let (mut disk, mut contents) = (device(), three());
        let before = adoption_hash(&disk, &contents);
        changed(&mut disk, &mut contents, one);
        let same = (&disk, &contents) == (&device(), &three());
        prop_assert_eq!(adoption_hash(&disk, &contents) == before, same);
        // and asking twice is asking once
        prop_assert_eq!(adoption_hash(&disk, &contents), adoption_hash(&disk, &contents));
    }
}
