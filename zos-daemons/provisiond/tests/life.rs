//! provisiond over real sockets, with a storaged, a vmd and a capacityd that are simulated: from a
//! twin's wish to volumes and VMs, through restarts, lost disks and failures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use provisiond::book::Book;
use provisiond::brain::Brain;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use zos_api::local::capacity::{self, Measure, Measured};
use zos_api::local::provision::{self, Delete, Evidence, Get, List, Put, PutReply, Taken, Usage};
use zos_api::local::storage::{
    self, CreateVolume, DeleteSnapshot, DeleteVolume, GrowVolume, ListPools, ListSnapshots,
    ListVolumes, Pools, RestoreSnapshot, Snapshot, Snapshots, TakeSnapshot, Volume, VolumeChange,
    Volumes,
};
use zos_api::local::vm::{self, Ensure, Ensured, Remove, VmStatus, Vms};
use zos_api::local::{CallError, Change, Done};
use zos_daemon::{Bus, Call, Daemon, FaultBoard, Owner, Reconciler, Router, Settings};
use zos_types::deployment::{Class, Integrity};
use zos_types::disk::{Pool, PoolState};
use zos_types::status::State;
use zos_types::unit::GIB;
use zos_types::volume::Footprint;
use zos_types::{Amount, Bytes, Capacity, NodeId, TwinId, WorkloadName};

const WEB: &str = r#"{"version": 1, "workloads": {
    "data": {"type": "volume", "size": "1GiB"},
    "hello": {"type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello", "disks": [{"volume": "data"}]}}}"#;

fn twin() -> TwinId {
    // The base point of the curve (RFC 8032, section 5.1): some usable key.
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    NodeId::from_bytes(bytes).unwrap()
}

/// What the hands hold, and what they did.
#[derive(Clone, Default)]
struct World {
    volumes: Arc<Mutex<BTreeMap<WorkloadName, Volume>>>,
    vms: Arc<Mutex<BTreeMap<WorkloadName, VmStatus>>>,
    snapshots: Arc<Mutex<Vec<Snapshot>>>,
    log: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
}

impl World {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn storage(&self) -> Router {
        let (list, create, delete, pools) =
            (self.clone(), self.clone(), self.clone(), self.clone());
        let router = Router::new(&storage::INTERFACE)
            .on(move |_: Call, _: ListVolumes| {
                let volumes = list.volumes.lock().unwrap().values().cloned().collect();
                async move { Ok(Volumes { volumes }) }
            })
            .on(move |_: Call, _: ListPools| {
                let pools = pools.clone();
                async move {
                    let (id, disk, state) = ("p".into(), "vda".into(), true);
                    let (size, class) = (Bytes(20 * GIB), Class::Ssd);
                    let free = pools.free();
                    let (condition, reasons, scrub) = (PoolState::Ready, Vec::new(), None);
                    let pool =
                        Pool { id, disk, class, size, free, state, condition, reasons, scrub };
                    Ok(Pools { pools: vec![pool] })
                }
            })
            .on(move |_: Call, CreateVolume { twin, name, size, class, integrity, from, .. }| {
                let world = create.clone();
                async move {
                    if *world.broken.lock().unwrap() {
                        return Err(CallError::busy("the disk is on fire"));
                    }
                    let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
                    world.note(format!("create {name}{from}"));
                    let made = Volume::new(twin, name.clone(), size, class, "p");
                    let volume = Volume { integrity, ..made };
                    world.volumes.lock().unwrap().insert(name, volume.clone());
                    Ok(VolumeChange { change: Change::Created, volume })
                }
            })
            .on(move |_: Call, DeleteVolume { name, .. }| {
                let world = delete.clone();
                async move {
                    world.note(format!("delete {name}"));
                    world.volumes.lock().unwrap().remove(&name);
                    world.snapshots.lock().unwrap().retain(|snapshot| snapshot.volume != name);
                    Ok(Done {})
                }
            });
        self.snapshots(router)
    }

    /// Room on the only pool, as storaged counts it: 15 GiB, less what volumes and snapshots take.
    fn free(&self) -> Bytes {
        let volumes = self.volumes.lock().unwrap();
        let snapshots = self.snapshots.lock().unwrap();
        let sizes = volumes.values().map(|volume| volume.size);
        let sizes = sizes.chain(snapshots.iter().map(|snapshot| snapshot.size));
        let taken: Bytes = sizes.map(|size| Footprint::of(size, Integrity::None).each).sum();
        Bytes(15 * GIB) - taken
    }

    fn snapshots(&self, router: Router) -> Router {
        let (list, take, delete) = (self.clone(), self.clone(), self.clone());
        let (restore, grow) = (self.clone(), self.clone());
        router
            .on(move |_: Call, _: ListSnapshots| {
                let snapshots = list.snapshots.lock().unwrap().clone();
                async move { Ok(Snapshots { snapshots }) }
            })
            .on(move |_: Call, TakeSnapshot { twin, name, snapshot }| {
                let world = take.clone();
                async move {
                    let of = world.volumes.lock().unwrap()[&name].clone();
                    world.note(format!("take {name}@{snapshot}"));
                    let (size, class, pool) = (of.size, of.class, of.pool);
                    let (name, taken) = (snapshot, jiff::Timestamp::now());
                    let volume = of.name;
                    let snapshot = Snapshot { twin, volume, name, size, class, pool, taken };
                    world.snapshots.lock().unwrap().push(snapshot.clone());
                    Ok(snapshot)
                }
            })
            .on(move |_: Call, DeleteSnapshot { name, snapshot, .. }| {
                let world = delete.clone();
                async move {
                    world.note(format!("forget {name}@{snapshot}"));
                    let mut snapshots = world.snapshots.lock().unwrap();
                    snapshots.retain(|s| s.volume != name || s.name != snapshot);
                    Ok(Done {})
                }
            })
            .on(move |_: Call, RestoreSnapshot { name, snapshot, .. }| {
                let world = restore.clone();
                async move {
                    if *world.broken.lock().unwrap() {
                        return Err(CallError::busy("the disk is on fire"));
                    }
                    let vms = world.vms.lock().unwrap().len();
                    world.note(format!("set {name} back to {snapshot} beside {vms} VMs"));
                    let snapshots = world.snapshots.lock().unwrap();
                    let found = snapshots.iter().any(|s| s.volume == name && s.name == snapshot);
                    let gone = || CallError::not_found(format!("{snapshot} is gone"));
                    found.then_some(Done {}).ok_or_else(gone)
                }
            })
            .on(move |_: Call, GrowVolume { name, size, .. }| {
                let world = grow.clone();
                async move {
                    if *world.broken.lock().unwrap() {
                        return Err(CallError::busy("the disk is on fire"));
                    }
                    world.note(format!("grow {name} to {size}"));
                    let mut volumes = world.volumes.lock().unwrap();
                    let volume = volumes.get_mut(&name).unwrap();
                    volume.size = size;
                    Ok(VolumeChange { change: Change::Updated, volume: volume.clone() })
                }
            })
    }

    fn vm(&self) -> Router {
        let (list, ensure, remove) = (self.clone(), self.clone(), self.clone());
        Router::new(&vm::INTERFACE)
            .on(move |_: Call, _: vm::List| {
                let vms = list.vms.lock().unwrap().values().cloned().collect();
                async move { Ok(Vms { vms }) }
            })
            .on(move |_: Call, Ensure { twin, name, vm }| {
                let world = ensure.clone();
                async move {
                    world.note(format!("ensure {name}"));
                    let (state, since) = (State::Running, jiff::Timestamp::now());
                    let (restarts, address, trouble) = (0, None, None);
                    let vm = VmStatus {
                        twin,
                        name: name.clone(),
                        vm,
                        state,
                        since,
                        restarts,
                        address,
                        trouble,
                    };
                    world.vms.lock().unwrap().insert(name, vm);
                    Ok(Ensured { change: Change::Created })
                }
            })
            .on(move |_: Call, Remove { name, .. }| {
                let world = remove.clone();
                async move {
                    world.note(format!("remove {name}"));
                    world.vms.lock().unwrap().remove(&name);
                    Ok(Done {})
                }
            })
    }
}

fn capacity() -> Router {
    Router::new(&capacity::INTERFACE).on(async |_: Call, _: Measure| {
        let capacity = Capacity {
            cru: Amount::new(2, 0),
            mru: Amount::new(2 * GIB, GIB / 4),
            sru: Amount::new(20 * GIB, GIB),
            ..Capacity::default()
        };
        Ok(Measured { processor: "x".into(), capacity, offered: Default::default() })
    })
}

struct Node {
    folder: tempfile::TempDir,
    world: World,
    faults: FaultBoard,
    bus: Bus,
    provisiond: Vec<JoinHandle<()>>,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = World::default();
        let serve = |name: &str, router: Router| {
            let listener = UnixListener::bind(folder.path().join(name)).unwrap();
            tokio::spawn(router.simulate(listener));
        };
        serve("storage.sock", world.storage());
        serve("vm.sock", world.vm());
        serve("capacity.sock", capacity());
        let (bus, faults) = (Bus::at(folder.path()), FaultBoard::default());
        let mut node = Self { folder, world, faults, bus, provisiond: Vec::new() };
        node.boot();
        node
    }

    fn boot(&mut self) {
        let (book, _) = Book::open(self.folder.path()).unwrap();
        let brain = Arc::new(Brain::new(book, self.bus.clone(), self.faults.clone()));
        let socket = self.folder.path().join("provision.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let owner = Owner::new(Some(Arc::clone(&brain)));
        let known = owner.view();
        let daemon = Daemon::simulated("provisiond", Settings::default(), self.bus.clone(), None);
        let keeping = Reconciler::new(&daemon, "deployments", provisiond::brain::PACE);
        self.provisiond = vec![
            tokio::spawn(async move {
                provisiond::router(known).simulate(listener).await;
                drop(owner);
            }),
            tokio::spawn(brain.reconcile(keeping)),
        ];
    }

    async fn kill(&mut self) {
        for task in self.provisiond.drain(..) {
            task.abort();
            let _ = task.await;
        }
        // Connections that are still open hold the store; they end with their callers.
        for _ in 0..200 {
            if Book::open(self.folder.path()).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the store stays open");
    }

    async fn put(&self, body: &str, dry_run: bool) -> Result<PutReply, CallError> {
        let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
        let (name, body) = ("web".parse().unwrap(), BASE64_STANDARD.encode(body));
        self.bus.call(Put { twin: twin(), name, body, evidence, dry_run }).await
    }

    async fn words(&self) -> String {
        let get = Get { twin: twin(), name: "web".parse().unwrap() };
        let status = self.bus.call(get).await.unwrap();
        let word = |(name, status): (&zos_types::Name, &zos_types::status::WorkloadStatus)| {
            format!("{name}={}", status.state.word())
        };
        status.workloads.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    async fn until(&self, what: &str, check: impl Fn(&World) -> bool) {
        for _ in 0..1000 {
            if check(&self.world) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what}: {:?}", self.world.log());
    }

    async fn until_words(&self, words: &str) {
        for _ in 0..1000 {
            if self.words().await == words {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {words}: {}", self.words().await);
    }
}

fn version(body: &str, version: u64) -> String {
    body.replace("\"version\": 1", &format!("\"version\": {version}"))
}

#[tokio::test]
async fn a_wish_is_durable_then_made_so_and_taken_away_in_order() {
    let mut node = Node::start().await;
    let dry = node.put(WEB, true).await.unwrap();
    assert_eq!(dry.change, Change::Created);
    assert_eq!(node.put(WEB, false).await.unwrap().change, Change::Created);
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.world.log(), ["create web/data", "ensure web/hello"]);
    assert_eq!(node.put(WEB, false).await.unwrap().change, Change::Unchanged);
    let usage = node.bus.call(Usage {}).await.unwrap();
    assert_eq!((usage.deployments, usage.vms, usage.resources.sru.0), (1, 1, GIB + 65_536));

    // After a boot no VM is there; it comes back by itself, with the volume that it had.
    node.kill().await;
    node.world.vms.lock().unwrap().clear();
    node.boot();
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.world.log(), ["ensure web/hello"]);

    let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
    let delete = Delete { twin: twin(), name: "web".parse().unwrap(), evidence };
    assert_eq!(node.bus.call(delete.clone()).await.unwrap().next_version, 2);
    node.until("gone", |world| world.volumes.lock().unwrap().is_empty()).await;
    assert_eq!(node.world.log(), ["remove web/hello", "delete web/data"]);
    for error in [
        node.bus.call(delete).await.unwrap_err(),
        node.put(WEB, false).await.unwrap_err(),
        node.bus.call(Get { twin: twin(), name: "web".parse().unwrap() }).await.unwrap_err(),
    ] {
        assert!(matches!(error, CallError::Conflict { next_version: Some(2), .. }), "{error:?}");
    }
    let list = node.bus.call(List { twin: twin() }).await.unwrap();
    assert!(list.deployments.is_empty() && node.faults.list().is_empty());
}

#[tokio::test]
async fn what_is_refused_names_the_field_and_leaves_all_as_it_was() {
    let node = Node::start().await;
    let pointers = |error: CallError| match error {
        CallError::Invalid { errors, .. } => format!("invalid {}", errors[0].pointer),
        CallError::Full { errors, .. } => format!("full {}", errors[0].pointer),
        other => other.to_string(),
    };
    let check = async |body: &str, expected: &str| {
        let error = node.put(body, false).await.unwrap_err();
        assert_eq!(pointers(error), expected);
    };
    check(&WEB.replace("\"cpu\": 1", "\"cpu\": 0"), "invalid /workloads/hello/cpu").await;
    check(&WEB.replace("256MiB", "4GiB"), "full /workloads/hello/memory").await;
    check(&WEB.replace("1GiB", "16GiB"), "full /workloads/data/size").await;
    check(&version(WEB, 2), "version 2 of `web` can't be taken: the next one is 1").await;
    node.put(WEB, false).await.unwrap();
    node.until_words("data=ready hello=running").await;
    check(&version(WEB, 2).replace("1GiB", "512MiB"), "invalid /workloads/data/size").await;
    check(&version(WEB, 2).replace("1GiB", "16GiB"), "full /workloads/data/size").await;
    let repair = WEB.replace("1GiB\"", "1GiB\", \"integrity\": \"repair\"");
    check(&version(&repair, 2), "invalid /workloads/data/integrity").await;
    assert_eq!(node.words().await, "data=ready hello=running");
    assert_eq!(node.world.log(), ["create web/data", "ensure web/hello"]);
}

#[tokio::test]
async fn a_step_that_fails_is_shown_and_tried_again() {
    let node = Node::start().await;
    *node.world.broken.lock().unwrap() = true;
    node.put(WEB, false).await.unwrap();
    node.until_words("data=degraded hello=degraded").await;
    *node.world.broken.lock().unwrap() = false;
    node.until_words("data=ready hello=running").await;
}

#[tokio::test]
async fn a_volume_whose_disk_is_missing_is_never_made_anew() {
    let mut node = Node::start().await;
    node.put(WEB, false).await.unwrap();
    node.until_words("data=ready hello=running").await;
    node.world.log();
    node.kill().await;
    let disk = std::mem::take(&mut *node.world.volumes.lock().unwrap());
    node.world.vms.lock().unwrap().clear();
    node.boot();
    node.until_words("data=degraded hello=degraded").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(node.world.log().is_empty());
    // The disk comes back, and with it all that was on it.
    *node.world.volumes.lock().unwrap() = disk;
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.world.log(), ["ensure web/hello"]);
}

#[tokio::test]
async fn volumes_that_nobody_knows_are_shown_and_left_alone() {
    let mut node = Node::start().await;
    node.put(WEB, false).await.unwrap();
    node.until_words("data=ready hello=running").await;
    node.kill().await;
    std::fs::remove_file(node.folder.path().join("provision.redb")).unwrap();
    node.boot();
    node.until("shown", |_| !node.faults.list().is_empty()).await;
    assert_eq!(node.faults.list()[0].id, "provision.orphan-volumes");
    assert_eq!(node.world.volumes.lock().unwrap().len(), 1);
}

impl Node {
    async fn take(&self, snapshot: &str) -> Result<Taken, CallError> {
        let (name, snapshot) = ("web/data".parse().unwrap(), snapshot.parse().unwrap());
        self.bus.call(provision::TakeSnapshot { twin: twin(), name, snapshot }).await
    }

    async fn restore(
        &self,
        snapshot: &str,
    ) -> Result<zos_types::volume::SnapshotStatus, CallError> {
        let (name, snapshot) = ("web/data".parse().unwrap(), snapshot.parse().unwrap());
        let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
        self.bus.call(provision::RestoreSnapshot { twin: twin(), name, snapshot, evidence }).await
    }

    async fn forget(&self, snapshot: &str) -> Result<Done, CallError> {
        let (name, snapshot) = ("web/data".parse().unwrap(), snapshot.parse().unwrap());
        self.bus.call(provision::DeleteSnapshot { twin: twin(), name, snapshot }).await
    }

    async fn data(&self) -> zos_types::volume::VolumeStatus {
        let get = Get { twin: twin(), name: "web".parse().unwrap() };
        let status = self.bus.call(get).await.unwrap();
        status.workloads[&"data".parse().unwrap()].volume.clone().unwrap()
    }

    async fn until_restored(&self) {
        for _ in 0..1000 {
            if self.data().await.restoring.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not set back: {:?}", self.world.log());
    }

    async fn running(&self) {
        self.put(WEB, false).await.unwrap();
        self.until_words("data=ready hello=running").await;
        self.world.log();
    }
}

#[tokio::test]
async fn a_volume_grows_in_a_new_version_under_its_running_vm() {
    let node = Node::start().await;
    node.running().await;
    *node.world.broken.lock().unwrap() = true;
    let larger = version(WEB, 2).replace("1GiB", "2GiB");
    let put = node.put(&larger, false).await.unwrap();
    assert_eq!((put.change, put.used.su), (Change::Updated, 10));
    node.until_words("data=degraded hello=running").await;
    *node.world.broken.lock().unwrap() = false;
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.world.log(), ["grow web/data to 2 GiB"]);
    assert_eq!(node.data().await.size, Bytes(2 * GIB));
    let shrunk = node.put(&version(WEB, 3), false).await.unwrap_err();
    assert!(matches!(shrunk, CallError::Invalid { .. }), "{shrunk:?}");
}

#[tokio::test]
async fn snapshots_are_taken_once_counted_in_full_and_destroyed() {
    let node = Node::start().await;
    assert!(matches!(node.take("a").await, Err(CallError::NotFound { .. })));
    node.running().await;
    let taken = node.take("monday").await.unwrap();
    assert_eq!((taken.change, taken.snapshot.size), (Change::Created, Bytes(GIB)));
    let again = node.take("monday").await.unwrap();
    assert_eq!((again.change, &again.snapshot), (Change::Unchanged, &taken.snapshot));
    assert_eq!(node.world.log(), ["take web/data@monday"]);
    let usage = node.bus.call(Usage {}).await.unwrap();
    assert_eq!(usage.resources.sru.0, 2 * (GIB + 65_536));
    let same = node.put(WEB, false).await.unwrap();
    assert_eq!((same.change, same.used.su), (Change::Unchanged, 10)); // billed with its snapshot
    assert_eq!(node.data().await.snapshots, [taken.snapshot]);

    // 13 GiB are left less some: 12 more fit, and what they take is given to nobody else.
    for i in 0..12 {
        node.take(&format!("s{i}")).await.unwrap();
    }
    let CallError::Full { detail, .. } = node.take("one-more").await.unwrap_err() else { panic!() };
    assert!(detail.contains("1023.1 MiB are left on the disk that it lies on"), "{detail}");
    let other = r#"{"version": 2, "workloads": {"data": {"type": "volume", "size": "2GiB"}}}"#;
    assert!(matches!(node.put(other, true).await, Err(CallError::Full { .. })));
    node.forget("s3").await.unwrap();
    assert!(matches!(node.forget("s3").await, Err(CallError::NotFound { .. })));
    node.put(other, true).await.unwrap();

    // They go with their volume.
    let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
    let delete = Delete { twin: twin(), name: "web".parse().unwrap(), evidence };
    node.bus.call(delete).await.unwrap();
    node.until("gone", |world| world.volumes.lock().unwrap().is_empty()).await;
    assert!(matches!(node.take("a").await, Err(CallError::NotFound { .. })));
}

#[tokio::test]
async fn no_volume_has_more_than_32_snapshots() {
    let node = Node::start().await;
    node.put(&WEB.replace("1GiB", "64MiB"), false).await.unwrap();
    node.until_words("data=ready hello=running").await;
    for i in 0..32 {
        node.take(&format!("s{i}")).await.unwrap();
    }
    let CallError::Full { detail, .. } = node.take("s32").await.unwrap_err() else { panic!() };
    assert!(detail.contains("has 32 snapshots"), "{detail}");
}

#[tokio::test]
async fn going_back_stops_the_vm_and_starts_it_again_also_over_a_restart() {
    let mut node = Node::start().await;
    node.running().await;
    assert!(matches!(node.restore("monday").await, Err(CallError::NotFound { .. })));
    node.take("monday").await.unwrap();
    node.take("tuesday").await.unwrap();
    node.world.log();
    node.restore("monday").await.unwrap();
    node.until_restored().await;
    node.until_words("data=ready hello=running").await;
    let done = ["remove web/hello", "set web/data back to monday beside 0 VMs", "ensure web/hello"];
    assert_eq!(node.world.log(), done);

    // storaged can't; provisiond is killed; it comes back, and brings it to its end.
    *node.world.broken.lock().unwrap() = true;
    node.restore("monday").await.unwrap();
    node.until_words("data=degraded hello=degraded").await;
    assert_eq!(node.data().await.restoring, Some("monday".parse().unwrap()));
    node.restore("monday").await.unwrap(); // the same wish again
    for refused in [
        node.restore("tuesday").await.unwrap_err(),
        node.forget("monday").await.unwrap_err(),
        node.take("wednesday").await.unwrap_err(),
    ] {
        assert!(matches!(refused, CallError::Conflict { .. }), "{refused:?}");
    }
    node.kill().await;
    *node.world.broken.lock().unwrap() = false;
    node.boot();
    node.until_restored().await;
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.world.log(), done);
}

#[tokio::test]
async fn a_snapshot_that_is_lost_keeps_no_vm_down() {
    let node = Node::start().await;
    node.running().await;
    node.take("monday").await.unwrap();
    *node.world.broken.lock().unwrap() = true;
    node.restore("monday").await.unwrap();
    node.until_words("data=degraded hello=degraded").await;
    node.world.snapshots.lock().unwrap().clear();
    *node.world.broken.lock().unwrap() = false;
    node.until_words("data=ready hello=running").await;
    assert_eq!(node.data().await.restore_error.as_deref(), Some("monday is gone"));
}

#[tokio::test]
async fn a_clone_is_made_of_what_is_there_and_its_origin_waits_for_it() {
    let node = Node::start().await;
    let clone = |from: &str, rest: &str| {
        let clone =
            format!(r#""copy": {{"type": "volume", "size": "2GiB", "from": "{from}"{rest}}}"#);
        version(WEB, 2).replace(r#""hello":"#, &format!("{clone}, \"hello\":"))
    };
    let refused = async |body: &str, field: &str, words: &str| {
        let CallError::Invalid { errors, .. } = node.put(body, true).await.unwrap_err() else {
            panic!("{body}")
        };
        assert_eq!(errors[0].pointer, format!("/workloads/copy/{field}"));
        assert!(errors[0].rule.contains(words), "{errors:?}");
    };
    node.running().await;
    refused(&clone("data@monday", ""), "from", "no snapshot `monday`").await;
    refused(&clone("other/data", ""), "from", "no volume other/data").await;
    refused(&clone("web/copy", ""), "from", "itself").await;
    node.take("monday").await.unwrap();
    refused(&clone("data@monday", r#", "integrity": "detect""#), "integrity", "as its origin")
        .await;
    refused(&clone("data", "").replace("2GiB", "512MiB"), "size", "at least 1 GiB").await;
    // No room for it beside its origin, wherever else there were some.
    let full = node.put(&clone("data", "").replace("2GiB", "14GiB"), true).await;
    assert!(matches!(full, Err(CallError::Full { .. })), "{full:?}");

    *node.world.broken.lock().unwrap() = true;
    node.put(&clone("data@monday", ""), false).await.unwrap();
    node.until_words("copy=degraded data=ready hello=running").await;
    let needed = node.forget("monday").await.unwrap_err();
    assert!(matches!(needed, CallError::Conflict { .. }), "{needed:?}");
    // A version without the origin: it stays until the clone is made.
    node.world.log();
    let alone = r#"{"version": 3, "workloads": {
        "copy": {"type": "volume", "size": "2GiB", "from": "data@monday"}}}"#;
    node.put(alone, false).await.unwrap();
    node.until("stopped", |world| world.vms.lock().unwrap().is_empty()).await;
    *node.world.broken.lock().unwrap() = false;
    let moved = |world: &World| {
        let volumes = world.volumes.lock().unwrap();
        volumes.keys().map(ToString::to_string).eq(["web/copy"])
    };
    node.until("moved", moved).await;
    let done = ["remove web/hello", "create web/copy from web/data@monday", "delete web/data"];
    assert_eq!(node.world.log(), done);
}

/// Thirty twins' wishes at once for what fourteen can have, while it is being made.
#[tokio::test]
async fn wishes_at_once_get_no_more_than_there_is() {
    let node = Node::start().await;
    let body = r#"{"version": 1, "workloads": {"data": {"type": "volume", "size": "1GiB"}}}"#;
    let puts = (0..30).map(|i| {
        let (bus, name) = (node.bus.clone(), format!("n{i}").parse().unwrap());
        let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
        let (body, dry_run) = (BASE64_STANDARD.encode(body), false);
        let put = Put { twin: twin(), name, body, evidence, dry_run };
        tokio::spawn(async move { bus.call(put).await })
    });
    let mut taken = 0;
    for put in puts.collect::<Vec<_>>() {
        match put.await.unwrap() {
            Ok(_) => taken += 1,
            Err(CallError::Full { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((1..=14).contains(&taken), "{taken}");
    node.until("made", |world| world.volumes.lock().unwrap().len() == taken).await;
    // What was taken in two minds is free again when all is made: the rest goes to who asks then.
    let mut last = 0;
    for i in 30..60 {
        let evidence = Evidence { base: "base".into(), signature: "c2ln".into() };
        let (name, body) = (format!("n{i}").parse().unwrap(), BASE64_STANDARD.encode(body));
        let put = Put { twin: twin(), name, body, evidence, dry_run: false };
        match node.bus.call(put).await {
            Ok(_) => last += 1,
            Err(CallError::Full { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        node.until("made", |world| world.volumes.lock().unwrap().len() == taken + last).await;
    }
    assert_eq!(taken + last, 14);
}
