//! Care against the running kernel: a loop device stands for the disk. Needs root and btrfs; says why it was
//! skipped where one is missing.

mod disks;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use disks::{Disk, Mounts, places, with_disks};
use storaged::care::hands::Node;
use storaged::care::look::PoolLook;
use storaged::care::port::Hands;
use storaged::care::space::{Pressure, Step};
use storaged::pool::{self, Plan, Pool};
use zos_host::block;

fn plan() -> Plan {
    Plan { owner: None, state: true, state_pools: vec![], instead_of: None }
}

fn look(hands: &Node, disk: &block::Disk) -> PoolLook {
    hands.look(disk).pool.expect("the pool is mounted")
}

fn sync(pool: &Pool) {
    rustix::fs::syncfs(File::open(&pool.root).unwrap()).unwrap();
}

/// Where the disk holds these bytes: each place in the file behind it.
fn places_of(file: &Path, bytes: &[u8]) -> Vec<u64> {
    let disk = fs::read(file).unwrap();
    let found = disk.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
    found.map(|(at, _)| at as u64).collect()
}

/// Bytes that were changed on the disk: what is there twice (metadata) is repaired, what is there once is counted.
#[test]
fn a_scrub_repairs_metadata_and_tells_of_data_that_it_cannot_repair() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &plan(), &places).unwrap();
        let hands = Node(places.clone());
        let scrub = || {
            let look = look(&hands, &disk.disk());
            hands.scrub(&pool.root, look.device, 0, look.size).unwrap()
        };
        // Data of its own block, and a name that lies in metadata alone.
        let (mark, name) =
            (*b"a state that nobody wants to lose", "name-that-lies-in-metadata-alone");
        let data = mark.repeat(1000);
        fs::write(pool.root.join("@state/data"), &data).unwrap();
        fs::write(pool.root.join("@state").join(name), b"x").unwrap();
        sync(&pool);
        let whole = scrub();
        assert!(whole.read > data.len() as u64, "{whole:?}");
        assert_eq!((whole.repaired, whole.unrepaired), (0, 0));

        // Of metadata all in the first of its two copies, which lies before the second: also what was
        // written over since.
        let spoil = |bytes: &[u8], copies: usize| {
            sync(&pool);
            let found = places_of(&disk.file, bytes);
            assert!(!found.is_empty() && found.len().is_multiple_of(copies), "{found:?}");
            let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
            for at in &found[..found.len() / copies] {
                file.write_all_at(b"SPOILT", *at).unwrap();
            }
            file.sync_all().unwrap();
        };
        spoil(name.as_bytes(), 2);
        let healed = scrub();
        assert!(healed.repaired > 0 && healed.unrepaired == 0, "{healed:?}");
        let again = scrub();
        assert_eq!((again.repaired, again.unrepaired), (0, 0), "repaired for good");

        spoil(&mark, 1);
        let lost = scrub();
        assert!(lost.unrepaired > 0, "{lost:?}");
        assert!(look(&hands, &disk.disk()).errors.corruption > 0);
    });
}

/// Piece by piece reads what one go reads: nothing twice, nothing left out, but for metadata that moves meanwhile.
#[test]
fn pieces_make_a_whole() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &plan(), &places).unwrap();
        let hands = Node(places.clone());
        fs::write(pool.root.join("@state/data"), vec![7; 200 << 20]).unwrap();
        sync(&pool);
        let about = look(&hands, &disk.disk());
        let whole = hands.scrub(&pool.root, about.device, 0, about.size).unwrap();
        assert!(whole.read >= 200 << 20, "{whole:?}");
        let (mut at, mut read, mut pieces) = (0, 0, 0);
        while at < about.size {
            let to = (at + (64 << 20)).min(about.size);
            let piece = hands.scrub(&pool.root, about.device, at, to).unwrap();
            (at, read, pieces) = (piece.last.max(to), read + piece.read, pieces + 1);
        }
        assert!(pieces > 1);
        assert!(read.abs_diff(whole.read) < 8 << 20, "{read} in pieces, {} in one", whole.read);
    });
}

/// A pool is filled to the brim by images: care makes room before writes of the state fail.
#[test]
fn a_full_pool_gives_its_images_and_the_state_is_written_all_the_same() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &plan(), &places).unwrap();
        let hands = Node(places.clone());
        let mut pressure = Pressure::default();
        // A volume that takes all that volumes may, then images until nothing goes any more.
        let volume = File::create(pool.root.join("@volumes/volume")).unwrap();
        let none = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&volume, none, 0, pool.capacity().0).unwrap();
        let mut images = 0;
        let full = loop {
            let image = pool.root.join(format!("@images/{images:06}"));
            if let Err(error) =
                fs::write(&image, vec![1; 16 << 20]).and_then(|()| File::open(&image)?.sync_all())
            {
                break error;
            }
            images += 1;
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{images} images");
        assert!(images > 0);
        let open = File::open(pool.root.join("@images/000000")).unwrap();
        rustix::fs::flock(&open, rustix::fs::FlockOperation::LockShared).unwrap();
        let write = |number: u32| -> std::io::Result<()> {
            let path = pool.root.join("@state").join(number.to_string());
            fs::write(&path, vec![2; 64 << 10])?;
            File::open(&path)?.sync_all()
        };

        // The rule and the hands, as `life` has them, until nothing is to be done.
        let mut steps = Vec::new();
        for minute in 0..20 {
            sync(&pool);
            let space = look(&hands, &disk.disk()).space;
            let now = std::time::Duration::from_secs(60 * minute);
            let Some(step) = pressure.look(now, &space) else { continue };
            steps.push(step);
            pressure.done(match step {
                Step::Collect(bytes) => hands.collect(&pool.root, bytes).unwrap(),
                Step::Balance(filled) => hands.balance(&pool.root, filled).map(|()| 0).unwrap(),
            });
        }
        assert!(matches!(steps[..], [Step::Collect(_), ..]), "{steps:?}");
        assert!(!pressure.is_full(), "{steps:?}");
        let left = fs::read_dir(pool.root.join("@images")).unwrap().count();
        assert!((1..images).contains(&left), "{left} of {images} images are left");
        assert!(pool.root.join("@images/000000").exists(), "an open image stays");
        assert_eq!(
            fs::metadata(pool.root.join("@volumes/volume")).unwrap().len(),
            pool.capacity().0
        );
        for number in 0..100 {
            write(number).unwrap_or_else(|error| panic!("state write {number}: {error}"));
        }
    });
}

/// What care looks at costs the disk nothing: a motor that rests is not woken by it.
#[test]
fn looking_touches_no_disk() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &plan(), &places).unwrap();
        let hands = Node(places.clone());
        sync(&pool);
        let disk = disk.disk();
        let before = hands.look(&disk).requests.unwrap();
        for _ in 0..200 {
            let look = hands.look(&disk);
            assert!(look.pool.is_some());
        }
        assert_eq!(hands.look(&disk).requests.unwrap(), before);
    });
}

/// The program that a node runs, where it is installed: a loop device has nothing to say.
#[test]
fn a_disk_without_a_word_is_unknown() {
    with_disks(|folder| {
        let places = places(folder);
        if Command::new(&places.smartctl).arg("--version").output().is_err() {
            eprintln!("skipped: no {}", places.smartctl.display());
            return;
        }
        let Some(disk) = Disk::new(folder, "a") else { return };
        let health = Node(places).ask(&disk.disk()).unwrap();
        assert_eq!(health, storaged::care::smart::unknown());
    });
}
