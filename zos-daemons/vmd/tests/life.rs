//! vmd over real sockets, with a PID 1, a storaged and a netd that are simulated: VMs are started
//! with what they need, restarted, found again by the next vmd, and taken down.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use vmd::effects::Places;
use vmd::host::{Host, watch_units};
use vmd::notes::Notes;
use zos_api::local::init::{
    self, Acknowledge, Exit, StartTransient, StopTransient, Unit, UnitKind, UnitState, Units,
    WatchUnits,
};
use zos_api::local::net::{self, CloseTaps, OpenTap, Tap};
use zos_api::local::storage::{self, CloseVolume, OpenShare, OpenVolume, Volume};
use zos_api::local::vm::{Drain, Ensure, List, ReadLog, Remove, VmStatus};
use zos_api::local::{CallError, Done};
use zos_daemon::{Bus, Call, FaultBoard, Router, Sink};
use zos_types::deployment::{Content, DiskOf, Image, NetworkKind, NetworkOf, Restart, ShareOf, Vm};
use zos_types::status::State;
use zos_types::{Bytes, NodeId, TwinId, WorkloadName};
use zos_vmm_spec::rates::TwinRates;
use zos_vmm_spec::{Bucket, Rate, Source, Spec};

fn twin() -> TwinId {
    // The base point of the curve (RFC 8032, section 5.1): some usable key.
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    NodeId::from_bytes(bytes).unwrap()
}

fn slow() -> Rate {
    Rate { bytes: Some(Bucket { per_second: 1 << 20, burst: 1 << 20 }), operations: None }
}

fn hello() -> WorkloadName {
    "web/hello".parse().unwrap()
}

fn unit_name() -> String {
    format!("vm/{}/web.hello", twin())
}

fn vm(restart: Restart) -> Vm {
    Vm {
        cpu: 1,
        memory: Bytes(256 << 20),
        image: Image::Hello,
        restart,
        disks: vec![DiskOf { volume: "data".parse().unwrap() }],
        networks: vec![NetworkOf { network: NetworkKind::Nat }],
        shares: vec![],
    }
}

/// What PID 1 was asked to start.
type Started = (StartTransient, Vec<OwnedFd>);

/// The node around vmd.
#[derive(Clone)]
struct World {
    units: watch::Sender<BTreeMap<String, Unit>>,
    starts: Arc<Mutex<Vec<Started>>>,
    log: Arc<Mutex<Vec<String>>>,
    clock: Arc<Mutex<u64>>,
}

impl World {
    fn tick(&self) -> u64 {
        let mut clock = self.clock.lock().unwrap();
        *clock += 1;
        *clock
    }

    fn note(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    /// The VM's process ends, and all that runs beside it.
    fn end(&self, exit: Exit) {
        let units: Vec<String> = self.units.borrow().keys().cloned().collect();
        for unit in units {
            self.end_one(&unit, exit);
        }
    }

    fn end_one(&self, unit: &str, exit: Exit) {
        let since_ms = self.tick();
        self.units.send_modify(|units| {
            let unit = units.get_mut(unit).unwrap();
            (unit.state, unit.exit, unit.pid) = (UnitState::Exited, Some(exit), None);
            unit.since_ms = since_ms;
        });
    }

    fn starts(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    fn init(&self) -> Router {
        let (start, stop, acknowledge, watched) =
            (self.clone(), self.clone(), self.clone(), self.clone());
        Router::new(&init::INTERFACE)
            .on(move |call: Call, request: StartTransient| {
                let world = start.clone();
                async move {
                    let name = format!("{}/{}/{}", request.template, request.twin, request.name);
                    if world.units.borrow().contains_key(&name) {
                        return Err(CallError::Conflict { detail: name, next_version: None });
                    }
                    let unit = Unit {
                        name: name.clone(),
                        kind: UnitKind::Transient,
                        state: UnitState::Running,
                        pid: Some(1000),
                        restarts: 0,
                        since_ms: world.tick(),
                        exit: None,
                        detail: String::new(),
                    };
                    world.starts.lock().unwrap().push((request, call.fds));
                    world.units.send_modify(|units| drop(units.insert(name, unit)));
                    Ok(Done {})
                }
            })
            .on(move |_: Call, StopTransient { unit, grace_ms }| {
                let world = stop.clone();
                async move {
                    world.note(format!("stop {grace_ms}"));
                    let (code, signal) =
                        if grace_ms == 0 { (None, Some(9)) } else { (Some(0), None) };
                    let exit = Exit { code, signal, oom: false };
                    if unit == unit_name() {
                        world.end(exit);
                    } else {
                        world.end_one(&unit, exit);
                    }
                    Ok(Done {})
                }
            })
            .on(move |_: Call, Acknowledge { unit }| {
                let world = acknowledge.clone();
                async move {
                    let mut known = false;
                    world.units.send_modify(|units| {
                        known = units.get(&unit).is_some_and(|u| u.state == UnitState::Exited);
                        if known {
                            units.remove(&unit);
                        }
                    });
                    let running = world.units.borrow().contains_key(&unit);
                    match (known, running) {
                        (true, _) => Ok(Done {}),
                        (_, true) => Err(CallError::Conflict { detail: unit, next_version: None }),
                        _ => Err(CallError::not_found(unit)),
                    }
                }
            })
            .on_stream(move |_: Call, _: WatchUnits, out: Sink<Units>| {
                let mut units = watched.units.subscribe();
                async move {
                    loop {
                        let now = units.borrow_and_update().values().cloned().collect();
                        out.send(Units { units: now }).await?;
                        units.changed().await.map_err(|_| CallError::busy("over"))?;
                    }
                }
            })
    }

    fn storage(&self, folder: &Path) -> Router {
        let (world, disk, share) = (self.clone(), folder.join("disk"), folder.join("share"));
        Router::new(&storage::INTERFACE)
            .on_fds(move |_: Call, OpenVolume { twin, name }| {
                let disk = disk.clone();
                async move {
                    std::fs::write(&disk, b"disk").unwrap();
                    let (size, class) = (Bytes(1 << 30), Default::default());
                    let volume = Volume::new(twin, name, size, class, "p");
                    Ok((volume, vec![OwnedFd::from(std::fs::File::open(&disk).unwrap())]))
                }
            })
            .on_fds(move |_: Call, OpenShare { twin, name }| {
                let root = share.clone();
                async move {
                    std::fs::create_dir_all(&root).unwrap();
                    let volume = Volume::new(twin, name, Bytes(1 << 30), Default::default(), "p");
                    let volume = Volume { holds: Content::Share, ..volume };
                    Ok((volume, vec![OwnedFd::from(std::fs::File::open(&root).unwrap())]))
                }
            })
            .on(move |_: Call, CloseVolume { name, .. }| {
                world.note(format!("close {name}"));
                async { Ok(Done {}) }
            })
    }

    fn net(&self) -> Router {
        let world = self.clone();
        Router::new(&net::INTERFACE)
            .on_fds(async |_: Call, OpenTap { twin, name, index, queues, .. }| {
                let device = "tap0".into();
                let (mac, address) = ("52:54:00:00:00:01".into(), "10.1.0.2".parse().unwrap());
                let addresses = vec![address, "10.2.0.2".parse().unwrap()];
                let tap = Tap { twin, name, index, device, mac, address, addresses };
                let null = |_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
                Ok((tap, (0..queues).map(null).collect()))
            })
            .on(move |_: Call, CloseTaps { name, .. }| {
                world.note(format!("close taps of {name}"));
                async { Ok(Done {}) }
            })
    }
}

/// The node, with its folder.
struct Node {
    folder: tempfile::TempDir,
    world: World,
    faults: FaultBoard,
    bus: Bus,
    vmd: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["kvm", "vmlinuz", "hello.img"] {
            std::fs::write(folder.path().join(file), file).unwrap();
        }
        let world = World {
            units: watch::Sender::new(BTreeMap::new()),
            starts: Arc::default(),
            log: Arc::default(),
            clock: Arc::default(),
        };
        let serve = |name: &str, router: Router| {
            let listener = UnixListener::bind(folder.path().join(name)).unwrap();
            tokio::spawn(router.simulate(listener));
        };
        serve("init.sock", world.init());
        serve("storage.sock", world.storage(folder.path()));
        serve("net.sock", world.net());
        let (bus, faults) = (Bus::at(folder.path()), FaultBoard::default());
        let mut node = Self { folder, world, faults, bus, vmd: Vec::new() };
        node.start_vmd();
        node
    }

    fn rates(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.rates", twin()))
    }

    fn start_vmd(&mut self) {
        let path = self.folder.path();
        let (tell, messages) = mpsc::channel(64);
        let places = Places {
            kvm: path.join("kvm"),
            guest: path.to_owned(),
            cgroups: path.join("cgroups"),
            rates: TwinRates { disk: slow(), ..TwinRates::default() },
        };
        let (notes, bus) = (Notes::new(path, "boot"), self.bus.clone());
        let host = Host::new(notes, places, bus.clone(), self.faults.clone(), tell.clone());
        let socket = path.join("vm.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        self.vmd = vec![
            tokio::spawn(vmd::router(tell.clone()).simulate(listener)),
            tokio::spawn(watch_units(bus, tell)),
            tokio::spawn(host.run(messages)),
        ];
    }

    /// As a crash does: at once, with nothing said.
    fn kill_vmd(&mut self) {
        self.vmd.drain(..).for_each(|task| task.abort());
    }

    async fn ensure(&self, restart: Restart) {
        let ensure = Ensure { twin: twin(), name: hello(), vm: vm(restart) };
        self.bus.call(ensure).await.unwrap();
    }

    async fn status(&self) -> Option<VmStatus> {
        self.bus.call(List {}).await.unwrap().vms.into_iter().next()
    }

    async fn until(&self, what: &str, check: impl Fn(Option<VmStatus>) -> bool) {
        for _ in 0..500 {
            if check(self.status().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what}: {:?}", self.status().await);
    }

    async fn until_running(&self) {
        self.until("running", |vm| vm.is_some_and(|vm| vm.state == State::Running)).await;
    }
}

fn code(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, oom: false }
}

#[tokio::test]
async fn a_vm_gets_what_it_needs_by_descriptor_and_all_of_it_back() {
    let node = Node::start().await;
    node.ensure(Restart::Always).await;
    node.until_running().await;
    let status = node.status().await.unwrap();
    assert_eq!(status.address, Some("10.1.0.2".parse().unwrap()));
    {
        let mut starts = node.world.starts.lock().unwrap();
        let (start, fds) = &mut starts[0];
        let names = start.fds.join(" ");
        let expected =
            "kvm kernel initramfs serial-ring api serial-socket vsock disk-0 net-0 twin-rates spec";
        assert_eq!(names, expected);
        assert_eq!((start.template.as_str(), start.slot), ("vm", 0));
        let limits = start.limits;
        assert_eq!(limits.memory, Some(vm(Restart::Always).charged().0));
        // Its memory is the longest file; a CPU for the guest, and one for its devices.
        assert_eq!((limits.file_size, limits.cpu_quota), (Some(256 << 20), Some(200)));
        let file = |fd: &OwnedFd| std::fs::File::from(fd.try_clone().unwrap());
        let mut text = String::new();
        file(&fds[10]).read_to_string(&mut text).unwrap();
        let spec: Spec = serde_json::from_str(&text).unwrap();
        spec.validate().unwrap();
        assert_eq!(
            (spec.cpus, spec.memory.0, spec.disks.len(), spec.nets.len()),
            (1, 256 << 20, 1, 1)
        );
        // It may send from what netd leases to it alone.
        let net = &spec.nets[0];
        let leased = ["10.1.0.2", "10.2.0.2"].map(|address| address.parse().unwrap());
        assert_eq!((net.queues, &net.addresses), (1, &Some(leased.to_vec())));
        assert!(net.mac.is_some());
        let mut bytes = Vec::new();
        std::fs::File::open(node.rates()).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(spec.twin_rates, Some(Source::Fd("twin-rates".into())));
        assert_eq!(TwinRates::read(&bytes).unwrap().disk, slow());
        assert!(spec.balloon.is_some_and(|balloon| balloon.free_page_reporting));
        // Each socket leads to the VMM, which may be another one later.
        for (at, name) in [(4, "api"), (5, "serial"), (6, "vsock")] {
            let listener = std::os::unix::net::UnixListener::from(fds[at].try_clone().unwrap());
            let path = node.folder.path().join("0").join(name);
            let _connected = std::os::unix::net::UnixStream::connect(path).unwrap();
            listener.accept().unwrap();
        }
        // The guest writes to its console.
        let ring = file(&fds[3]);
        ring.write_all_at(b"hello\n", 4096).unwrap();
        ring.write_all_at(&6u64.to_le_bytes(), 16).unwrap();
    }
    let read = |from, follow| ReadLog { twin: twin(), name: hello(), from, follow };
    let chunk = node.bus.call(read(0, false)).await.unwrap();
    assert_eq!((chunk.data.as_str(), chunk.next), ("aGVsbG8K", 6));
    let mut follow = node.bus.watch(read(6, true)).await.unwrap();
    assert_eq!(follow.next().await.unwrap().unwrap().next, 6);

    node.bus.call(Remove { twin: twin(), name: hello() }).await.unwrap();
    assert!(node.status().await.is_none());
    assert!(!node.folder.path().join("0").exists(), "its sockets are left");
    assert!(!node.rates().exists(), "its twin's rates are left");
    // The follower's stream ends with the VM.
    while let Some(chunk) = follow.next().await {
        chunk.unwrap();
    }
    let log = node.world.log.lock().unwrap().clone();
    assert_eq!(log, ["stop 10000", "close taps of web/hello", "close web/data"]);
    assert!(node.world.units.borrow().is_empty());
    node.bus.call(Remove { twin: twin(), name: hello() }).await.unwrap();
    let error = node.bus.call(read(0, false)).await.unwrap_err();
    assert!(matches!(error, CallError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_guest_that_reboots_is_started_again_at_once() {
    let node = Node::start().await;
    node.ensure(Restart::OnFailure).await;
    node.until_running().await;
    node.world.end(code(3));
    node.until("restarted", |vm| vm.is_some_and(|vm| vm.restarts == 1)).await;
    node.until_running().await;
    assert_eq!(node.world.starts(), 2);
    node.world.end(code(0));
    node.until("stopped", |vm| vm.is_some_and(|vm| matches!(vm.state, State::Stopped { .. })))
        .await;
}

#[tokio::test]
async fn a_killed_vmd_touches_no_vm_and_its_successor_misses_no_end() {
    let mut node = Node::start().await;
    node.ensure(Restart::Always).await;
    node.until_running().await;
    node.kill_vmd();
    assert_eq!(node.world.units.borrow()[&unit_name()].state, UnitState::Running);
    node.start_vmd();
    node.until_running().await;
    // Its sockets still lead to it.
    let api = node.folder.path().join("0/api");
    std::os::unix::net::UnixStream::connect(&api).unwrap();
    node.ensure(Restart::Always).await;
    assert_eq!((node.world.starts(), node.status().await.unwrap().restarts), (1, 0));
    assert_eq!(node.status().await.unwrap().address, Some("10.1.0.2".parse().unwrap()));

    node.kill_vmd();
    node.world.end(code(3));
    node.start_vmd();
    node.until("restarted", |vm| vm.is_some_and(|vm| vm.restarts == 1)).await;
    node.until_running().await;
    assert_eq!(node.world.starts(), 2);
    assert!(node.world.log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_virtualization_the_vm_waits_and_the_farmer_is_told() {
    let node = Node::start().await;
    std::fs::remove_file(node.folder.path().join("kvm")).unwrap();
    node.ensure(Restart::Always).await;
    let degraded =
        |vm: Option<VmStatus>| vm.is_some_and(|vm| matches!(vm.state, State::Degraded { .. }));
    node.until("degraded", degraded).await;
    assert_eq!(node.faults.list()[0].id, "vm.no-kvm");
    assert!(node.faults.list()[0].detail.contains("firmware"));
    // Enabled: it heals by itself.
    std::fs::write(node.folder.path().join("kvm"), "").unwrap();
    node.until_running().await;
    assert!(node.faults.list().is_empty());
}

#[tokio::test]
async fn a_drained_node_starts_no_vm() {
    let node = Node::start().await;
    node.ensure(Restart::Always).await;
    node.until_running().await;
    node.bus.call(Drain { deadline_ms: 5000 }).await.unwrap();
    assert!(node.world.units.borrow().values().all(|unit| unit.state == UnitState::Exited));
    node.ensure(Restart::Always).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.world.starts(), 1);
}

#[tokio::test]
async fn a_vm_that_nobody_knows_is_stopped() {
    let mut node = Node::start().await;
    node.ensure(Restart::Always).await;
    node.until_running().await;
    node.kill_vmd();
    std::fs::remove_file(node.folder.path().join("vms.json")).unwrap();
    node.start_vmd();
    for _ in 0..500 {
        if node.world.units.borrow().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it still runs");
}

#[tokio::test]
async fn each_share_has_a_server_that_ends_with_its_vm_and_the_vm_with_it() {
    let mut node = Node::start().await;
    let server = format!("virtiofsd/{}/web.hello.files", twin());
    let shares = vec![ShareOf { share: "files".parse().unwrap(), tag: Some("f".into()) }];
    let vm = Vm { shares, disks: vec![], ..vm(Restart::Always) };
    let ensure = |vm: &Vm| Ensure { twin: twin(), name: hello(), vm: vm.clone() };
    node.bus.call(ensure(&vm)).await.unwrap();
    node.until_running().await;
    {
        let starts = node.world.starts.lock().unwrap();
        let [(of_server, passed), (of_vm, for_vm)] = &starts[..] else { panic!("{starts:?}") };
        assert_eq!((&*of_server.template, &*of_server.name), ("virtiofsd", "web.hello.files"));
        assert_eq!((of_server.fds.join(" "), of_server.slot), ("socket folder".to_owned(), 0));
        // Within the VM's limits, whose part for it these descriptors are; files may be of any length.
        let limits = of_server.limits;
        assert_eq!((limits.memory, limits.files), (Some(vm.charged().0), Some(16_384)));
        assert_eq!((limits.memory, limits.file_size), (of_vm.limits.memory, None));
        let spec = of_vm.fds.iter().position(|name| name == "spec").unwrap();
        let mut text = String::new();
        let spec = std::fs::File::from(for_vm[spec].try_clone().unwrap()).read_to_string(&mut text);
        spec.unwrap();
        let spec: Spec = serde_json::from_str(&text).unwrap();
        spec.validate().unwrap();
        assert_eq!(spec.shares[0].tag, "f");
        assert_eq!(spec.shares[0].source, Source::Fd("share-0".into()));
        // The VM's end leads to the server's.
        let socket = std::os::unix::net::UnixListener::from(passed[0].try_clone().unwrap());
        let (mut accepted, _) = socket.accept().unwrap();
        let ours = of_vm.fds.iter().position(|name| name == "share-0").unwrap();
        let ours = std::os::unix::net::UnixStream::from(for_vm[ours].try_clone().unwrap());
        std::io::Write::write_all(&mut &ours, b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        assert!(!node.folder.path().join("0/share").exists(), "somebody else could connect");
    }
    // A killed vmd finds them, and leaves them be.
    node.kill_vmd();
    node.start_vmd();
    node.until_running().await;
    assert!(node.world.log.lock().unwrap().is_empty());

    // The server dies: the VM has lost its folder, and is started again with another.
    node.world.end_one(&server, Exit { code: None, signal: Some(11), oom: false });
    node.until("restarted", |vm| vm.is_some_and(|vm| vm.restarts == 1)).await;
    node.until_running().await;
    assert_eq!(
        (node.world.starts(), &node.world.log.lock().unwrap()[..]),
        (4, &["stop 0".to_owned()][..])
    );

    // It needs it no more: the server goes, and the share is closed.
    node.bus.call(ensure(&Vm { shares: vec![], ..vm.clone() })).await.unwrap();
    node.until("changed", |vm| vm.is_some_and(|vm| vm.vm.shares.is_empty() && vm.restarts == 2))
        .await;
    node.until_running().await;
    assert!(!node.world.units.borrow().contains_key(&server));
    node.bus.call(ensure(&vm)).await.unwrap();
    node.until("with it again", |vm| vm.is_some_and(|vm| vm.restarts == 3)).await;
    node.until_running().await;
    node.bus.call(Remove { twin: twin(), name: hello() }).await.unwrap();
    assert!(node.world.units.borrow().is_empty());
    let log = node.world.log.lock().unwrap();
    let closed = log.iter().filter(|line| *line == "close web/files").count();
    assert_eq!(closed, 2, "{log:?}");
}
