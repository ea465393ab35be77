//! What a twin is told of its deployment. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use zos_api::local::storage::Volume;
use zos_api::local::vm::VmStatus;
use zos_types::Workload;
use zos_types::status::{DeploymentStatus, State, WorkloadStatus};

use crate::attempts::{Attempts, Millis};
use crate::book::{Owner, workload_key};
use crate::plan::{Actual, Desired, Key, Step, missing};

/// What the others told of what is there, the last time they could.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// vmd's VMs; none: it has not told yet.
    pub vms: Option<Vec<VmStatus>>,
    /// storaged's volumes; none: it has not told yet.
    pub volumes: Option<Vec<Volume>>,
}

impl Seen {
    /// The same as the plan wants it; none while a part of it is not known.
    pub fn actual(&self) -> Option<Actual> {
        let (vms, volumes) = (self.vms.as_ref()?, self.volumes.as_ref()?);
        Some(Actual {
            vms: vms.iter().map(|v| ((v.twin, v.name.clone()), v.vm.clone())).collect(),
            volumes: volumes.iter().map(|v| (v.twin, v.name.clone())).collect(),
        })
    }

    /// What a step that was done makes of it, until it is asked for again.
    pub fn apply(&mut self, step: &Step, made: Option<Volume>) {
        let (twin, name) = step.key();
        match step {
            Step::RemoveVm(_) => {
                if let Some(vms) = &mut self.vms {
                    vms.retain(|vm| (&vm.twin, &vm.name) != (twin, name));
                }
            }
            Step::DeleteVolume(_) | Step::CreateVolume(..) => {
                if let Some(volumes) = &mut self.volumes {
                    volumes.retain(|volume| (&volume.twin, &volume.name) != (twin, name));
                    volumes.extend(made);
                }
            }
            Step::EnsureVm(..) => {}
        }
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
            Workload::Volume(_) | Workload::Share(_) => self.volume(key),
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

    fn volume(&self, key: &Key) -> State {
        let there = |v: &Volume| (&v.twin, &v.name) == (&key.0, &key.1);
        if self.desired.removals.contains(key) {
            // The one before it under this name goes first.
            return self.step(key).unwrap_or(State::Preparing);
        }
        match &self.seen.volumes {
            Some(volumes) if volumes.iter().any(there) => State::Ready,
            Some(_) if self.desired.made.contains(key) => {
                let fault = "the disk that holds it is missing; it is not made anew".to_owned();
                State::Degraded { fault, retry_at: self.now.date(self.now.millis + 10_000) }
            }
            _ => self.step(key).unwrap_or(State::Pending),
        }
    }

    fn vm(&self, key: &Key, vm: &zos_types::deployment::Vm) -> State {
        if let Some(state) = self.step(key) {
            return state;
        }
        let Some(actual) = self.seen.actual() else { return State::Pending };
        match missing(self.desired, &actual, key, vm) {
            None => State::Pending,
            Some(volume) => match self.volume(&volume) {
                State::Degraded { fault, retry_at } => {
                    let fault = format!("volume {}: {fault}", volume.1.workload);
                    State::Degraded { fault, retry_at }
                }
                _ => State::Pending,
            },
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
