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
use zos_api::local::provision::{Delete, Evidence, Get, List, Put, PutReply, Usage};
use zos_api::local::storage::{
    self, CreateVolume, DeleteVolume, ListPools, ListVolumes, Pools, Volume, VolumeChange, Volumes,
};
use zos_api::local::vm::{self, Ensure, Ensured, Remove, VmStatus, Vms};
use zos_api::local::{CallError, Change, Done};
use zos_daemon::{Bus, Call, Daemon, FaultBoard, Owner, Reconciler, Router, Settings};
use zos_types::deployment::Class;
use zos_types::disk::{Pool, PoolState};
use zos_types::status::State;
use zos_types::unit::GIB;
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
        let (list, create, delete) = (self.clone(), self.clone(), self.clone());
        Router::new(&storage::INTERFACE)
            .on(move |_: Call, _: ListVolumes| {
                let volumes = list.volumes.lock().unwrap().values().cloned().collect();
                async move { Ok(Volumes { volumes }) }
            })
            .on(async |_: Call, _: ListPools| {
                let (id, disk, state) = ("p".into(), "vda".into(), true);
                let (size, free, class) = (Bytes(20 * GIB), Bytes(15 * GIB), Class::Ssd);
                let (condition, reasons, scrub) = (PoolState::Ready, Vec::new(), None);
                let pool = Pool { id, disk, class, size, free, state, condition, reasons, scrub };
                Ok(Pools { pools: vec![pool] })
            })
            .on(move |_: Call, CreateVolume { twin, name, size, class, .. }| {
                let world = create.clone();
                async move {
                    if *world.broken.lock().unwrap() {
                        return Err(CallError::busy("the disk is on fire"));
                    }
                    world.note(format!("create {name}"));
                    let volume = Volume::new(twin, name.clone(), size, class, "p");
                    world.volumes.lock().unwrap().insert(name, volume.clone());
                    Ok(VolumeChange { change: Change::Created, volume })
                }
            })
            .on(move |_: Call, DeleteVolume { name, .. }| {
                let world = delete.clone();
                async move {
                    world.note(format!("delete {name}"));
                    world.volumes.lock().unwrap().remove(&name);
                    Ok(Done {})
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
    assert_eq!((usage.deployments, usage.vms, usage.resources.sru.0), (1, 1, GIB));

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
    check(&version(WEB, 2).replace("1GiB", "2GiB"), "invalid /workloads/data/size").await;
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
