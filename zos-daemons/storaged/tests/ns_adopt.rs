//! Disks by the farmer's word, against the running kernel: loop devices stand for disks. Needs root, btrfs and its
//! tools; each test says why it was skipped where they are missing.

mod disks;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use disks::{Disk, Mounts, SIZE, places, with_disks};
use sha2::{Digest, Sha256};
use storaged::Places;
use storaged::adopt::contents::Contents;
use storaged::adopt::plan;
use storaged::disk::gpt::{self, Guid};
use storaged::disk::header::{Header, Stage, VERSION};
use storaged::disk::judge::Verdict;
use storaged::pool::{self, Plan, PoolError};
use zos_host::block;

const MIB: u64 = 1 << 20;

fn wanted() -> Plan {
    Plan { owner: None, state: false, state_pools: vec![], instead_of: None }
}

fn sha(path: &Path) -> Vec<u8> {
    let (mut file, mut hash) = (File::open(path).unwrap(), Sha256::new());
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes).unwrap() {
            0 => return hash.finalize().to_vec(),
            length => hash.update(&bytes[..length]),
        }
    }
}

fn write(disk: &Disk, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(disk.disk().path()).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

fn made(program: &str, arguments: &[&str], on: &Path) -> bool {
    let program = Places::tool(program);
    if !program.exists() {
        eprintln!("without {}", program.display());
        return false;
    }
    let output = Command::new(program).args(arguments).arg(on).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    true
}

/// The plan of an adoption: what is there, and its hash.
fn planned(disk: &Disk, places: &Places) -> (Contents, String) {
    let (now, contents) = pool::look(&disk.disk(), places).unwrap();
    let hash = plan::adoption_hash(&now, &contents);
    (contents, hash)
}

fn words(contents: &Contents) -> String {
    let parts = contents.parts.iter().flat_map(|part| &part.marks);
    let all: Vec<String> = contents
        .marks
        .iter()
        .chain(parts)
        .map(|mark| format!("{} {}", mark.what, mark.name.as_deref().unwrap_or_default()))
        .collect();
    format!("{}; {}", contents.verdict, all.join(", "))
}

/// A GPT with three partitions, which the kernel is told of: its bytes are written by hand.
fn three_partitions(disk: &Disk) {
    let mut table = gpt::build(SIZE, 512, Guid([1; 16]), Guid([2; 16]));
    let mut entries = vec![0; 128 * 128];
    let places = [(1, 64), (100, 200), (400, 500)];
    for (nth, (start, size)) in places.iter().enumerate() {
        let at = nth * 128;
        entries[at..at + 16].fill(0x40 + u8::try_from(nth).unwrap());
        entries[at + 16..at + 32].fill(0x50 + u8::try_from(nth).unwrap());
        entries[at + 32..at + 40].copy_from_slice(&(start * 2048_u64).to_le_bytes());
        entries[at + 40..at + 48].copy_from_slice(&((start + size) * 2048 - 1_u64).to_le_bytes());
        entries[at + 56] = b'a' + u8::try_from(nth).unwrap();
    }
    let sum = crc32fast::hash(&entries).to_le_bytes();
    let resum = |header: &mut [u8]| {
        header[88..92].copy_from_slice(&sum);
        header[16..20].fill(0);
        let own = crc32fast::hash(&header[..92]).to_le_bytes();
        header[16..20].copy_from_slice(&own);
    };
    table[0].1.clone_from(&entries);
    table[2].1.clone_from(&entries);
    resum(&mut table[1].1[..]);
    resum(&mut table[3].1[512..]);
    for (at, bytes) in table {
        write(disk, at, &bytes);
    }
    let file = File::open(disk.disk().path()).unwrap();
    for (number, (start, size)) in (1..).zip(places) {
        block::add_partition(&file, number, start * MIB, size * MIB).unwrap();
    }
}

/// Every kind of disk that is somebody's: made, looked at, and not changed in a bit until it is confirmed.
#[test]
fn foreign_disks_are_named_untouched_until_confirmed_and_then_pools() {
    with_disks(|folder| {
        let places = places(folder);
        let mut kinds = BTreeSet::new();
        let mut check = |name: &str, expected: &str, make: &dyn Fn(&Disk) -> bool| {
            let Some(disk) = Disk::new(folder, name) else { return };
            if !make(&disk) {
                return;
            }
            let before = sha(&disk.file);
            let (contents, hash) = planned(&disk, &places);
            assert!(words(&contents).contains(expected), "{name}: {}", words(&contents));
            assert_eq!(planned(&disk, &places).1, hash, "{name}: the same disk has the same plan");
            pool::adopt(&disk.disk(), &wanted(), &places).unwrap_err();
            let wrong = pool::take(&disk.disk(), &wanted(), &"0".repeat(32), &places).unwrap_err();
            assert!(matches!(wrong, PoolError::Changed(_)), "{name}: {wrong}");
            assert_eq!(sha(&disk.file), before, "{name} was changed");
            // One byte at an end is another plan.
            let byte = [0x77];
            write(&disk, SIZE - 3 * MIB, &byte);
            let changed = sha(&disk.file);
            let stale = pool::take(&disk.disk(), &wanted(), &hash, &places).unwrap_err();
            assert!(matches!(stale, PoolError::Changed(_)), "{name}: {stale}");
            assert_eq!(sha(&disk.file), changed, "{name} was changed by a stale word");

            let (_, hash) = planned(&disk, &places);
            let mounts = Mounts(&places);
            let taken = pool::take(&disk.disk(), &wanted(), &hash, &places).unwrap();
            drop(mounts);
            assert_eq!(disk.judge(), Verdict::Ours(Box::new(taken.header)), "{name}");
            assert_eq!(disk.disk().partitions.len(), 1, "{name}: the old partitions are forgotten");
            kinds.insert(name.to_owned());
            drop(disk);
            fs::remove_file(folder.join(name)).unwrap();
        };
        let whole = |disk: &Disk| disk.disk().path();
        check("ext4", "ext2/3/4 photos", &|disk| {
            made("mkfs.ext4", &["-q", "-F", "-L", "photos"], &whole(disk))
        });
        check("btrfs", "btrfs home", &|disk| {
            made("mkfs.btrfs", &["-q", "-f", "-L", "home"], &whole(disk))
        });
        check("fat", "FAT CAMERA", &|disk| {
            made("mkfs.vfat", &["-F", "32", "-n", "CAMERA", "-I"], &whole(disk))
        });
        check("ntfs", "NTFS", &|disk| {
            let mut sector = vec![0; 512];
            sector[..11].copy_from_slice(b"\xeb\x52\x90NTFS    ");
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            write(disk, 0, &sector);
            write(disk, SIZE - 512, &sector);
            true
        });
        check("lvm", "LVM2", &|disk| {
            write(disk, 512, b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001");
            true
        });
        check("luks", "LUKS vault", &|disk| {
            write(disk, 0, b"LUKS\xba\xbe\0\x02");
            write(disk, 0x18, b"vault");
            write(disk, 0x4000, b"SKUL\xba\xbe\0\x02");
            true
        });
        check("mdraid", "mdraid 1.2 nas:0", &|disk| {
            write(disk, 4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
            write(disk, 4096 + 32, b"nas:0");
            true
        });
        check("mdraid-end", "mdraid 1.0", &|disk| {
            write(disk, (SIZE - 8192) & !4095, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
            true
        });
        check("zfs", "ZFS", &|disk| {
            for label in [0, 256 << 10, SIZE - (512 << 10), SIZE - (256 << 10)] {
                write(disk, label + (128 << 10), &0x00ba_b10c_u64.to_le_bytes());
            }
            true
        });
        check("gpt", "ext2/3/4 photos", &|disk| {
            three_partitions(disk);
            let device = disk.disk();
            assert_eq!(device.partitions.len(), 3);
            made("mkfs.ext4", &["-q", "-F", "-L", "photos"], &device.partitions[1].path())
        });
        check("unknown", "data of unknown kind", &|disk| {
            write(disk, 3 * MIB, b"a diary");
            true
        });
        let of_pool = |version: u32, stage: Stage| {
            move |disk: &Disk| {
                let header = Header {
                    version,
                    sequence: 6,
                    pool: "00000000000000ee".into(),
                    partition: hex::encode([7; 16]),
                    disk_size: SIZE,
                    stage,
                    owner: Some(
                        "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo".parse().unwrap(),
                    ),
                    state: true,
                    state_pools: vec!["00000000000000ee".into()],
                    instead_of: None,
                    copy: None,
                    over: None,
                };
                for (at, bytes) in gpt::build(SIZE, 512, header.table_id(), header.partition_id()) {
                    write(disk, at, &bytes);
                }
                write(disk, header.place(), &header.encode());
                true
            }
        };
        check("other-node", "pool 00000000000000ee", &of_pool(VERSION, Stage::Ready));
        check("newer", "a pool of a newer version (9) of ZOS", &of_pool(9, Stage::Ready));
        check("released", "data of unknown kind, on a disk", &of_pool(VERSION, Stage::Released));
        assert!(kinds.len() >= 11, "{kinds:?}");
    });
}

#[test]
fn a_disk_in_use_is_left_alone() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        if !made("mkfs.ext4", &["-q", "-F"], &disk.disk().path()) {
            return;
        }
        let (_, hash) = planned(&disk, &places);
        let at = places.pools.join("somebody");
        fs::create_dir_all(&at).unwrap();
        let mounts = Mounts(&places);
        let flags = zos_host::mount::data_only() | zos_host::mount::MountFlags::RDONLY;
        let device = disk.disk().path();
        zos_host::mount::mount(&device.to_string_lossy(), &at, "ext4", flags, "noload").unwrap();
        let (contents, _) = planned(&disk, &places);
        assert!(contents.users[0].contains("is mounted at"), "{:?}", contents.users);
        let before = sha(&disk.file);
        let refused = pool::take(&disk.disk(), &wanted(), &hash, &places).unwrap_err();
        assert!(matches!(&refused, PoolError::Changed(why) if why.contains("in use")), "{refused}");
        assert_eq!(sha(&disk.file), before);
        drop(mounts);
        let _mounts = Mounts(&places);
        pool::take(&disk.disk(), &wanted(), &hash, &places).unwrap();
    });
}

/// The power goes after the wipe, and again after the file system is made: the next boot takes it up without a word.
#[test]
fn an_adoption_that_was_cut_short_is_finished_unasked() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        three_partitions(&disk);
        if !made("mkfs.ext4", &["-q", "-F"], &disk.disk().partitions[1].path()) {
            return;
        }
        let (_, hash) = planned(&disk, &places);
        let broken = Places { mkfs: "/bin/false".into(), ..places.clone() };
        pool::take(&disk.disk(), &wanted(), &hash, &broken).unwrap_err();
        assert!(matches!(disk.judge(), Verdict::Unfinished(_)), "{:?}", disk.judge());
        let broken = Places { btrfs: "/bin/false".into(), ..places.clone() };
        pool::adopt(&disk.disk(), &wanted(), &broken).unwrap_err();
        drop(Mounts(&broken));
        let Verdict::Unfinished(header) = disk.judge() else { panic!("{:?}", disk.judge()) };
        assert!(header.over.is_some());
        let mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &wanted(), &places).unwrap();
        drop(mounts);
        assert!(pool.header.over.is_none());
        assert_eq!(disk.judge(), Verdict::Ours(Box::new(pool.header)));
    });
}

/// Released: nothing of what was on it is left, and nobody takes it unasked.
#[test]
fn a_released_disk_is_wiped_and_keeps_only_the_word() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &wanted(), &places).unwrap();
        fs::write(pool.root.join("@volumes/secret"), vec![0xc5; 1 << 16]).unwrap();
        let leaving = pool::set_stage(&disk.disk(), &pool.header, Stage::Leaving).unwrap();
        let Verdict::Ours(found) = disk.judge() else { panic!("{:?}", disk.judge()) };
        assert_eq!(found.stage, Stage::Leaving);

        // Somebody has a file of it open: it isn't wiped under them.
        let open = File::open(pool.root.join("@volumes/secret")).unwrap();
        pool::release(&disk.disk(), &leaving, &places, &|_| {}).unwrap_err();
        assert!(matches!(disk.judge(), Verdict::Ours(_)), "{:?}", disk.judge());
        drop(open);

        let told = std::cell::RefCell::new(Vec::new());
        let released = pool::release(&disk.disk(), &leaving, &places, &|percent| {
            told.borrow_mut().push(percent);
        })
        .unwrap();
        assert!(told.borrow().len() > 1 && told.borrow().is_sorted(), "{told:?}");
        assert_eq!(disk.judge(), Verdict::Released(Box::new(released.clone())));
        assert!(!released.state && disk.disk().partitions.is_empty());
        // But for the header nothing is left, wherever it lay.
        let file = File::open(&disk.file).unwrap();
        let mut bytes = vec![0; 1 << 20];
        for at in (0..SIZE).step_by(1 << 20) {
            file.read_exact_at(&mut bytes, at).unwrap();
            if at == 0 {
                bytes[512 << 10..520 << 10].fill(0);
            }
            assert!(bytes.iter().all(|byte| *byte == 0), "something is left at {at}");
        }
        let refused = pool::adopt(&disk.disk(), &wanted(), &places).unwrap_err();
        assert!(matches!(refused, PoolError::NotEmpty(_)), "{refused}");
        let (contents, hash) = planned(&disk, &places);
        assert!(matches!(contents.verdict, Verdict::Released(_)));
        let again = pool::take(&disk.disk(), &wanted(), &hash, &places).unwrap();
        assert_ne!(again.header.pool, pool.header.pool);
    });
}
