//! From what is wanted and what is there to what is to be done. Pure; planned anew each round, so
//! a step that was done, lost or done twice is no matter.
//!
//! ```text
//!  a round: RemoveVm ▸ DeleteVolume ▸ RestoreSnapshot ▸ CreateVolume ▸ GrowVolume ▸ EnsureVm
//!             │           │              │                 │              │            └ when all its volumes are
//!             │           │              │                 │              │              there, as asked for, none locked
//!             │           │              │                 │              └ one that is smaller than it is wanted
//!             │           │              │                 └ when it was never made; one that was and is missing is
//!             │           │              │                   shown, never made anew over its data
//!             │           │              └ when no VM has the volume
//!             │           └ only what a twin took away, when no VM has it and nothing is to be made from it
//!             └ VMs that nobody wants, or not with the volume that they have, or not with what is on it
//! ```

use std::collections::{BTreeMap, BTreeSet};

use zos_types::deployment::{Content, Vm, Volume};
use zos_types::{Bytes, Name, TwinId, Workload, WorkloadName};

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
    /// Volumes that are to be set back, each to this snapshot.
    pub restores: BTreeMap<Key, Name>,
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
    /// Volumes that storaged has, with their size.
    pub volumes: BTreeMap<Key, Bytes>,
    /// Those of them that wait for their twin's key.
    pub locked: BTreeSet<Key>,
}

impl Actual {
    /// Whether storaged has a volume.
    pub fn has(&self, volume: &Key) -> bool {
        self.volumes.contains_key(volume)
    }
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
    /// Make a volume as large.
    GrowVolume(Key, Bytes),
    /// Set a volume back to a snapshot.
    RestoreSnapshot(Key, Name),
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
            | Self::GrowVolume(key, _)
            | Self::RestoreSnapshot(key, _)
            | Self::EnsureVm(key, _) => key,
        }
    }
}

/// What is to be done now, in order.
pub fn plan(desired: &Desired, actual: &Actual) -> Vec<Step> {
    let kept = |key: &Key| !desired.removals.contains(key);
    // Also one whose volume was taken away and is wanted again, new: it runs on the old one. And one
    // whose volume is to be set back.
    let unwanted = actual.vms.keys().filter(|key| {
        let gives_up = |volume| !kept(&volume) || restored(desired, actual, &volume).is_some();
        let wanted = desired.vms.get(key);
        wanted.is_none_or(|vm| volumes(key, vm).any(gives_up))
    });
    let removes = unwanted.cloned().map(Step::RemoveVm);
    let origins: BTreeSet<Key> =
        unmade(desired, actual).filter_map(|(key, volume)| origin(key, volume)).collect();
    let deletes = desired.removals.iter();
    let deletes = deletes.filter(|key| !is_used(actual, key) && !origins.contains(key));
    let deletes = deletes.cloned().map(Step::DeleteVolume);
    let restores = desired.restores.keys().filter(|key| !is_used(actual, key));
    let restores = restores.filter_map(|key| {
        restored(desired, actual, key).map(|name| Step::RestoreSnapshot(key.clone(), name.clone()))
    });
    let creates = unmade(desired, actual).filter(|(key, volume)| {
        let origin = origin(key, volume);
        kept(key) && origin.is_none_or(|origin| restored(desired, actual, &origin).is_none())
    });
    let creates = creates
        .map(|(key, volume)| Step::CreateVolume(key.clone(), volume.clone(), desired.holds(key)));
    let grows = desired.volumes.iter().filter(|(key, volume)| {
        let smaller = actual.volumes.get(key).is_some_and(|size| *size < volume.size);
        smaller && kept(key) && restored(desired, actual, key).is_none()
    });
    let grows = grows.map(|(key, volume)| Step::GrowVolume(key.clone(), volume.size));
    let ensures = desired.vms.iter().filter(|(key, vm)| {
        actual.vms.get(key) != Some(vm) && missing(desired, actual, key, vm).is_none()
    });
    let ensures = ensures.map(|(key, vm)| Step::EnsureVm(key.clone(), vm.clone()));
    removes.chain(deletes).chain(restores).chain(creates).chain(grows).chain(ensures).collect()
}

/// Volumes that are still to be made.
pub fn unmade<'a>(
    desired: &'a Desired,
    actual: &'a Actual,
) -> impl Iterator<Item = (&'a Key, &'a Volume)> {
    desired.volumes.iter().filter(|(key, _)| {
        let gone_first = desired.removals.contains(key);
        gone_first || (!actual.has(key) && !desired.made.contains(key))
    })
}

/// What a volume is to be made from, if from anything.
pub fn origin(key: &Key, volume: &Volume) -> Option<Key> {
    let from = volume.from.as_ref()?.within(&key.1.deployment);
    Some((key.0, from.volume))
}

/// The snapshot that a volume is to be set back to, if that can be done now.
fn restored<'a>(desired: &'a Desired, actual: &Actual, volume: &Key) -> Option<&'a Name> {
    let stays = actual.has(volume) && !desired.removals.contains(volume);
    desired.restores.get(volume).filter(|_| stays)
}

/// The first volume of a VM, shares included, that is not there yet, waits for its key, or is not as it is to
/// be.
pub fn missing(desired: &Desired, actual: &Actual, key: &Key, vm: &Vm) -> Option<Key> {
    volumes(key, vm).find(|volume| {
        let there = actual.has(volume) && !desired.removals.contains(volume);
        !there || actual.locked.contains(volume) || desired.restores.contains_key(volume)
    })
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
