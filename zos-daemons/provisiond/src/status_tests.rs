use zos_types::volume::VolumeCondition;

use super::*;
use crate::plan::Step;
use crate::plan::tests::twin;

const BODY: &str = r#"{"version": 1, "workloads": {
    "d": {"type": "volume", "size": "1GiB"},
    "a": {"type": "vm", "cpu": 1, "memory": "64MiB", "image": "builtin:hello", "disks": [{"volume": "d"}]}}}"#;

struct World {
    owner: Owner,
    deployment: zos_types::Deployment,
    desired: Desired,
    seen: Seen,
    attempts: Attempts,
}

fn world() -> World {
    let owner = (twin(), "web".parse().unwrap());
    let deployment = zos_types::Deployment::from_json(BODY.as_bytes()).unwrap();
    let mut desired = Desired::default();
    for (name, workload) in &deployment.workloads {
        desired.want(workload_key(&owner, name), workload);
    }
    let volumes = Some(BTreeMap::new());
    let seen = Seen { vms: Some(vec![]), volumes, snapshots: BTreeMap::new() };
    World { owner, deployment, desired, seen, attempts: Attempts::default() }
}

impl World {
    fn key(&self, name: &str) -> Key {
        workload_key(&self.owner, &name.parse().unwrap())
    }

    fn make_volume(&mut self) {
        let (twin, name) = self.key("d");
        let (size, class) = (zos_types::Bytes(1 << 30), Default::default());
        let volume = Volume::new(twin, name, size, class, "p");
        self.seen.tell(vec![volume], vec![]);
    }

    fn run_vm(&mut self, state: State) {
        let key = self.key("a");
        let status = VmStatus {
            vm: self.desired.vms[&key].clone(),
            twin: key.0,
            name: key.1,
            state,
            since: Timestamp::UNIX_EPOCH,
            restarts: 2,
            address: None,
            trouble: None,
        };
        self.seen.vms = Some(vec![status]);
    }

    fn fail(&mut self, name: &str, detail: &str) {
        let key = self.key(name);
        self.attempts.begin(0, vec![Step::RemoveVm(key.clone())]);
        self.attempts.end(0, &key, Err(detail.into()));
    }

    /// The words of the states, and what is wrong, by name.
    fn words(&self) -> String {
        let now = Now { wall: Timestamp::UNIX_EPOCH, millis: 0 };
        let (restores, attempts) = (&BTreeMap::new(), &self.attempts);
        let view = View { restores, desired: &self.desired, seen: &self.seen, attempts, now };
        let status = view.deployment(&mut History::default(), &self.owner, &self.deployment);
        let word = |(name, status): (&zos_types::Name, &WorkloadStatus)| match &status.state {
            State::Degraded { fault, .. } => format!("{name}=degraded({fault})"),
            State::Locked { reason } => format!("{name}=locked({reason})"),
            state => format!("{name}={}", state.word()),
        };
        status.workloads.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn from_nothing_to_running() {
    let mut world = world();
    assert_eq!(world.words(), "a=pending d=pending");
    world.attempts.begin(0, vec![Step::RemoveVm(world.key("d"))]);
    assert_eq!(world.words(), "a=pending d=preparing");
    world.attempts.end(0, &world.key("d"), Ok(()));
    world.make_volume();
    assert_eq!(world.words(), "a=pending d=ready");
    world.run_vm(State::Running);
    assert_eq!(world.words(), "a=running d=ready");
}

#[test]
fn how_a_volume_does_is_its_state_and_what_is_done_to_it_comes_first() {
    let check = |state, wanted_gib: u64, restored: bool, words: &str| {
        let mut world = world();
        world.make_volume();
        let (key, mut volumes) = (world.key("d"), world.seen.volumes.take().unwrap());
        volumes.get_mut(&key).unwrap().condition =
            VolumeCondition { state, reason: "vdb fails".into() };
        world.seen.volumes = Some(volumes);
        let Some(zos_types::Workload::Volume(volume)) =
            world.deployment.workloads.get_mut(&key.1.workload)
        else {
            panic!()
        };
        volume.size = Bytes(wanted_gib << 30);
        if restored {
            world.desired.restores.insert(key, "monday".parse().unwrap());
        }
        let found = world.words();
        assert!(found.ends_with(&format!(" {words}")), "{found}");
    };
    check(VolumeState::Ready, 1, false, "d=ready");
    check(VolumeState::Ready, 2, false, "d=preparing");
    check(VolumeState::Ready, 1, true, "d=preparing");
    check(VolumeState::AtRisk, 1, false, "d=at-risk");
    check(VolumeState::AtRisk, 2, false, "d=preparing");
    check(VolumeState::Rebuilding, 1, false, "d=rebuilding");
    check(VolumeState::Locked, 1, false, "d=locked(vdb fails)");
    check(VolumeState::Broken, 1, false, "d=degraded(vdb fails)");
    check(VolumeState::Broken, 2, true, "d=degraded(vdb fails)");
}

#[test]
fn a_volume_that_cant_grow_tells_why() {
    let mut world = world();
    world.make_volume();
    let Some(zos_types::Workload::Volume(volume)) =
        world.deployment.workloads.get_mut(&"d".parse().unwrap())
    else {
        panic!()
    };
    volume.size = Bytes(2 << 30);
    world.fail("d", "its copy on q is not whole");
    assert_eq!(world.words(), "a=pending d=degraded(its copy on q is not whole)");
}

#[test]
fn what_is_locked_is_told_and_so_is_who_waits_for_it() {
    let mut world = world();
    world.make_volume();
    let key = world.key("d");
    let volume = world.seen.volumes.as_mut().unwrap().get_mut(&key).unwrap();
    volume.condition = zos_types::volume::VolumeCondition {
        state: VolumeState::Locked,
        reason: "zos unlock".into(),
    };
    assert_eq!(world.words(), "a=locked(volume d: zos unlock) d=locked(zos unlock)");
    // One that runs has it open, whatever was told a moment ago.
    world.run_vm(State::Running);
    assert_eq!(world.words(), "a=running d=locked(zos unlock)");
}

#[test]
fn what_goes_wrong_is_told_where_it_is_and_where_it_matters() {
    let mut world = world();
    world.fail("d", "no room");
    assert_eq!(world.words(), "a=degraded(volume d: no room) d=degraded(no room)");
    world.make_volume();
    world.fail("a", "vmd: no");
    assert!(world.words().starts_with("a=degraded(vmd: no)"));
}

#[test]
fn a_missing_disk_is_told_and_before_storaged_tells_nothing_is_missing() {
    let mut world = world();
    world.desired.made.insert(world.key("d"));
    assert!(world.words().contains("d=degraded(the disk that holds it is missing"));
    world.seen.volumes = None;
    assert_eq!(world.words(), "a=pending d=pending");
}

#[test]
fn what_is_no_longer_asked_for_stays_until_it_is_gone() {
    let mut world = world();
    world.make_volume();
    world.run_vm(State::Running);
    world.deployment.workloads.clear();
    world.desired = Desired { removals: [world.key("d")].into(), ..Desired::default() };
    assert_eq!(world.words(), "a=stopping d=stopping");
}
