//! A simulated node as its twins and its own daemons see it: admission, faults, kills.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use zos_api::client::{Client, ClientError};
use zos_api::local::init::{KillUnit, ListUnits, UnitKind, UnitState};
use zos_api::local::storage::{
    AdoptDisk, ListDisks, ListVolumes, PlanAdoption, PlanRelease, ReleaseDisk,
};
use zos_daemon::{Bus, CallError};
use zos_sim::{Fleet, Options};
use zos_types::disk::Role;
use zos_types::machine::Node;
use zos_types::status::State;
use zos_types::{Name, WorkloadName};

/// One node, with a twin.
struct Place {
    fleet: Fleet,
    client: Client,
}

impl Place {
    async fn new(faults: &[&str]) -> Self {
        let fault = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        Self::with(Options { fault, ..Options::local() }).await
    }

    async fn with(options: Options) -> Self {
        let fleet = Fleet::start(&options).await.unwrap();
        let node = &fleet.nodes()[0];
        let address = format!("{}@{}", node.id, node.address).parse().unwrap();
        Self { client: Client::new(address, Some(SigningKey::from_bytes(&[7; 32]))), fleet }
    }

    fn bus(&self) -> Bus {
        Bus::at(&self.fleet.nodes()[0].folder)
    }

    async fn put(&self, name: &str, deployment: &Value) -> Result<(), String> {
        let body = serde_json::to_vec(deployment).unwrap();
        match self.client.put(&name.parse().unwrap(), &body, false).await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(problem)) => {
                Err(format!("{} {:?}", problem.detail, problem.errors))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The state of a workload, and how often it was started again.
    async fn state(&self, workload: &str) -> (State, u32) {
        let WorkloadName { deployment, workload } = workload.parse().unwrap();
        let status = self.client.get(&deployment).await.unwrap();
        let workload = &status.workloads[&workload];
        (workload.state.clone(), workload.restarts)
    }

    async fn until(&self, workload: &str, check: impl Fn(&State, u32) -> bool) {
        for _ in 0..200 {
            let (state, restarts) = self.state(workload).await;
            if check(&state, restarts) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{workload} stays {:?}", self.state(workload).await);
    }

    async fn faults(&self) -> Vec<String> {
        let Node { faults, .. } = self.client.node().await.unwrap();
        faults.into_iter().map(|fault| fault.id).collect()
    }
}

fn vm(restart: &str) -> Value {
    json!({ "type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello", "restart": restart })
}

fn volume(size: &str, class: &str) -> Value {
    json!({ "type": "volume", "size": size, "class": class })
}

fn deployment(version: u64, workloads: &Value) -> Value {
    json!({ "version": version, "workloads": workloads })
}

#[tokio::test]
async fn the_node_has_what_was_asked_for_and_no_more() {
    let options = Options { cpus: 2, hdd: Vec::new(), ..Options::local() };
    let place = Place::with(options).await;
    let refused = async |workloads: Value, words: &str| {
        let error = place.put("web", &deployment(1, &workloads)).await.unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    refused(json!({ "data": volume("2TiB", "ssd") }), "/workloads/data/size").await;
    refused(json!({ "data": volume("1GiB", "hdd") }), "the node has no hdd").await;
    let mut large = vm("always");
    large["cpu"] = 3.into();
    refused(json!({ "hello": large }), "the node's threads").await;
    large = vm("always");
    large["memory"] = "16GiB".into();
    refused(json!({ "hello": large }), "/workloads/hello/memory").await;

    place.put("web", &deployment(1, &json!({ "data": volume("600GiB", "ssd") }))).await.unwrap();
    place.until("web/data", |state, _| *state == State::Ready).await;
    let second = deployment(1, &json!({ "data": volume("600GiB", "ssd") }));
    assert!(place.put("more", &second).await.unwrap_err().contains("are left on the emptiest ssd"));
    let capacity = place.client.capacity().await.unwrap();
    assert_eq!((capacity.deployments, capacity.capacity.cru.total), (1, 2));
    place.client.delete(&"web".parse().unwrap()).await.unwrap();
    for _ in 0..100 {
        if place.put("more", &second).await.is_ok() {
            return place.fleet.end().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("what was deleted is still charged");
}

#[tokio::test]
async fn guests_end_as_their_fault_has_it_and_come_back_as_their_policy_says() {
    let all = || {
        let names = ["always", "on-failure", "never"];
        deployment(1, &names.iter().map(|name| (name.to_string(), vm(name))).collect())
    };
    let runs_again = |state: &State, restarts| restarts > 0 && *state == State::Running;
    let stays = |state: &State, _| matches!(state, State::Stopped { .. });

    let crash = async {
        let place = Place::new(&["vm-crash"]).await;
        place.put("web", &all()).await.unwrap();
        place.until("web/always", runs_again).await;
        place.until("web/on-failure", runs_again).await;
        place.until("web/never", stays).await;
        place
    };
    let poweroff = async {
        let place = Place::new(&["vm-poweroff"]).await;
        place.put("web", &all()).await.unwrap();
        place.until("web/always", runs_again).await;
        place.until("web/on-failure", stays).await;
        place.until("web/never", stays).await;
        place
    };
    let reboot = async {
        let place = Place::new(&["vm-reboot"]).await;
        place.put("web", &all()).await.unwrap();
        place.until("web/never", runs_again).await;
        place
    };
    let (crash, poweroff, reboot) = tokio::join!(crash, poweroff, reboot);
    for place in [crash, poweroff, reboot] {
        place.fleet.end().await.unwrap();
    }
}

#[tokio::test]
async fn faults_of_the_machine_are_shown_and_have_their_effect() {
    let check = async |fault: &str, shown: &[&str]| {
        let place = Place::new(&[fault]).await;
        let found = place.faults().await;
        for expected in shown {
            assert!(found.iter().any(|fault| fault == expected), "{fault}: {found:?}");
        }
        place
    };
    assert_eq!(Place::new(&[]).await.faults().await, [""; 0]);
    let kvm = check("no-kvm", &["vm.no-kvm"]).await;
    kvm.put("web", &deployment(1, &json!({ "hello": vm("always") }))).await.unwrap();
    kvm.until("web/hello", |state, _| matches!(state, State::Degraded { .. })).await;
    let disk = check("disk-failing", &["storage.unreadable:sda"]).await;
    assert_eq!(disk.client.capacity().await.unwrap().capacity.hru.total, 0);
    check("disk-foreign", &["storage.foreign-disk:sdz"]).await;
    check("no-network", &["net.no-carrier"]).await;
    let none = check("no-disk", &["storage.no-disk", "identity.ephemeral"]).await;
    assert!(none.client.node().await.unwrap().ephemeral);
}

/// The same words as on a machine: the plan's hash, and nothing with another one.
#[tokio::test]
async fn somebodys_disk_is_adopted_by_its_plan_and_given_back() {
    let place = Place::new(&["disk-foreign"]).await;
    let (bus, disk) = (place.bus(), "sdz".to_owned());
    // Right after the start the node's identity isn't known yet, and it says so.
    let mut planned = bus.call(PlanAdoption { disk: disk.clone() }).await;
    for _ in 0..200 {
        if planned.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        planned = bus.call(PlanAdoption { disk: disk.clone() }).await;
    }
    let plan = planned.unwrap();
    let wrong = AdoptDisk { disk: disk.clone(), plan: "0".repeat(plan.hash.len()) };
    assert!(matches!(bus.call(wrong).await, Err(CallError::Conflict { .. })));
    bus.call(AdoptDisk { disk: disk.clone(), plan: plan.hash }).await.unwrap();
    let role = async || {
        let disks = bus.call(ListDisks {}).await.unwrap().disks;
        disks.into_iter().find(|found| found.name == disk).unwrap().role
    };
    assert_eq!(role().await, Role::Ours);
    assert!(!place.faults().await.contains(&"storage.foreign-disk:sdz".to_owned()));
    let plan = bus.call(PlanRelease { disk: disk.clone() }).await.unwrap();
    bus.call(ReleaseDisk { disk: disk.clone(), plan: plan.hash }).await.unwrap();
    for _ in 0..200 {
        if role().await == Role::Empty {
            return place.fleet.end().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the disk is not given back: {:?}", role().await);
}

/// As a test does it: by the sockets of the node.
#[tokio::test]
async fn a_vm_is_crashed_or_pressed_from_outside() {
    let place = Place::new(&[]).await;
    let all = json!({ "a": vm("on-failure"), "b": vm("on-failure"), "c": vm("always") });
    place.put("web", &deployment(1, &all)).await.unwrap();
    for name in ["web/a", "web/b", "web/c"] {
        place.until(name, |state, _| *state == State::Running).await;
    }
    let bus = place.bus();
    let units = bus.call(ListUnits {}).await.unwrap().units;
    let of = |name: &str| {
        let found = units.iter().find(|unit| unit.name.ends_with(name));
        found.expect("a unit").name.clone()
    };
    let signal = async |name: &str, signal: &str| {
        bus.call(KillUnit { unit: of(name), signal: signal.into() }).await.unwrap();
    };
    signal("web.a", "SEGV").await;
    signal("web.b", "TERM").await;
    signal("web.c", "KILL").await;
    place.until("web/a", |state, restarts| restarts == 1 && *state == State::Running).await;
    place.until("web/b", |state, _| matches!(state, State::Stopped { .. })).await;
    place.until("web/c", |state, restarts| restarts == 1 && *state == State::Running).await;
    place.fleet.end().await.unwrap();
}

/// Fifty daemons killed, one after the other, while a deployment runs and others come and go.
#[tokio::test]
async fn kills_lose_nothing_that_was_acknowledged_and_touch_no_vm() {
    let place = Place::new(&[]).await;
    let web = json!({ "hello": vm("always"), "data": volume("1GiB", "ssd") });
    place.put("web", &deployment(1, &web)).await.unwrap();
    place.until("web/hello", |state, _| *state == State::Running).await;
    let bus = place.bus();
    let vm_units = async || {
        let units = bus.call(ListUnits {}).await.unwrap().units;
        let vms = units.into_iter().filter(|unit| unit.kind == UnitKind::Transient);
        vms.map(|unit| (unit.name, unit.pid, unit.since_ms)).collect::<Vec<_>>()
    };
    let before = vm_units().await;

    let daemons = ["provisiond", "vmd", "storaged", "apid", "identityd", "netd", "capacityd"];
    let mut acknowledged: Vec<Name> = vec!["web".parse().unwrap()];
    for round in 0..50usize {
        let unit = daemons[round * 3 % daemons.len()].to_owned();
        bus.call(KillUnit { unit, signal: "KILL".into() }).await.unwrap();
        // What is asked for meanwhile may fail; what is acknowledged must stay.
        let name: Name = format!("extra-{round}").parse().unwrap();
        let small = deployment(1, &json!({ "data": volume("16MiB", "ssd") })).to_string();
        let put = place.client.put(&name, small.as_bytes(), false);
        match tokio::time::timeout(Duration::from_secs(5), put).await {
            Ok(Ok(_)) => acknowledged.push(name),
            Ok(Err(ClientError::Refused(problem))) => {
                // A part that is being started again is no fault of the deployment's.
                assert!(problem.status >= 500, "{problem:?}");
            }
            Ok(Err(ClientError::Unreachable { .. })) | Err(_) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    assert!(acknowledged.len() > 20, "only {} were acknowledged", acknowledged.len());
    for _ in 0..300 {
        let units = bus.call(ListUnits {}).await.unwrap().units;
        if units.iter().all(|unit| unit.state == UnitState::Running) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    place.until("web/hello", |state, restarts| *state == State::Running && restarts == 0).await;
    for name in &acknowledged[1..] {
        place.until(&format!("{name}/data"), |state, _| *state == State::Ready).await;
    }
    assert_eq!(vm_units().await, before);
    place.fleet.end().await.unwrap();
}

#[tokio::test]
async fn latency_is_felt_and_a_farm_is_told() {
    let latency = Duration::from_millis(200);
    let place = Place::with(Options { latency, farm: Some("7".into()), ..Options::local() }).await;
    let start = std::time::Instant::now();
    let node = place.client.node().await.unwrap();
    // A handshake and a request: two ways there and back at least.
    assert!(start.elapsed() >= 2 * latency, "{:?}", start.elapsed());
    assert_eq!(node.farm.as_deref(), Some("7"));
}

#[tokio::test]
async fn several_vms_have_one_share_and_come_back_when_its_server_dies() {
    let place = Place::new(&[]).await;
    let mut one = vm("always");
    one["shares"] = json!([{ "share": "files" }]);
    let share = json!({ "type": "share", "size": "1GiB", "class": "ssd" });
    let both = json!({ "one": one, "two": one, "files": share });
    place.put("web", &deployment(1, &both)).await.unwrap();
    let running = |state: &State, _| *state == State::Running;
    for vm in ["web/one", "web/two"] {
        place.until(vm, running).await;
    }
    place.until("web/files", |state, _| *state == State::Ready).await;
    let servers = async || {
        let units = place.bus().call(ListUnits {}).await.unwrap().units;
        let servers = units.into_iter().filter(|unit| unit.name.starts_with("virtiofsd/"));
        servers.map(|unit| (unit.name, unit.state)).collect::<Vec<_>>()
    };
    let now = servers().await;
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.iter().all(|(_, state)| *state == UnitState::Running), "{now:?}");
    let unit = now.iter().find(|(name, _)| name.ends_with("/web.one.files")).unwrap().0.clone();
    place.bus().call(KillUnit { unit, signal: "KILL".into() }).await.unwrap();
    place.until("web/one", |state, restarts| restarts == 1 && *state == State::Running).await;
    assert_eq!(place.state("web/two").await, (State::Running, 0));
    assert_eq!(servers().await.len(), 2);

    // A share that a VM needs is a share, and as large as it can be had.
    let volume = volume("1GiB", "ssd");
    let refused = json!({ "one": one, "files": volume });
    let error = place.put("other", &deployment(1, &refused)).await.unwrap_err();
    assert!(error.contains("names no share"), "{error}");
    let large = json!({ "files": { "type": "share", "size": "60TiB", "class": "ssd" } });
    let error = place.put("other", &deployment(1, &large)).await.unwrap_err();
    assert!(error.contains("/workloads/files/size"), "{error}");

    // One goes, and the other stays; both go, and the share with them.
    let two = json!({ "two": one, "files": share });
    place.put("web", &deployment(2, &two)).await.unwrap();
    for _ in 0..100 {
        if servers().await.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(servers().await.len(), 1);
    assert_eq!(place.state("web/two").await, (State::Running, 0));
    place.client.delete(&"web".parse().unwrap()).await.unwrap();
    for _ in 0..100 {
        let volumes = place.bus().call(ListVolumes {}).await.unwrap().volumes;
        if volumes.is_empty() && servers().await.is_empty() {
            return place.fleet.end().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("what was deleted is still there: {:?}", servers().await);
}
