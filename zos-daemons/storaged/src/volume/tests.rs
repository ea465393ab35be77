//! Volumes over folders that stand for pools; devices are tested where there is device-mapper.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use tempfile::TempDir;
use zeroize::Zeroizing;
use zos_api::local::Change;
use zos_api::local::storage::CreateVolume;
use zos_types::deployment::{Class, Content, KeyHolder};
use zos_types::unit::{GIB, MIB};
use zos_types::volume::{Sealing, VolumeState};

use super::files::Part;
use super::stack::Look;
use super::*;
use crate::disk::header::{self, Header};

/// Seals by turning bytes around, and checks the context.
struct Turned;

impl Keys for Turned {
    async fn seal(&self, context: String, secret: &[u8]) -> Result<Sealed, CallError> {
        let bytes = secret.iter().rev().copied().chain(context.bytes()).collect();
        Ok(Sealed { bytes, sealing: Sealing::Beside })
    }

    async fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let secret = sealed.strip_suffix(context.as_bytes()).unwrap();
        Ok(Zeroizing::new(secret.iter().rev().copied().collect()))
    }
}

/// Folders as pools of SSDs.
struct World(Vec<TempDir>);

impl World {
    fn new(pools: usize) -> Self {
        Self((0..pools).map(|_| tempfile::tempdir().unwrap()).collect())
    }

    fn pool(&self, index: usize) -> Pool {
        pool(&self.0[index], index as u64, Class::Ssd)
    }

    /// As after a start of the daemon, with these pools here.
    fn volumes(&self, pools: &[usize]) -> Volumes {
        let volumes = Volumes::default();
        for index in pools {
            assert_eq!(volumes.add_pool(self.pool(*index)).unwrap(), Vec::<String>::new());
        }
        volumes
    }

    fn files(&self, pool: usize, name: &str) -> Files {
        Files::of(self.0[pool].path(), &wanted(name, 1).twin, &name.parse().unwrap())
    }

    /// How many files lie in a pool.
    fn left(&self, pool: usize) -> usize {
        let twin = wanted("a/b", 1).twin.to_string();
        fs::read_dir(self.0[pool].path().join("@volumes").join(twin)).map_or(0, Iterator::count)
    }
}

fn id(index: u64) -> String {
    format!("{index:016x}")
}

fn pool(root: &TempDir, id: u64, class: Class) -> Pool {
    let _ = fs::create_dir(root.path().join("@volumes"));
    let header = Header { disk_size: GIB, ..header::sample(id) };
    Pool { header, disk: "sda".into(), class, block: 512, root: root.path().to_owned() }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn read(files: &Files, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    files.open(Part::Data).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(files: &Files, bytes: &[u8]) {
    files.open(Part::Data).unwrap().write_all_at(bytes, 0).unwrap();
}

fn wanted(name: &str, size: u64) -> CreateVolume {
    CreateVolume {
        twin: "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy".parse().unwrap(),
        name: name.parse().unwrap(),
        size: Bytes(size),
        class: Class::Ssd,
        integrity: Integrity::None,
        key: KeyHolder::Node,
        from: None,
        holds: Content::Disk,
    }
}

#[tokio::test]
async fn a_volume_is_made_once_and_found_after_a_restart() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap();
    assert_eq!(made.change, Change::Created);
    assert_eq!(made.volume.placed, "the only ssd pool");
    let again = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap();
    assert_eq!((again.change, &again.volume), (Change::Unchanged, &made.volume));
    let other = volumes.create(wanted("web/data", 2 * MIB), &Turned).await;
    assert!(matches!(other, Err(CallError::Conflict { .. })), "{other:?}");

    let restarted = world.volumes(&[0]);
    assert_eq!(restarted.list(), vec![made.volume.clone()]);
    assert_eq!(restarted.rooms(), volumes.rooms());
    assert_eq!(restarted.rooms()[0].reserved, Bytes(MIB + (64 << 10)));

    restarted.delete(made.volume.twin, made.volume.name.clone()).await.unwrap();
    restarted.delete(made.volume.twin, made.volume.name.clone()).await.unwrap();
    assert!(restarted.list().is_empty());
    assert_eq!((restarted.rooms()[0].reserved, world.left(0)), (Bytes(0), 0));
}

#[tokio::test]
async fn two_that_ask_at_once_get_one_volume() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let make = || volumes.create(wanted("web/data", MIB), &Turned);
    let (a, b) = tokio::join!(make(), make());
    let mut changes = [a.unwrap().change, b.unwrap().change];
    changes.sort_by_key(|change| *change == Change::Unchanged);
    assert_eq!(changes, [Change::Created, Change::Unchanged]);
    assert_eq!(volumes.rooms()[0].reserved, Bytes(MIB + (64 << 10)));
}

#[tokio::test]
async fn what_is_not_offered_names_its_field() {
    let volumes = Volumes::default();
    let check = async |change: fn(&mut CreateVolume), field: &str| {
        let mut wanted = wanted("web/data", MIB);
        change(&mut wanted);
        let refused = volumes.create(wanted, &Turned).await.unwrap_err();
        let (CallError::Invalid { errors, .. } | CallError::Full { errors, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(errors.iter().map(|e| &*e.pointer).collect::<Vec<_>>(), [field]);
    };
    check(|w| w.size = Bytes(0), "/size").await;
    check(|w| w.size = Bytes(4097), "/size").await;
    // no pool at all
    check(|_| (), "/size").await;
}

#[tokio::test]
async fn a_full_pool_says_what_is_left() {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::default();
    volumes.add_pool(pool(&root, 1, Class::Hdd)).unwrap();
    let refused = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap_err();
    assert_eq!(refused.to_string(), "no room for 1 MiB on ssd: at most 0 B can be had on ssd now");
    volumes.drop_pool(&id(1));
    assert!(volumes.rooms().is_empty());
}

#[tokio::test]
async fn a_volume_of_two_copies_stands_the_loss_of_one() {
    let world = World::new(3);
    let volumes = world.volumes(&[0, 1]);
    let repair = CreateVolume { integrity: Integrity::Repair, ..wanted("web/data", MIB) };
    let made = volumes.create(repair, &Turned).await.unwrap().volume;
    assert_eq!(made.pools, [id(0), id(1)]);
    assert_eq!(made.placed, "two disks, of 2 ssd pools");
    let each = Footprint::of(Bytes(MIB), Integrity::Repair).each;
    for room in volumes.rooms() {
        assert_eq!(room.reserved, each);
    }
    for pool in 0..2 {
        let files = world.files(pool, "web/data");
        assert!(files.fit(Bytes(MIB), Integrity::Repair));
        let tags = fs::read(files.part(Part::Tags)).unwrap();
        assert!(tags[..4096].iter().all(|b| *b == 0) && tags[4096..].iter().all(|b| *b == 0xf6));
    }
    // Either disk alone will do, and says so.
    for (here, away) in [(0, 1), (1, 0)] {
        let found = world.volumes(&[here]).list();
        let reason = format!("its copy on pool {} is away", id(away));
        assert_eq!(found[0].condition, VolumeCondition { state: VolumeState::AtRisk, reason });
    }
    volumes.drop_pool(&id(1));
    assert_eq!(volumes.list()[0].condition.state, VolumeState::AtRisk);
    let grown = volumes.grow(made.twin, made.name.clone(), Bytes(2 * MIB)).await;
    assert!(matches!(grown, Err(CallError::Busy { .. })), "{grown:?}");
    volumes.add_pool(world.pool(1)).unwrap();
    assert_eq!(volumes.list(), vec![made.clone()]);
    volumes.delete(made.twin, made.name).await.unwrap();
    assert_eq!((world.left(0), world.left(1)), (0, 0));
}

/// A cut between the records of two copies; found by cutting a recorded node's power.
#[tokio::test]
async fn a_volume_that_was_made_on_one_disk_alone_is_made_whole() {
    let world = World::new(2);
    let volumes = world.volumes(&[0, 1]);
    let repair = CreateVolume { integrity: Integrity::Repair, ..wanted("web/data", MIB) };
    let made = volumes.create(repair, &Turned).await.unwrap().volume;
    for (lacks, has) in [(0, 1), (1, 0)] {
        let volumes = world.volumes(&[0, 1]);
        let record = volumes.table().entries.values().next().unwrap().record().unwrap().clone();
        assert_eq!(record.stale, Vec::<String>::new());
        fs::remove_file(
            world.files(lacks, "web/data").part(Part::Data).with_extension("data.json"),
        )
        .unwrap();
        for order in [[0, 1], [1, 0]] {
            let restarted = world.volumes(&order);
            assert_eq!(world.left(lacks), 0, "swept up");
            let found = restarted.list();
            assert_eq!(found[0].condition.state, VolumeState::AtRisk);
            let wanted = &restarted.table().entries[&(made.twin, made.name.clone())];
            assert_eq!(wanted.record().unwrap().stale, [id(lacks as u64)]);
        }
        // The one that has it knows, also without the other.
        let alone = world.volumes(&[has]);
        assert_eq!(alone.list()[0].condition.state, VolumeState::AtRisk);
        drop(alone);

        let restarted = world.volumes(&[0, 1]);
        let mut held = restarted.hold(&(made.twin, made.name.clone())).await.unwrap();
        restarted.ready_legs(&mut held).await.unwrap();
        assert!(world.files(lacks, "web/data").fit(Bytes(MIB), Integrity::Repair));
        // As the care for mirrors does when it is written.
        restarted.write(&mut held, |record| record.stale.clear()).await.unwrap();
    }
    volumes.delete(made.twin, made.name).await.unwrap();
}

/// A cut as a copy is noted as whole again; found by cutting a recorded node's power.
#[tokio::test]
async fn a_cut_as_a_copy_is_whole_again_leaves_one_that_leads() {
    let world = World::new(2);
    let repair = CreateVolume { integrity: Integrity::Repair, ..wanted("web/data", MIB) };
    let made = world.volumes(&[0, 1]).create(repair, &Turned).await.unwrap().volume;
    for stale in 0..2 {
        for cut in 0..2 {
            let volumes = world.volumes(&[0, 1]);
            let mut held = volumes.hold(&(made.twin, made.name.clone())).await.unwrap();
            let noted = volumes.write(&mut held, |record| record.stale = vec![id(stale)]).await;
            noted.unwrap();
            // What can't be written is what a cut left out, with all that comes after it.
            let data = world.files(cut, "web/data").data();
            let blocked = data.with_extension("data.json.new");
            fs::create_dir(&blocked).unwrap();
            volumes.write(&mut held, |record| record.stale.clear()).await.unwrap_err();
            fs::remove_dir(blocked).unwrap();
            let found = world.volumes(&[0, 1]).list();
            assert_ne!(found[0].condition.state, VolumeState::Broken, "{stale} {cut}");
            drop(held);
            let mut held =
                world.volumes(&[0, 1]).hold(&(made.twin, made.name.clone())).await.unwrap();
            world.volumes(&[0, 1]).write(&mut held, |record| record.stale.clear()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_snapshot_on_one_disk_alone_is_set_back_to_and_copied() {
    let world = World::new(2);
    let volumes = world.volumes(&[0, 1]);
    let repair = CreateVolume { integrity: Integrity::Repair, ..wanted("web/data", MIB) };
    let made = volumes.create(repair.clone(), &Turned).await.unwrap().volume;
    let monday = name("monday");
    volumes.take_snapshot(made.twin, made.name.clone(), monday.clone()).await.unwrap();
    // A cut between the records of its copies, as it is taken or forgotten.
    world.files(1, "web/data").snapshot(&monday).destroy_snapshot().unwrap();
    for order in [[0, 1], [1, 0]] {
        let volumes = world.volumes(&order);
        let shots = volumes.table().entries[&(made.twin, made.name.clone())].shots.clone();
        assert_eq!(shots[&monday].legs, [id(0)]);
        volumes.restore_snapshot(made.twin, made.name.clone(), monday.clone()).await.unwrap();
        let held = volumes.hold(&(made.twin, made.name.clone())).await.unwrap();
        assert_eq!(held.record.stale, [id(1)]);
    }
    let volumes = world.volumes(&[0, 1]);
    let from = Some("web/data@monday".parse().unwrap());
    let copy = CreateVolume { from, name: "web/copy".parse().unwrap(), ..repair };
    volumes.create(copy, &Turned).await.unwrap();
    volumes.delete_snapshot(made.twin, made.name.clone(), monday).await.unwrap();
    assert!(world.volumes(&[0, 1]).snapshots(None).is_empty());
}

#[tokio::test]
async fn a_pool_that_is_left_takes_nothing_new() {
    let world = World::new(2);
    let volumes = world.volumes(&[0, 1]);
    volumes.set_condition(&id(0), PoolState::Leaving, vec!["the farmer takes it out".into()]);
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap().volume;
    assert_eq!((made.pool, &*made.placed), (id(1), "the only ssd pool, 1 left out"));
    assert_eq!(volumes.pools()[0].condition, PoolState::Leaving);
    volumes.set_condition(&id(1), PoolState::AtRisk, vec!["it fails".into()]);
    assert_eq!(volumes.list()[0].condition.state, VolumeState::AtRisk);
    let refused = volumes.create(wanted("web/more", MIB), &Turned).await;
    assert!(matches!(refused, Err(CallError::Full { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_volume_grows_and_never_shrinks() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let detect = CreateVolume { integrity: Integrity::Detect, ..wanted("web/data", MIB) };
    let made = volumes.create(detect, &Turned).await.unwrap().volume;
    let grow = |size| volumes.grow(made.twin, made.name.clone(), Bytes(size));
    let refused = grow(4096).await.unwrap_err();
    assert!(refused.to_string().contains("does not shrink"), "{refused}");
    assert_eq!(grow(MIB).await.unwrap().change, Change::Unchanged);
    let more = grow(GIB).await;
    assert!(matches!(more, Err(CallError::Full { .. })), "{more:?}");
    let grown = grow(8 * MIB).await.unwrap();
    assert_eq!((grown.change, grown.volume.size), (Change::Updated, Bytes(8 * MIB)));
    assert!(world.files(0, "web/data").fit(Bytes(8 * MIB), Integrity::Detect));
    assert_eq!(world.volumes(&[0]).list(), volumes.list());
    let each = Footprint::of(Bytes(8 * MIB), Integrity::Detect).each;
    assert_eq!(volumes.rooms()[0].reserved, each);

    // A cut after the target was noted: the next one who needs it finishes.
    let files = world.files(0, "web/data");
    let mut record =
        volumes.table().entries[&(made.twin, made.name.clone())].record().unwrap().clone();
    record.growing = Some(Bytes(16 * MIB));
    record.sequence += 1;
    files.write_record(&record).unwrap();
    let restarted = world.volumes(&[0]);
    assert_eq!(restarted.list()[0].size, Bytes(8 * MIB));
    let each = Footprint::of(Bytes(16 * MIB), Integrity::Detect).each;
    assert_eq!(restarted.rooms()[0].reserved, each);
    let done = restarted.grow(made.twin, made.name.clone(), Bytes(16 * MIB)).await.unwrap();
    assert_eq!(done.volume.size, Bytes(16 * MIB));
    assert!(files.fit(Bytes(16 * MIB), Integrity::Detect));
}

#[tokio::test]
async fn snapshots_keep_what_was_and_take_their_room() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap().volume;
    let files = world.files(0, "web/data");
    let take = |text: &str| volumes.take_snapshot(made.twin, made.name.clone(), name(text));
    write(&files, b"monday");
    let monday = take("monday").await.unwrap();
    assert_eq!((&monday.pool, monday.size), (&made.pool, Bytes(MIB)));
    write(&files, b"tuesday");
    take("tuesday").await.unwrap();
    let again = take("monday").await;
    assert!(matches!(again, Err(CallError::Conflict { .. })), "{again:?}");
    assert_eq!(volumes.rooms()[0].reserved, Bytes(3 * (MIB + (64 << 10))));
    let restarted = world.volumes(&[0]);
    assert_eq!(restarted.snapshots(None), volumes.snapshots(Some(made.twin)));
    assert_eq!(restarted.rooms(), volumes.rooms());

    volumes.restore_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    assert_eq!(read(&files, 7), b"monday\0");
    let none = volumes.restore_snapshot(made.twin, made.name.clone(), name("friday")).await;
    assert!(matches!(none, Err(CallError::NotFound { .. })), "{none:?}");

    // A snapshot of a smaller volume is set back to with the size of now.
    volumes.grow(made.twin, made.name.clone(), Bytes(4 * MIB)).await.unwrap();
    volumes.restore_snapshot(made.twin, made.name.clone(), name("tuesday")).await.unwrap();
    assert_eq!(read(&files, 7), b"tuesday");
    assert!(files.fit(Bytes(4 * MIB), Integrity::None));

    for _ in 0..2 {
        volumes.delete_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    }
    assert_eq!(volumes.snapshots(None).len(), 1);
    volumes.delete(made.twin, made.name.clone()).await.unwrap();
    assert_eq!((world.left(0), volumes.snapshots(None).len()), (0, 0));
    assert_eq!(volumes.rooms()[0].reserved, Bytes(0));
}

/// Each cut of setting back: it is done again from the snapshot.
#[tokio::test]
async fn a_volume_that_was_being_set_back_is() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let detect = CreateVolume { integrity: Integrity::Detect, ..wanted("web/data", MIB) };
    let made = volumes.create(detect, &Turned).await.unwrap().volume;
    let files = world.files(0, "web/data");
    write(&files, b"monday");
    volumes.take_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    write(&files, b"noise!");
    let mut record =
        volumes.table().entries[&(made.twin, made.name.clone())].record().unwrap().clone();
    record.restoring = Some(name("monday"));
    files.write_record(&record).unwrap();
    // half of it was there
    files.beside().share(&files.snapshot(&name("monday")), Integrity::Detect).unwrap();
    fs::rename(files.beside().data(), files.data()).unwrap();
    write(&files, b"half!!");
    let restarted = world.volumes(&[0]);
    assert!(!files.beside().part(Part::Tags).exists());
    restarted.grow(made.twin, made.name.clone(), Bytes(MIB)).await.unwrap();
    assert_eq!(read(&files, 6), b"monday");
    assert_eq!(world.volumes(&[0]).list(), restarted.list());
}

#[tokio::test]
async fn a_clone_is_a_volume_of_its_own_with_its_origins_key() {
    let world = World::new(1);
    let volumes = world.volumes(&[0]);
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap().volume;
    let files = world.files(0, "web/data");
    write(&files, b"monday");
    volumes.take_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    write(&files, b"now!!!");
    let clone = |text: &str, size, from: &str| CreateVolume {
        from: Some(from.parse().unwrap()),
        ..wanted(text, size)
    };
    let refuse = async |wanted: CreateVolume, field: &str| {
        let refused = volumes.create(wanted, &Turned).await.unwrap_err();
        let CallError::Invalid { errors, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(errors[0].pointer, field);
    };
    refuse(clone("web/b", 4096, "web/data"), "/size").await;
    let other = CreateVolume { integrity: Integrity::Detect, ..clone("web/b", MIB, "web/data") };
    refuse(other, "/integrity").await;
    for from in ["web/none", "web/data@friday"] {
        let none = volumes.create(clone("web/b", MIB, from), &Turned).await;
        assert!(matches!(none, Err(CallError::NotFound { .. })), "{none:?}");
    }
    let a = volumes.create(clone("web/a", MIB, "web/data"), &Turned).await.unwrap().volume;
    let b =
        volumes.create(clone("web/b", 2 * MIB, "web/data@monday"), &Turned).await.unwrap().volume;
    assert_eq!(b.placed, "with web/data@monday, whose blocks it shares");
    assert_eq!(read(&world.files(0, "web/a"), 6), b"now!!!");
    assert_eq!(read(&world.files(0, "web/b"), 6), b"monday");
    let key = |text: &str| {
        let context = format!("volume:{}/{text}", made.twin);
        let sealed = world.files(0, text).read_key().unwrap();
        sealed.strip_suffix(context.as_bytes()).unwrap().to_vec()
    };
    assert_eq!((key("web/a"), key("web/b")), (key("web/data"), key("web/data")));
    assert_eq!(world.volumes(&[0]).list(), volumes.list());
    // Without its origin it goes on.
    volumes.delete(made.twin, made.name).await.unwrap();
    assert_eq!(world.volumes(&[0]).list(), vec![a, b]);
    assert_eq!(read(&world.files(0, "web/b"), 6), b"monday");
}

#[tokio::test]
async fn a_closed_volume_moves_with_its_snapshots() {
    let world = World::new(3);
    let volumes = world.volumes(&[0]);
    let made = volumes.create(wanted("web/data", MIB), &Turned).await.unwrap().volume;
    let files = world.files(0, "web/data");
    write(&files, b"monday");
    volumes.take_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    write(&files, b"now!!!");
    let (told, progress) = tokio::sync::watch::channel(mover::Progress::default());
    // Nowhere to go.
    let stuck = volumes.move_away(&id(0), &told).await;
    assert_eq!((stuck.total, stuck.moved, stuck.stays.len()), (1, 0, 1), "{stuck:?}");
    assert_eq!(volumes.list(), vec![made.clone()]);

    volumes.add_pool(world.pool(1)).unwrap();
    volumes.set_condition(&id(0), PoolState::Leaving, vec!["it is taken out".into()]);
    let done = volumes.move_away(&id(0), &told).await;
    assert_eq!((done.total, done.moved, done.ended), (1, 1, true), "{done:?}");
    assert_eq!(*progress.borrow(), done);
    let moved = &volumes.list()[0];
    assert_eq!((&moved.pools, moved.size), (&vec![id(1)], made.size));
    assert!(moved.placed.starts_with("moved from pool "), "{}", moved.placed);
    assert_eq!((read(&world.files(1, "web/data"), 6), world.left(0)), (b"now!!!".to_vec(), 0));
    assert_eq!(volumes.snapshots(None)[0].pool, id(1));
    for pools in [&[0, 1][..], &[1, 0], &[1]] {
        let restarted = world.volumes(pools);
        assert_eq!(
            (restarted.list(), restarted.snapshots(None)),
            (volumes.list(), volumes.snapshots(None))
        );
    }
    volumes.restore_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    assert_eq!(read(&world.files(1, "web/data"), 6), b"monday");
    assert_eq!(volumes.rooms()[0].reserved, Bytes(0));
}

/// A device that is open, of which a test says what the kernel says.
#[derive(Debug, Default)]
struct Told {
    /// What the mirror shows at each look, the last one for good; none: there is no mirror.
    looks: Mutex<Vec<Option<&'static str>>>,
    changes: Mutex<Vec<String>>,
}

impl Devices for Told {
    fn reserve(&self, file: &File, size: Bytes) -> io::Result<()> {
        file.set_len(size.0)
    }

    fn find(&self, _: &str) -> zos_host::Result<Option<OwnedFd>> {
        Ok(Some(File::open("/dev/null").unwrap().into()))
    }

    fn map(&self, _: &Stack, _: &[u8]) -> zos_host::Result<OwnedFd> {
        unreachable!("it is open")
    }

    fn unmap(&self, _: &str) -> zos_host::Result<bool> {
        unreachable!("it stays open")
    }

    fn clear_ends(&self, _: &OwnedFd, _: Bytes) -> io::Result<()> {
        Ok(())
    }

    fn format(&self, _: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn root(&self, _: &OwnedFd) -> zos_host::Result<OwnedFd> {
        unreachable!("it is no share")
    }

    fn held(&self, _: &str, work: &mut dyn FnMut() -> io::Result<()>) -> zos_host::Result<()> {
        work().map_err(|error| zos_host::Error::new("work", "", error))
    }

    fn look(&self, _: &str) -> zos_host::Result<Option<Look>> {
        let mut looks = self.looks.lock().unwrap();
        let look = if looks.len() > 1 { looks.remove(0) } else { looks[0] };
        let mirror = look.map(|status| stack::Mirror::parse(status).unwrap());
        Ok(Some(Look { mirror, mismatches: 0 }))
    }

    fn verify(&self, _: &str) -> zos_host::Result<()> {
        Ok(())
    }

    fn change(&self, _: &Stack, change: DeviceChange<'_>) -> zos_host::Result<()> {
        let word = match change {
            DeviceChange::Join(_) => "join",
            DeviceChange::Part => "part",
            _ => "other",
        };
        self.changes.lock().unwrap().push(word.to_owned());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_volume_moves_only_when_both_places_are_equal() {
    const COPIES: Option<&str> = Some("raid1 2 Aa 1/9 recover 0 0 -");
    const EQUAL: Option<&str> = Some("raid1 2 AA 9/9 idle 0 0 -");
    const FAILED: Option<&str> = Some("raid1 2 AD 1/9 idle 0 0 -");
    let check = async |looks: &[Option<&'static str>], moved: usize, changes: &[&str]| {
        let world = World::new(2);
        let told = Told { looks: Mutex::new(looks.to_vec()), ..Told::default() };
        let devices = Arc::new(told);
        let volumes = Volumes::over(Arc::clone(&devices) as Arc<dyn Devices>);
        volumes.add_pool(world.pool(0)).unwrap();
        volumes.create(wanted("web/data", MIB), &Turned).await.unwrap();
        volumes.add_pool(world.pool(1)).unwrap();
        let (progress, _) = tokio::sync::watch::channel(mover::Progress::default());
        let done = volumes.move_away(&id(0), &progress).await;
        assert_eq!((done.moved, done.stays.len()), (moved, 1 - moved), "{looks:?}: {done:?}");
        assert_eq!(*devices.changes.lock().unwrap(), changes, "{looks:?}");
        assert_eq!(volumes.list()[0].pools, [id(moved as u64)], "{looks:?}");
        assert_eq!(world.left(1 - moved), 0, "{looks:?}");
    };
    check(&[COPIES, COPIES, EQUAL], 1, &["join", "part"]).await;
    check(&[COPIES, FAILED], 0, &["join", "part"]).await;
    // It was closed and opened anew: on its old place, without a mirror. Once before it is held, once just then.
    check(&[COPIES, None], 0, &["join"]).await;
    check(&[COPIES, EQUAL, None], 0, &["join"]).await;
}

#[tokio::test]
async fn a_copy_of_two_moves() {
    let world = World::new(3);
    let volumes = world.volumes(&[0, 1]);
    let repair = CreateVolume { integrity: Integrity::Repair, ..wanted("web/data", MIB) };
    let made = volumes.create(repair, &Turned).await.unwrap().volume;
    for pool in 0..2 {
        write(&world.files(pool, "web/data"), b"now!!!");
    }
    volumes.take_snapshot(made.twin, made.name.clone(), name("monday")).await.unwrap();
    volumes.add_pool(world.pool(2)).unwrap();
    let (told, _) = tokio::sync::watch::channel(mover::Progress::default());
    let done = volumes.move_away(&id(0), &told).await;
    assert_eq!((done.moved, done.stays.len()), (1, 0), "{done:?}");
    assert_eq!(volumes.list()[0].pools, [id(2), id(1)]);
    assert_eq!(volumes.list()[0].condition, VolumeCondition::ready());
    assert_eq!((world.left(0), read(&world.files(2, "web/data"), 6)), (0, b"now!!!".to_vec()));
    for pools in [&[0, 1, 2][..], &[2, 1, 0]] {
        let restarted = world.volumes(pools);
        assert_eq!(
            (restarted.list(), restarted.snapshots(None)),
            (volumes.list(), volumes.snapshots(None))
        );
    }
}

#[test]
fn device_names_fit_and_differ() {
    let twin: TwinId = wanted("a/b", 1).twin;
    let name = |text: &str| device::name(&twin, &text.parse().unwrap());
    assert_eq!(name("a/b").len(), 36);
    assert_ne!(name("a/b"), name("a/c"));
}
