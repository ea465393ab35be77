//! Pools against the running kernel: loop devices stand for disks. Needs root, btrfs and its tools;
//! each test says why it was skipped where they are missing.

mod disks;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use disks::{Disk, Mounts, SIZE, places, with_disks};
use storaged::disk::judge::{self, Verdict};
use storaged::pool::{self, Plan};
use storaged::{Places, state};
use zos_host::mount;

fn plan(state: bool) -> Plan {
    Plan { owner: None, state, state_pools: vec![], instead_of: None }
}

#[test]
fn an_empty_disk_becomes_a_pool_and_is_found_again() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        assert_eq!(disk.judge(), Verdict::Empty);
        let places = places(folder);
        let mounts = Mounts(&places);
        let pool = pool::adopt(&disk.disk(), &plan(true), &places).unwrap();
        state::prepare(Some(&pool), &places).unwrap();
        let identity = places.state.join("identity");
        let about = fs::metadata(&identity).unwrap();
        assert_eq!((about.mode() & 0o777, about.uid(), about.gid()), (0o700, 111, 111));
        fs::write(identity.join("key.pem"), "a key").unwrap();
        assert!(pool.root.join("@state/identity/key.pem").exists());
        assert!(!pool.header.pool.is_empty() && pool.header.owner.is_none());
        // once more is nothing new: a restarted storaged does the same
        pool::open(&disk.disk(), &pool.header, &places).unwrap();
        state::prepare(Some(&pool), &places).unwrap();
        drop(mounts);

        let Verdict::Ours(header) = disk.judge() else { panic!("{:?}", disk.judge()) };
        assert_eq!(*header, pool.header);
        let node = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo".parse().unwrap();
        let owned = pool::own(&disk.disk(), &header, node).unwrap();
        assert_eq!(disk.judge(), Verdict::Ours(Box::new(owned.clone())));
        let _mounts = Mounts(&places);
        let opened = pool::open(&disk.disk(), &owned, &places).unwrap();
        let key = opened.root.join("@state/identity/key.pem");
        assert_eq!(fs::read_to_string(key).unwrap(), "a key");
    });
}

/// storaged died at a boot before it told where the state lies, and the next one chooses otherwise.
#[test]
fn the_place_of_the_state_shows_what_was_chosen_last() {
    with_disks(|folder| {
        let (Some(a), Some(b)) = (Disk::new(folder, "a"), Disk::new(folder, "b")) else { return };
        let places = places(folder);
        let _mounts = Mounts(&places);
        let pools = [&a, &b].map(|disk| pool::adopt(&disk.disk(), &plan(true), &places).unwrap());
        let chosen =
            [Some(&pools[0]), Some(&pools[1]), Some(&pools[1]), None, None, Some(&pools[0])];
        for (n, pool) in chosen.into_iter().enumerate() {
            // The other copy was shown already.
            state::show(&pools[n % 2], 1, &places).unwrap();
            state::prepare(pool, &places).unwrap();
            let file = places.state.join("net").join(n.to_string());
            fs::write(&file, "").unwrap();
            for other in &pools {
                let here = pool.is_some_and(|pool| pool.root == other.root);
                let path = other.root.join("@state/net").join(n.to_string());
                assert_eq!(path.exists(), here, "{n}");
            }
            let mounts = mount::list(&places.root).unwrap();
            let at = |path: &Path| mounts.iter().filter(|mount| mount.target == path).count();
            assert_eq!((at(&places.state), at(&places.mirror)), (1, 0), "{n}");
            // Once more is nothing new.
            state::prepare(pool, &places).unwrap();
            assert!(file.exists(), "{n}");
        }
    });
}

#[test]
fn what_is_not_empty_is_not_written_to() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let check = |disk: &Disk, what: &str| {
            let before = sum(&disk.file);
            let Verdict::Foreign(found) = disk.judge() else {
                panic!("{what}: {:?}", disk.judge())
            };
            assert!(found.contains(what), "{found} is not {what}");
            pool::adopt(&disk.disk(), &plan(true), &places).unwrap_err();
            assert_eq!(before, sum(&disk.file), "{what} was changed");
            let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
            file.set_len(0).unwrap();
            file.set_len(SIZE).unwrap();
        };
        let write = |at: u64, bytes: &[u8]| {
            let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
            file.write_all_at(bytes, at).unwrap();
        };
        write(640 << 20, &[1]);
        check(&disk, "data of unknown kind at 640 MiB");
        write(SIZE - 1, &[1]);
        check(&disk, "data of unknown kind");
        write(0, b"XFSB");
        check(&disk, "xfs");
        write(SIZE - 65536, &[0xfc, 0x4e, 0x2b, 0xa9]);
        check(&disk, "mdraid 0.9");
        let made = |program: &str, arguments: &[&str], what: &str| {
            let program = Places::tool(program);
            if !program.exists() {
                eprintln!("skipped: no {}", program.display());
                return;
            }
            let output = Command::new(program).args(arguments).arg(&disk.file).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            check(&disk, what);
        };
        made("mkfs.ext4", &["-q", "-F"], "ext2/3/4");
        made("mkfs.vfat", &["-F", "32"], "FAT");
        made("mkfs.btrfs", &["-q", "-f"], "btrfs");
        made("mkswap", &[], "swap");
        made("sgdisk", &["-n1:2048:0"], "GPT");
    });
}

/// A power cut after each step of an adoption, by hand: what was made so far is made again, and
/// what somebody else put there since is not.
#[test]
fn an_interrupted_adoption_is_begun_again() {
    with_disks(|folder| {
        let Some(disk) = Disk::new(folder, "a") else { return };
        let places = places(folder);
        let broken = Places { mkfs: "/bin/false".into(), ..places.clone() };
        pool::adopt(&disk.disk(), &plan(true), &broken).unwrap_err();
        assert!(matches!(disk.judge(), Verdict::Unfinished(_)), "{:?}", disk.judge());
        // and again after mkfs, before the subvolumes
        let broken = Places { btrfs: "/bin/false".into(), ..places.clone() };
        pool::adopt(&disk.disk(), &plan(true), &broken).unwrap_err();
        drop(Mounts(&broken));
        assert!(matches!(disk.judge(), Verdict::Unfinished(_)), "{:?}", disk.judge());
        let mounts = Mounts(&places);
        pool::adopt(&disk.disk(), &plan(true), &places).unwrap();
        drop(mounts);
        assert!(matches!(disk.judge(), Verdict::Ours(_)), "{:?}", disk.judge());

        let Some(disk) = Disk::new(folder, "b") else { return };
        let broken = Places { mkfs: "/bin/false".into(), ..places.clone() };
        pool::adopt(&disk.disk(), &plan(true), &broken).unwrap_err();
        let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
        file.write_all_at(b"XFSB", 1 << 20).unwrap();
        file.sync_all().unwrap();
        assert!(matches!(disk.judge(), Verdict::Foreign(_)), "{:?}", disk.judge());
        pool::adopt(&disk.disk(), &plan(true), &places).unwrap_err();
    });
}

/// A hash of all bytes, quick on the holes of a sparse file.
fn sum(path: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let file = File::open(path).unwrap();
    let mut hash = DefaultHasher::new();
    let mut bytes = vec![0; 1 << 20];
    for at in (0..SIZE).step_by(1 << 20) {
        file.read_exact_at(&mut bytes, at).unwrap();
        if !judge::is_all(&bytes, 0) {
            hash.write_u64(at);
            hash.write(&bytes);
        }
    }
    hash.finish()
}
