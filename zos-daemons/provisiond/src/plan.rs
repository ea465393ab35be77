//! From what is wanted and what is there to what is to be done. Pure; planned anew each round, so
//! a step that was done, lost or done twice is no matter.
//!
//! ```text
//!  a round: RemoveVm ▸ DeleteVolume ▸ CreateVolume ▸ EnsureVm
//!             │           │              │              └ when all its volumes are there
//!             │           │              └ when it was never made; one that was and is missing is
//!             │           │                shown, never made anew over its data
//!             │           └ only what a twin took away, and when no VM has it
//!             └ VMs that nobody wants, or not with the volume that they have
//! ```

use std::collections::{BTreeMap, BTreeSet};

use zos_types::deployment::{Content, Vm, Volume};
use zos_types::{TwinId, Workload, WorkloadName};

/// Which workload.
pub type Key = (TwinId, WorkloadName);

/// What twins want.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Desired {
    /// VMs.
    pub vms: BTreeMap<Key, Vm>,
    /// Volumes, those of shares too.
    pub volumes: BTreeMap<Key, Volume>,
    /// Which of the volumes hold shares.
    pub shares: BTreeSet<Key>,
    /// Volumes that were made once: their data is theirs for good.
    pub made: BTreeSet<Key>,
    /// Volumes that twins took away.
    pub removals: BTreeSet<Key>,
}

impl Desired {
    /// Takes up a workload that is wanted.
    pub fn want(&mut self, key: Key, workload: &Workload) {
        match workload {
            Workload::Vm(vm) => drop(self.vms.insert(key, vm.clone())),
            Workload::Volume(volume) => drop(self.volumes.insert(key, volume.clone())),
            Workload::Share(volume) => {
                self.shares.insert(key.clone());
                self.volumes.insert(key, volume.clone());
            }
        }
    }

    /// What a volume holds.
    pub fn holds(&self, key: &Key) -> Content {
        if self.shares.contains(key) { Content::Share } else { Content::Disk }
    }
}

/// What is there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Actual {
    /// VMs as vmd has them.
    pub vms: BTreeMap<Key, Vm>,
    /// Volumes that storaged has.
    pub volumes: BTreeSet<Key>,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Stop a VM and forget it.
    RemoveVm(Key),
    /// Destroy a volume.
    DeleteVolume(Key),
    /// Make a volume that holds this.
    CreateVolume(Key, Volume, Content),
    /// Make a VM run as described.
    EnsureVm(Key, Vm),
}

impl Step {
    /// Whom it concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::RemoveVm(key)
            | Self::DeleteVolume(key)
            | Self::CreateVolume(key, _, _)
            | Self::EnsureVm(key, _) => key,
        }
    }
}

/// What is to be done now, in order.
pub fn plan(desired: &Desired, actual: &Actual) -> Vec<Step> {
    // Also one whose volume was taken away and is wanted again, new: it runs on the old one.
    let unwanted = actual.vms.keys().filter(|key| {
        let wanted = desired.vms.get(key);
        wanted.is_none_or(|vm| volumes(key, vm).any(|volume| desired.removals.contains(&volume)))
    });
    let removes = unwanted.cloned().map(Step::RemoveVm);
    let deletes = desired.removals.iter().filter(|key| !is_used(actual, key));
    let deletes = deletes.cloned().map(Step::DeleteVolume);
    let creates = desired.volumes.iter().filter(|(key, _)| {
        let there = actual.volumes.contains(key) || desired.made.contains(key);
        !there && !desired.removals.contains(key)
    });
    let creates = creates
        .map(|(key, volume)| Step::CreateVolume(key.clone(), volume.clone(), desired.holds(key)));
    let ensures = desired.vms.iter().filter(|(key, vm)| {
        actual.vms.get(key) != Some(vm) && missing(desired, actual, key, vm).is_none()
    });
    let ensures = ensures.map(|(key, vm)| Step::EnsureVm(key.clone(), vm.clone()));
    removes.chain(deletes).chain(creates).chain(ensures).collect()
}

/// The first volume of a VM, shares included, that is not there yet.
pub fn missing(desired: &Desired, actual: &Actual, key: &Key, vm: &Vm) -> Option<Key> {
    volumes(key, vm)
        .find(|volume| !actual.volumes.contains(volume) || desired.removals.contains(volume))
}

fn volumes<'a>(key: &'a Key, vm: &'a Vm) -> impl Iterator<Item = Key> + 'a {
    let disks = vm.disks.iter().map(|disk| &disk.volume);
    let shares = vm.shares.iter().map(|mount| &mount.share);
    disks.chain(shares).map(|volume| {
        let deployment = key.1.deployment.clone();
        (key.0, WorkloadName { deployment, workload: volume.clone() })
    })
}

fn is_used(actual: &Actual, volume: &Key) -> bool {
    actual.vms.iter().any(|(key, vm)| volumes(key, vm).any(|used| &used == volume))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
