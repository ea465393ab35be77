//! What a twin is told of its deployment. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use zos_api::local::storage::{Snapshot, Volume};
use zos_api::local::vm::VmStatus;
use zos_types::status::{DeploymentStatus, State, WorkloadStatus};
use zos_types::volume::{SnapshotStatus, VolumeState, VolumeStatus};
use zos_types::{Bytes, Workload};

use crate::attempts::{Attempts, Millis};
use crate::book::{Owner, Restore, workload_key};
use crate::plan::{Actual, Desired, Key, Step, missing};

/// What the others told of what is there, the last time they could.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// vmd's VMs; none: it has not told yet.
    pub vms: Option<Vec<VmStatus>>,
    /// storaged's volumes; none: it has not told yet.
    pub volumes: Option<BTreeMap<Key, Volume>>,
    /// storaged's snapshots, by volume, oldest first.
    pub snapshots: BTreeMap<Key, Vec<Snapshot>>,
}

impl Seen {
    /// The same as the plan wants it; none while a part of it is not known.
    pub fn actual(&self) -> Option<Actual> {
        let (vms, volumes) = (self.vms.as_ref()?, self.volumes.as_ref()?);
        Some(Actual {
            vms: vms.iter().map(|v| ((v.twin, v.name.clone()), v.vm.clone())).collect(),
            volumes: volumes.iter().map(|(key, volume)| (key.clone(), volume.size)).collect(),
            locked: self.locked().collect(),
        })
    }

    /// Volumes that wait for their twin's key.
    pub fn locked(&self) -> impl Iterator<Item = Key> {
        let all = self.volumes.iter().flatten();
        let locked = all.filter(|(_, volume)| volume.condition.state == VolumeState::Locked);
        locked.map(|(key, _)| key.clone())
    }

    /// Takes up what storaged told.
    pub fn tell(&mut self, volumes: Vec<Volume>, snapshots: Vec<Snapshot>) {
        let volumes =
            volumes.into_iter().map(|volume| ((volume.twin, volume.name.clone()), volume));
        self.volumes = Some(volumes.collect());
        self.snapshots.clear();
        for snapshot in snapshots {
            let key = (snapshot.twin, snapshot.volume.clone());
            self.snapshots.entry(key).or_default().push(snapshot);
        }
    }

    /// What a step that was done makes of it, until it is asked for again.
    pub fn apply(&mut self, step: &Step, made: Option<Volume>) {
        let key = step.key();
        match step {
            Step::RemoveVm((twin, name)) => {
                if let Some(vms) = &mut self.vms {
                    vms.retain(|vm| (&vm.twin, &vm.name) != (twin, name));
                }
            }
            Step::DeleteVolume(_) | Step::CreateVolume(..) | Step::GrowVolume(..) => {
                if let Some(volumes) = &mut self.volumes {
                    volumes.remove(key);
                    volumes.extend(made.map(|made| (key.clone(), made)));
                }
                if matches!(step, Step::DeleteVolume(_)) {
                    self.snapshots.remove(key);
                }
            }
            Step::RestoreSnapshot(..) | Step::EnsureVm(..) => {}
        }
    }

    /// A volume as storaged has it.
    pub fn volume(&self, key: &Key) -> Option<&Volume> {
        self.volumes.as_ref()?.get(key)
    }

    /// A volume's snapshots, oldest first.
    pub fn snapshots(&self, key: &Key) -> &[Snapshot] {
        self.snapshots.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn vm(&self, key: &Key) -> Option<&VmStatus> {
        self.vms.iter().flatten().find(|vm| (&vm.twin, &vm.name) == (&key.0, &key.1))
    }
}

/// Since when workloads are in the state that they are in, as far as it was looked at.
#[derive(Clone, Debug, Default)]
pub struct History(BTreeMap<Key, (&'static str, Timestamp)>);

impl History {
    fn since(&mut self, key: &Key, state: &State, now: Timestamp) -> Timestamp {
        let entry = self.0.entry(key.clone()).or_insert((state.word(), now));
        if entry.0 != state.word() {
            *entry = (state.word(), now);
        }
        entry.1
    }

    /// Forgets workloads that nobody wants and that are gone.
    pub fn retain(&mut self, known: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| known(key));
    }
}

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The node's clock.
    pub wall: Timestamp,
    /// The clock of the attempts.
    pub millis: Millis,
}

impl Now {
    fn date(self, at: Millis) -> Timestamp {
        let ahead = i64::try_from(at.saturating_sub(self.millis)).unwrap_or(i64::MAX);
        self.wall.saturating_add(SignedDuration::from_millis(ahead)).unwrap_or(self.wall)
    }
}

/// All that a status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// Volumes that are to be set back, and those that could not be.
    pub restores: &'a BTreeMap<Key, Restore>,
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub seen: &'a Seen,
    /// What is being done.
    pub attempts: &'a Attempts,
    /// When.
    pub now: Now,
}

impl View<'_> {
    /// A deployment as it is: each workload that is asked for, and each that is not yet gone.
    pub fn deployment(
        &self,
        history: &mut History,
        owner: &Owner,
        deployment: &zos_types::Deployment,
    ) -> DeploymentStatus {
        let mut workloads = BTreeMap::new();
        for (name, workload) in &deployment.workloads {
            let key = workload_key(owner, name);
            workloads.insert(name.clone(), self.workload(history, &key, workload));
        }
        let vms = self.seen.vms.iter().flatten().map(|vm| (vm.twin, vm.name.clone()));
        for key in vms.chain(self.desired.removals.iter().cloned()) {
            let ours = key.0 == owner.0 && key.1.deployment == owner.1;
            if ours && !workloads.contains_key(&key.1.workload) {
                let state = State::Stopping;
                let since = history.since(&key, &state, self.now.wall);
                workloads.insert(key.1.workload, WorkloadStatus::new(state, since));
            }
        }
        DeploymentStatus { name: owner.1.clone(), deployment: deployment.clone(), workloads }
    }

    fn workload(&self, history: &mut History, key: &Key, workload: &Workload) -> WorkloadStatus {
        let state = match workload {
            Workload::Volume(wanted) | Workload::Share(wanted) => {
                let state = self.volume(key, wanted.size);
                let since = history.since(key, &state, self.now.wall);
                let volume = self.details(key);
                return WorkloadStatus { volume, ..WorkloadStatus::new(state, since) };
            }
            Workload::Vm(vm) => match self.seen.vm(key) {
                Some(seen) if &seen.vm == vm => {
                    return WorkloadStatus {
                        restarts: seen.restarts,
                        address: seen.address,
                        ..WorkloadStatus::new(seen.state.clone(), seen.since)
                    };
                }
                Some(_) => self.step(key).unwrap_or(State::Preparing),
                None => self.vm(key, vm),
            },
        };
        let since = history.since(key, &state, self.now.wall);
        WorkloadStatus::new(state, since)
    }

    /// The state that a workload's own step gives it, if there is one.
    fn step(&self, key: &Key) -> Option<State> {
        if let Some(trouble) = self.attempts.trouble(key) {
            let retry_at = self.now.date(trouble.at);
            return Some(State::Degraded { fault: trouble.detail.clone(), retry_at });
        }
        self.attempts.is_running(key).then_some(State::Preparing)
    }

    fn volume(&self, key: &Key, wanted: Bytes) -> State {
        if self.desired.removals.contains(key) {
            // The one before it under this name goes first.
            return self.step(key).unwrap_or(State::Preparing);
        }
        match (self.seen.volume(key), &self.seen.volumes) {
            (Some(volume), _) => self.there(key, volume, wanted),
            (None, Some(_)) if self.desired.made.contains(key) => {
                self.later("the disk that holds it is missing; it is not made anew".to_owned())
            }
            _ => self.step(key).unwrap_or(State::Pending),
        }
    }

    /// The state of a volume that exists.
    fn there(&self, key: &Key, volume: &Volume, wanted: Bytes) -> State {
        let reason = volume.condition.reason.clone();
        match volume.condition.state {
            VolumeState::Broken => return self.later(reason),
            VolumeState::Locked => return State::Locked { reason },
            VolumeState::Ready | VolumeState::AtRisk | VolumeState::Rebuilding => {}
        }
        if self.desired.restores.contains_key(key) || volume.size < wanted {
            return self.step(key).unwrap_or(State::Preparing);
        }
        match volume.condition.state {
            VolumeState::AtRisk => State::AtRisk { reason },
            VolumeState::Rebuilding => State::Rebuilding { reason },
            _ => State::Ready,
        }
    }

    /// What nothing but time or somebody's hand changes; it is looked at all the time.
    fn later(&self, fault: String) -> State {
        State::Degraded { fault, retry_at: self.now.date(self.now.millis + 10_000) }
    }

    /// More of a volume, once it exists.
    fn details(&self, key: &Key) -> Option<VolumeStatus> {
        let volume = self.seen.volume(key).filter(|_| !self.desired.removals.contains(key))?;
        let restore = self.restores.get(key);
        let (restoring, restore_error) = match restore {
            Some(restore) if restore.error.is_none() => (Some(restore.snapshot.clone()), None),
            Some(restore) => (None, restore.error.clone()),
            None => (None, None),
        };
        Some(VolumeStatus {
            size: volume.size,
            class: volume.class,
            integrity: volume.integrity,
            key: volume.key,
            sealing: volume.sealing,
            pools: volume.pools.clone(),
            placed: volume.placed.clone(),
            snapshots: self.seen.snapshots(key).iter().map(shown).collect(),
            restoring,
            restore_error,
        })
    }

    fn vm(&self, key: &Key, vm: &zos_types::deployment::Vm) -> State {
        if let Some(state) = self.step(key) {
            return state;
        }
        let Some(actual) = self.seen.actual() else { return State::Pending };
        match missing(self.desired, &actual, key, vm) {
            None => State::Pending,
            Some(volume) => match self.volume(&volume, Bytes(0)) {
                State::Degraded { fault, retry_at } => {
                    let fault = format!("volume {}: {fault}", volume.1.workload);
                    State::Degraded { fault, retry_at }
                }
                State::Locked { reason } => {
                    State::Locked { reason: format!("volume {}: {reason}", volume.1.workload) }
                }
                _ => State::Pending,
            },
        }
    }
}

/// A snapshot as its twin sees it.
pub fn shown(snapshot: &Snapshot) -> SnapshotStatus {
    let Snapshot { name, size, taken, pool, .. } = snapshot.clone();
    SnapshotStatus { name, size, taken, pool }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
