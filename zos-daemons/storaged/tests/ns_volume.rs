//! Volumes against the running kernel: loop devices stand for the disks, and device-mapper is the real one. Needs
//! root, btrfs and device-mapper; says why it was skipped where one is missing.

mod disks;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disks::{Disk, Mounts, places, with_disks};
use storaged::pool::{self, Plan, Pool};
use storaged::volume::mover::Progress;
use storaged::volume::{Keys, Sealed, Volumes};
use zeroize::Zeroizing;
use zos_api::local::CallError;
use zos_api::local::storage::{CreateVolume, Volume};
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::disk::PoolState;
use zos_types::volume::{Sealing, VolumeState};
use zos_types::{Bytes, Name, TwinId, WorkloadName};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// dm-integrity's answer for a block that isn't what its checksum says (EILSEQ).
const CHANGED: i32 = 84;

/// Doesn't seal at all.
struct Plain;

impl Keys for Plain {
    async fn seal(&self, _: String, secret: &[u8]) -> Result<Sealed, CallError> {
        Ok(Sealed { bytes: secret.to_vec(), sealing: Sealing::Beside })
    }

    async fn unseal(&self, _: String, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CallError> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

fn twin() -> TwinId {
    "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap()
}

fn wanted(name: &str, integrity: Integrity) -> CreateVolume {
    CreateVolume {
        twin: twin(),
        name: name.parse().unwrap(),
        size: Bytes(SIZE),
        class: Class::Ssd,
        integrity,
        key: KeyHolder::Node,
        from: None,
        holds: Content::Disk,
    }
}

/// Pools, and the volumes on those that are here.
struct Node {
    pools: Vec<Pool>,
    volumes: Volumes,
}

impl Node {
    /// As after a start of the daemon, with these pools here.
    fn restart(&mut self, here: &[usize]) {
        self.volumes = Volumes::default();
        for pool in here {
            assert!(self.volumes.add_pool(self.pools[*pool].clone()).unwrap().is_empty());
        }
    }

    async fn create(&self, wanted: CreateVolume) -> Volume {
        self.volumes.create(wanted, &Plain).await.unwrap().volume
    }

    async fn open(&self, name: &str) -> File {
        let name = name.parse().unwrap();
        let opened = self.volumes.open(twin(), name, Content::Disk, &Plain).await;
        opened.unwrap_or_else(|error| panic!("{error}")).1.into()
    }

    async fn close(&self, name: &str) {
        self.volumes.close(twin(), name.parse().unwrap()).await.unwrap();
    }

    fn shown(&self, name: &str) -> Volume {
        let name: WorkloadName = name.parse().unwrap();
        self.volumes.list().into_iter().find(|volume| volume.name == name).unwrap()
    }

    fn file(&self, pool: usize, name: &str) -> PathBuf {
        let folder = self.pools[pool].root.join("@volumes").join(twin().to_string());
        folder.join(name.replace('/', "."))
    }

    /// Until a volume does so.
    async fn until(&self, name: &str, state: VolumeState) {
        for _ in 0..600 {
            self.volumes.look_after().await;
            if self.shown(name).condition.state == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{name} never is {state:?}: {:?}, {:?}", self.shown(name), self.volumes.rooms());
    }
}

/// Runs a test on a node with so many disks.
fn with_node<F: Future<Output = ()>>(disks: usize, test: impl FnOnce(Node) -> F + Send + 'static) {
    with_disks(move |folder| {
        if !Path::new("/dev/mapper/control").exists() {
            eprintln!("skipped: needs device-mapper");
            return;
        }
        let places = places(folder);
        let _mounts = Mounts(&places);
        let (mut found, mut pools) = (Vec::new(), Vec::new());
        for index in 0..disks {
            let Some(disk) = Disk::new(folder, &index.to_string()) else { return };
            let plan = Plan { owner: None, state: false, state_pools: vec![], instead_of: None };
            pools.push(pool::adopt(&disk.disk(), &plan, &places).unwrap());
            found.push(disk);
        }
        // Equal room is given by id: then the first pool is the first.
        pools.sort_by(|a, b| a.header.pool.cmp(&b.header.pool));
        let mut node = Node { pools, volumes: Volumes::default() };
        node.restart(&(0..disks).collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(node));
        let _ = zos_host::dm::Dm::open().and_then(|dm| {
            for name in dm.list()?.iter().filter(|name| name.starts_with("zos-")) {
                let _ = dm.remove(name, true);
            }
            Ok(())
        });
    });
}

/// Words that say where they stand, and of which writing they are.
fn words(at: u64, writing: u64) -> Vec<u8> {
    (0..512u64).flat_map(|i| (at + i * 8).wrapping_mul(writing * 2 + 1).to_le_bytes()).collect()
}

fn write(device: &File, from: u64, to: u64, writing: u64) {
    for at in (from..to).step_by(4096) {
        device.write_all_at(&words(at, writing), at).unwrap();
    }
    device.sync_all().unwrap();
}

/// Past the page cache: what the disk says.
fn read(device: &File, at: u64) -> io::Result<Vec<u8>> {
    rustix::fs::fadvise(device, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut block = vec![0; 4096];
    device.read_exact_at(&mut block, at)?;
    Ok(block)
}

fn check(device: &File, from: u64, to: u64, writing: u64) {
    rustix::fs::fadvise(device, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut block = vec![0; 4096];
    for at in (from..to).step_by(4096) {
        device.read_exact_at(&mut block, at).unwrap_or_else(|error| panic!("at {at}: {error}"));
        assert!(block == words(at, writing), "another block at {at}");
    }
}

fn size(mut device: &File) -> u64 {
    device.seek(SeekFrom::End(0)).unwrap()
}

/// Turns a block's bits around where it lies.
fn spoil(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut block = vec![0; 4096];
    file.read_exact_at(&mut block, at).unwrap();
    block.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&block, at).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn a_volume_is_encrypted_survives_a_restart_and_is_busy_while_open() {
    with_node(1, async |mut node: Node| {
        node.create(wanted("web/data", Integrity::None)).await;
        let device = node.open("web/data").await;
        assert_eq!(size(&device), SIZE);
        // A new volume's ends are clear, and only a new one's are cleared.
        let mut end = vec![1; 1 << 20];
        for at in [0, 63 << 20] {
            device.read_exact_at(&mut end, at).unwrap();
            assert!(end.iter().all(|byte| *byte == 0), "noise at {at}");
        }
        let text = b"what a twin writes ".repeat(1000);
        device.write_all_at(&text, 0).unwrap();
        device.sync_all().unwrap();

        // Another storaged finds the same device, while the guest goes on.
        node.restart(&[0]);
        let mut found = vec![0; text.len()];
        node.open("web/data").await.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, text);
        let name: WorkloadName = "web/data".parse().unwrap();
        for refused in [
            node.volumes.close(twin(), name.clone()).await,
            node.volumes.delete(twin(), name.clone()).await,
        ] {
            assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
        }

        // On the disk it is noise, and all of the file is there.
        let file = node.file(0, "web/data");
        let stored = std::fs::read(&file).unwrap();
        assert_eq!(stored.len() as u64, SIZE);
        assert!(!stored.windows(19).any(|bytes| bytes == b"what a twin writes "));

        drop(device);
        node.close("web/data").await;
        node.close("web/data").await;
        let device = node.open("web/data").await;
        device.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, text);
        drop(device);
        node.restart(&[0]);
        node.volumes.delete(twin(), name.clone()).await.unwrap();
        assert!(!file.exists() && node.volumes.list().is_empty());
        let gone = node.volumes.open(twin(), name, Content::Disk, &Plain).await;
        assert!(matches!(gone, Err(CallError::NotFound { .. })), "{gone:?}");
    });
}

#[test]
fn bit_rot_is_seen() {
    with_node(1, async |node: Node| {
        node.create(wanted("web/data", Integrity::Detect)).await;
        let device = node.open("web/data").await;
        // All of a new volume can be read, though no checksum was ever computed.
        let mut all = Vec::new();
        (&device).read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, SIZE);
        write(&device, 8 * MIB, 16 * MIB, 1);
        drop(device);
        node.close("web/data").await;
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 16 * MIB, 1);
        drop(device);
        node.close("web/data").await;

        spoil(&node.file(0, "web/data"), 9 * MIB);
        let device = node.open("web/data").await;
        let error = read(&device, 9 * MIB).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(CHANGED | 5)), "{error}");
        check(&device, 8 * MIB, 9 * MIB, 1);
        check(&device, 10 * MIB, 16 * MIB, 1);
        node.volumes.look_after().await;
        let condition = node.shown("web/data").condition;
        assert_eq!(condition.state, VolumeState::AtRisk, "{condition:?}");
        // Written anew it is well.
        write(&device, 9 * MIB, 10 * MIB, 2);
        check(&device, 9 * MIB, 10 * MIB, 2);
    });
}

#[test]
fn volumes_grow_while_they_are_used() {
    with_node(2, async |node: Node| {
        for (name, integrity) in
            [("web/n", Integrity::None), ("web/d", Integrity::Detect), ("web/r", Integrity::Repair)]
        {
            node.create(wanted(name, integrity)).await;
            let device = node.open(name).await;
            write(&device, 60 * MIB, SIZE, 1);
            for round in 1..3 {
                let larger = SIZE + round * 16 * MIB;
                let grown = node.volumes.grow(twin(), name.parse().unwrap(), Bytes(larger)).await;
                assert_eq!(grown.unwrap().volume.size, Bytes(larger));
                assert_eq!(size(&device), larger, "{name}");
                check(&device, 60 * MIB, SIZE, 1);
                // What is new can be read, written, and read again.
                for at in (larger - 16 * MIB..larger).step_by(1 << 20) {
                    read(&device, at).unwrap_or_else(|error| panic!("{name} at {at}: {error}"));
                }
                write(&device, larger - MIB, larger, 2);
            }
            drop(device);
            node.close(name).await;
            let grown = node.volumes.grow(twin(), name.parse().unwrap(), Bytes(2 * SIZE)).await;
            assert_eq!(grown.unwrap().volume.size, Bytes(2 * SIZE));
            let device = node.open(name).await;
            assert_eq!(size(&device), 2 * SIZE);
            check(&device, 60 * MIB, SIZE, 1);
            check(&device, SIZE + 31 * MIB, SIZE + 32 * MIB, 2);
            read(&device, 2 * SIZE - 4096).unwrap();
            drop(device);
            if integrity == Integrity::Repair {
                node.until(name, VolumeState::Ready).await;
            }
            node.close(name).await;
            node.volumes.delete(twin(), name.parse().unwrap()).await.unwrap();
        }
    });
}

#[test]
fn snapshots_of_a_volume_in_use_are_whole() {
    with_node(2, async |node: Node| {
        for (name, integrity) in
            [("web/n", Integrity::None), ("web/d", Integrity::Detect), ("web/r", Integrity::Repair)]
        {
            let volume: WorkloadName = name.parse().unwrap();
            let monday: Name = "monday".parse().unwrap();
            node.create(wanted(name, integrity)).await;
            let device = node.open(name).await;
            write(&device, 8 * MIB, 12 * MIB, 1);
            node.volumes.take_snapshot(twin(), volume.clone(), monday.clone()).await.unwrap();
            write(&device, 8 * MIB, 12 * MIB, 2);
            check(&device, 8 * MIB, 12 * MIB, 2);
            let refused =
                node.volumes.restore_snapshot(twin(), volume.clone(), monday.clone()).await;
            assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");

            // Clones of both, of the volume while it is used.
            let copy = format!("{name}-copy");
            let clone = |name: &str, from: &str, size| CreateVolume {
                from: Some(from.parse().unwrap()),
                size: Bytes(size),
                ..wanted(name, integrity)
            };
            let old = format!("{name}-old");
            node.create(clone(&copy, name, SIZE)).await;
            node.create(clone(&old, &format!("{name}@monday"), SIZE + 16 * MIB)).await;
            for (name, writing) in [(&copy, 2), (&old, 1)] {
                let device = node.open(name).await;
                check(&device, 8 * MIB, 12 * MIB, writing);
                read(&device, size(&device) - 4096).unwrap();
                write(&device, 8 * MIB, 12 * MIB, 3);
                drop(device);
                node.close(name).await;
            }
            check(&device, 8 * MIB, 12 * MIB, 2);
            drop(device);
            node.close(name).await;
            node.volumes.restore_snapshot(twin(), volume.clone(), monday).await.unwrap();
            let device = node.open(name).await;
            check(&device, 8 * MIB, 12 * MIB, 1);
            drop(device);
            for name in [name, &copy, &old] {
                node.close(name).await;
                node.volumes.delete(twin(), name.parse().unwrap()).await.unwrap();
            }
        }
        assert!(node.volumes.rooms().iter().all(|room| room.reserved == Bytes(0)));
    });
}

#[test]
fn bit_rot_is_repaired_from_the_other_disk() {
    with_node(2, async |node: Node| {
        node.create(wanted("web/data", Integrity::Repair)).await;
        let device = node.open("web/data").await;
        let mut all = Vec::new();
        (&device).read_to_end(&mut all).unwrap();
        write(&device, 8 * MIB, 16 * MIB, 1);
        assert_eq!(node.shown("web/data").condition.state, VolumeState::Ready);
        drop(device);
        // First on one disk, then the same place on the other: so the first must have been mended.
        for pool in [0, 1, 0] {
            node.close("web/data").await;
            for at in 9..12 {
                spoil(&node.file(pool, "web/data"), at * MIB);
            }
            let device = node.open("web/data").await;
            // Reads are spread over both: each is made to be read from either.
            for _ in 0..4 {
                check(&device, 8 * MIB, 16 * MIB, 1);
            }
            drop(device);
            // A copy that nobody read from yet is read by the check of all.
            node.volumes.verify(twin(), "web/data".parse().unwrap()).await.unwrap();
        }
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 16 * MIB, 1);
        assert_eq!(node.shown("web/data").condition.state, VolumeState::Ready);
    });
}

#[test]
fn a_disk_goes_and_comes_back_and_another_takes_its_place() {
    with_node(3, async |mut node: Node| {
        node.restart(&[0, 1]);
        node.create(wanted("web/data", Integrity::Repair)).await;
        let device = node.open("web/data").await;
        write(&device, 8 * MIB, 16 * MIB, 1);
        drop(device);
        node.close("web/data").await;

        // Without one of them; it misses writes.
        node.restart(&[0]);
        assert_eq!(node.shown("web/data").condition.state, VolumeState::AtRisk);
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 16 * MIB, 1);
        write(&device, 12 * MIB, 16 * MIB, 2);
        drop(device);
        node.close("web/data").await;

        // Back: what it missed is written, and it can stand alone then.
        node.restart(&[0, 1]);
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 12 * MIB, 1);
        check(&device, 12 * MIB, 16 * MIB, 2);
        node.until("web/data", VolumeState::Ready).await;
        drop(device);
        node.close("web/data").await;
        node.restart(&[1]);
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 12 * MIB, 1);
        check(&device, 12 * MIB, 16 * MIB, 2);

        // In use: it comes back, and is written anew while the volume goes on.
        write(&device, 8 * MIB, 12 * MIB, 3);
        node.volumes.add_pool(node.pools[0].clone()).unwrap();
        node.until("web/data", VolumeState::Ready).await;
        check(&device, 8 * MIB, 12 * MIB, 3);

        // One goes for good, and a third takes its place.
        let lost = node.pools[1].header.pool.clone();
        node.volumes.drop_pool(&lost);
        node.volumes.look_after().await;
        assert_eq!(node.shown("web/data").condition.state, VolumeState::AtRisk);
        node.volumes.add_pool(node.pools[2].clone()).unwrap();
        node.until("web/data", VolumeState::Ready).await;
        let pools = node.shown("web/data").pools;
        assert!(!pools.contains(&lost), "{pools:?}");
        check(&device, 12 * MIB, 16 * MIB, 2);
        drop(device);
        node.close("web/data").await;
        node.restart(&[2]);
        let device = node.open("web/data").await;
        check(&device, 8 * MIB, 12 * MIB, 3);
        check(&device, 12 * MIB, 16 * MIB, 2);
    });
}

#[test]
fn volumes_move_while_they_are_written() {
    with_node(3, async |mut node: Node| {
        for (name, integrity) in
            [("web/n", Integrity::None), ("web/d", Integrity::Detect), ("web/r", Integrity::Repair)]
        {
            node.restart(&[0, 1, 2]);
            let made = node.create(wanted(name, integrity)).await;
            let device = node.open(name).await;
            write(&device, 0, 16 * MIB, 1);
            let volume: WorkloadName = name.parse().unwrap();
            let monday: Name = "monday".parse().unwrap();
            node.volumes.take_snapshot(twin(), volume.clone(), monday.clone()).await.unwrap();

            // Somebody writes all the while.
            let (stop, file) = (Arc::new(AtomicBool::new(false)), device.try_clone().unwrap());
            let told = Arc::clone(&stop);
            let writer = std::thread::spawn(move || {
                let mut writing = 1;
                while !told.load(Ordering::Relaxed) {
                    writing += 1;
                    write(&file, 32 * MIB, 34 * MIB, writing);
                }
                writing
            });
            let from = made.pool.clone();
            node.volumes.set_condition(&from, PoolState::Leaving, vec!["it is taken out".into()]);
            let (told, _) = tokio::sync::watch::channel(Progress::default());
            let done = node.volumes.move_away(&from, &told).await;
            assert_eq!((done.moved, &*done.stays), (1, &[][..]), "{name}");
            stop.store(true, Ordering::Relaxed);
            let last = writer.join().unwrap();
            assert!(last > 1);
            check(&device, 0, 16 * MIB, 1);
            check(&device, 32 * MIB, 34 * MIB, last);
            if integrity == Integrity::Repair {
                node.until(name, VolumeState::Ready).await;
            }
            drop(device);
            node.close(name).await;

            // The old place is empty, and nobody needs it.
            let index = node.pools.iter().position(|pool| pool.header.pool == from).unwrap();
            assert!(!node.file(index, name).exists());
            let others: Vec<usize> = (0..3).filter(|other| *other != index).collect();
            node.restart(&others);
            let device = node.open(name).await;
            check(&device, 0, 16 * MIB, 1);
            check(&device, 32 * MIB, 34 * MIB, last);
            drop(device);
            node.close(name).await;
            node.volumes.restore_snapshot(twin(), volume.clone(), monday).await.unwrap();
            check(&node.open(name).await, 0, 16 * MIB, 1);
            node.close(name).await;
            node.volumes.delete(twin(), volume).await.unwrap();
        }
    });
}
