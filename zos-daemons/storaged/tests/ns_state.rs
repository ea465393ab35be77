//! The state's two copies against the running kernel: loop devices stand for disks, a store for a daemon. Needs
//! root, btrfs and its tools; says why it was skipped where they are missing.

mod disks;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use disks::{Disk, Mounts, places, with_disks};
use storaged::care::Care;
use storaged::copies::Generation;
use storaged::copies::set::KEEPERS;
use storaged::disk::header::Header;
use storaged::disk::judge::Verdict;
use storaged::keeper::{DiskKey, Event, Keeper};
use storaged::life::{self, Life, View};
use storaged::machine::{Machine, Node};
use storaged::{Places, keeper};
use tokio::sync::{mpsc, oneshot, watch};
use zos_api::local::CallError;
use zos_api::local::storage::StateCopies;
use zos_daemon::store::{Copies, Follow, Place, Store, Witness};
use zos_daemon::{FaultBoard, Reader};
use zos_host::{block, mount};

const NODE: &str = "fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo";
/// What fails is tried again after a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// storaged, as far as a store sees it.
#[derive(Debug)]
struct Storaged {
    news: mpsc::Sender<Event>,
    told: watch::Receiver<Option<StateCopies>>,
}

impl Witness for Storaged {
    fn lose(&self, place: &Place, reason: &str) -> Result<(), CallError> {
        let lost = Event::StateLost(place.pool.clone(), place.coming.clone(), reason.to_owned());
        self.news.blocking_send(lost).unwrap();
        loop {
            let told = self.told.borrow().clone().unwrap();
            if told.copies.iter().all(|copy| copy.coming != place.coming) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn joined(&self, place: &Place) -> Result<(), CallError> {
        for user in KEEPERS {
            let joined = Event::StateJoined(place.pool.clone(), place.coming.clone(), user);
            self.news.blocking_send(joined).unwrap();
        }
        Ok(())
    }
}

/// A node from a boot until it is dropped, with one daemon that keeps something.
struct Boot {
    life: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    view: View,
    store: Option<Store>,
    places: Places,
}

impl Boot {
    fn new(places: &Places, disks: &[&Disk]) -> Self {
        let none = std::iter::empty::<(String, String)>().collect();
        let settings = Reader::config::<keeper::Settings>(&none).0;
        let paths = [&places.state, &places.mirror].map(|path| path.to_str().unwrap().to_owned());
        let keeper = Keeper::new(settings, None, paths, life::remembered(places));
        let care = Care::new(Reader::config(&none).0);
        let mut boot = Self::begin(places, keeper, care);
        boot.disks(disks, &[]);
        boot.until("settled", |boot| boot.view.settled.borrow().is_some());
        assert!(boot.view.settled.borrow().as_ref().unwrap().durable);
        boot.news(Event::Identity(NODE.parse().unwrap(), false));
        boot.until("told", |boot| boot.view.copies.borrow().is_some());
        boot.store = Some(Store::open(boot.copies(), "test", &[]).unwrap());
        boot
    }

    fn begin(places: &Places, keeper: Keeper, care: Care) -> Self {
        let (machine, faults) = (Arc::new(Node(places.clone())), FaultBoard::default());
        let (life, view, _) = Life::new(keeper, care, places.clone(), machine, faults);
        let (stop, stopped) = oneshot::channel();
        let life = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = life.run() => {}
                    _ = stopped => {}
                }
            });
        });
        let (life, stop) = (Some(life), Some(stop));
        Self { life, stop, view, store: None, places: places.clone() }
    }

    fn news(&self, event: Event) {
        self.view.news.blocking_send(event).unwrap();
    }

    fn disks(&self, here: &[&Disk], gone: &[&Disk]) {
        let name = |disk: &&Disk| format!("loop{}", disk.device.number);
        let here: Vec<block::Disk> = here.iter().map(|disk| disk.disk()).collect();
        self.news(Event::Disks(here, gone.iter().map(name).collect()));
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = std::time::Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "not {what}: {:?}", self.view.copies.borrow());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn copies(&self) -> Copies {
        let told = self.view.copies.borrow().clone().unwrap();
        let place = |copy: zos_api::local::storage::StateCopy| Place {
            folder: Path::new(&copy.path).join("net"),
            pool: copy.pool,
            coming: copy.coming,
            current: copy.current,
        };
        let witness = Storaged { news: self.view.news.clone(), told: self.view.copies.clone() };
        let places = told.copies.into_iter().map(place).collect();
        Copies { places, witness: Arc::new(witness) }
    }

    /// The daemon follows until so many copies are current and no other is there.
    fn settle(&self, current: usize) {
        self.until("followed", |boot| {
            let copies = boot.copies();
            boot.store.as_ref().unwrap().follow(&copies).unwrap();
            copies.places.len() == current && copies.places.iter().all(|place| place.current)
        });
    }

    fn put(&self, value: u32) {
        self.store.as_ref().unwrap().write(|write| write.put("t", "a", &value)).unwrap();
    }

    fn get(&self) -> Option<u32> {
        self.store.as_ref().unwrap().get("t", "a").unwrap()
    }

    fn is_mounted(&self, path: &Path) -> bool {
        mount::at(&self.places.root, path).unwrap().is_some()
    }
}

impl Boot {
    /// storaged ends; what it mounted and what it remembers stay.
    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(life) = self.life.take() {
            let _ = life.join();
        }
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.store = None;
        self.end();
        drop(Mounts(&self.places));
        let _ = fs::remove_dir_all(&self.places.memory);
    }
}

fn header(disk: &Disk) -> Header {
    match disk.judge() {
        Verdict::Ours(header) => *header,
        other => panic!("{other:?}"),
    }
}

fn generation(disk: &Disk) -> (Generation, bool) {
    let mark = header(disk).copy.unwrap();
    (mark.generation, mark.whole)
}

#[test]
fn the_state_outlives_each_disk_and_a_stale_one_is_brought_up_to_date() {
    with_disks(|folder| {
        let (Some(a), Some(b)) = (Disk::new(folder, "a"), Disk::new(folder, "b")) else { return };
        let places = places(folder);
        let boot = Boot::new(&places, &[&a, &b]);
        boot.settle(2);
        assert!(boot.is_mounted(&places.state) && boot.is_mounted(&places.mirror));
        boot.put(1);
        let both = generation(&a);
        assert_eq!((generation(&b), both.1), (both, true));

        // One goes while the node runs: written down, and shown no longer.
        let (first, second) = (boot.copies().places[0].pool.clone(), header(&a).pool);
        let (gone, stays) = if first == second { (&b, &a) } else { (&a, &b) };
        boot.disks(&[stays], &[gone]);
        boot.settle(1);
        boot.put(2);
        assert_ne!(generation(stays).0, both.0);
        assert_eq!(generation(gone), both);
        boot.until("hidden", |boot| !boot.is_mounted(&places.mirror));

        // It comes back stale, and is brought up to date.
        boot.disks(&[stays, gone], &[]);
        boot.settle(2);
        assert_eq!(generation(gone), generation(stays));
        boot.put(3);
        drop(boot);

        // Each of the two alone has it all.
        let boot = Boot::new(&places, &[gone]);
        assert_eq!(boot.get(), Some(3));
        boot.put(4);
        drop(boot);

        // The other one is stale now: at a boot with both it does not lead, and is filled.
        assert_ne!(generation(stays), generation(gone));
        let boot = Boot::new(&places, &[stays, gone]);
        assert_eq!(boot.get(), Some(4));
        boot.settle(2);
        assert_eq!(generation(stays), generation(gone));
        drop(boot);

        // Rot in the one that is read first: the other mends it, and what lay there is kept.
        let boot = Boot::new(&places, &[&a, &b]);
        let file = boot.copies().places[0].folder.join("test.redb");
        assert_eq!(boot.get(), Some(4));
        drop(boot);
        let leading = Boot::new(&places, &[&a, &b]).copies().places[0].clone();
        assert_eq!(leading.folder.join("test.redb"), file);
        let mut boot = Boot::new(&places, &[&a, &b]);
        boot.store = None;
        let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
        file.write_all_at(&[0xa5; 8192], 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let store = Store::open(boot.copies(), "test", &[]).unwrap();
        assert_eq!(store.get::<u32>("t", "a").unwrap(), Some(4));
        assert_eq!(store.repaired().len(), 1);
    });
}

/// storaged dies when a loss is written and what is lost is shown still: before it remembers the loss, and after.
#[test]
fn a_loss_that_storaged_died_over_is_finished_by_the_next() {
    with_disks(|folder| {
        let (Some(a), Some(b)) = (Disk::new(folder, "a"), Disk::new(folder, "b")) else { return };
        let places = places(folder);
        let mut boot = Boot::new(&places, &[&a, &b]);
        boot.settle(2);
        boot.put(1);
        for remembered in [false, true] {
            let first = boot.copies().places[0].pool.clone();
            let (lost, stays) = if first == header(&a).pool { (&a, &b) } else { (&b, &a) };
            boot.store = None;
            boot.end();
            let mut alone = header(stays);
            alone.copy = alone.copy.map(|mark| mark.next(&[], Generation::draw()));
            alone.state_pools = vec![alone.pool.clone()];
            Node(places.clone()).inscribe(&stays.disk(), &alone).unwrap();
            let file = places.memory.join("boot.json");
            let mut memory = life::remembered(&places).unwrap();
            for copy in memory.copies.iter_mut().filter(|copy| remembered && copy.pool == first) {
                copy.coming = None;
            }
            fs::write(&file, serde_json::to_vec(&memory).unwrap()).unwrap();
            assert!(boot.is_mounted(&places.state) && boot.is_mounted(&places.mirror));

            let next = Boot::new(&places, &[&a, &b]);
            next.settle(2);
            next.put(2 + u32::from(remembered));
            assert_eq!(generation(lost), generation(stays));
            assert_eq!(header(stays).copy.unwrap().epoch, alone.copy.unwrap().epoch);
            // The place of the lost one was emptied and used again, and nothing lies over another.
            let told = next.copies();
            for path in [&places.state, &places.mirror] {
                let is_here = |place: &&Place| place.folder.starts_with(path);
                let mounts = mount::list(&places.root).unwrap();
                let is_it = |mount: &&mount::Mount| Path::new(&mount.target) == path;
                let mounted = mounts.iter().filter(is_it).count();
                assert_eq!((told.places.iter().filter(is_here).count(), mounted), (1, 1));
            }
            // What the first one mounted is the second one's now.
            std::mem::forget(std::mem::replace(&mut boot, next));
        }
        drop(boot);
        for disk in [&a, &b] {
            assert_eq!(Boot::new(&places, &[disk]).get(), Some(3));
        }
    });
}

#[test]
fn a_disk_with_one_of_the_copies_is_given_back_while_the_node_runs() {
    with_disks(|folder| {
        let (Some(a), Some(b)) = (Disk::new(folder, "a"), Disk::new(folder, "b")) else { return };
        let places = places(folder);
        let boot = Boot::new(&places, &[&a, &b]);
        boot.settle(2);
        boot.put(1);
        drop(boot);
        // The one that is shown first, and read.
        let boot = Boot::new(&places, &[&a, &b]);
        boot.settle(2);
        let first = boot.copies().places[0].pool.clone();
        let (leaves, coming, stays) =
            if first == header(&a).pool { (&a, 1, &b) } else { (&b, 2, &a) };
        let key = DiskKey { name: format!("loop{}", leaves.device.number), coming };
        boot.news(Event::Release(key));
        boot.settle(1);
        boot.until("released", |_| matches!(leaves.judge(), Verdict::Released(_)));
        boot.put(2);
        assert!(header(stays).state && !boot.is_mounted(&places.state));
        drop(boot);
        let boot = Boot::new(&places, &[leaves, stays]);
        boot.settle(1);
        assert_eq!(boot.get(), Some(2));
    });
}
