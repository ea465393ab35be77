//! Volumes of the node in memory, and their snapshots: they stand in the deployments' status.

use jiff::Timestamp;
use zos_api::local::provision::{
    DeleteSnapshot, ListSnapshots, RestoreSnapshot, TakeSnapshot, Taken,
};
use zos_api::local::{CallError, Change};
use zos_types::deployment::Volume;
use zos_types::status::DeploymentStatus;
use zos_types::volume::{Sealing, SnapshotStatus, VolumeStatus};
use zos_types::{Name, TwinId, WorkloadName};

use super::{FakeNode, Kept};
use crate::backend::{Answer, Snapshots};

/// A volume as it is once it was made.
pub(super) fn made(volume: &Volume) -> VolumeStatus {
    VolumeStatus {
        size: volume.size,
        class: volume.class,
        integrity: volume.integrity,
        key: volume.key,
        sealing: Sealing::Beside,
        pools: vec!["0123456789abcdef".into()],
        placed: "the only one of its class".into(),
        snapshots: Vec::new(),
        restoring: None,
        restore_error: None,
    }
}

/// A new version keeps the snapshots of the one before.
pub(super) fn keep(before: Option<&DeploymentStatus>, status: &mut DeploymentStatus) {
    for (name, workload) in &mut status.workloads {
        let before = before.and_then(|before| before.workloads.get(name)?.volume.as_ref());
        if let (Some(before), Some(volume)) = (before, &mut workload.volume) {
            volume.snapshots.clone_from(&before.snapshots);
        }
    }
}

fn absent(name: &WorkloadName, snapshot: &Name) -> CallError {
    CallError::not_found(format!("volume {name} has no snapshot `{snapshot}`"))
}

impl FakeNode {
    fn volume<T>(
        &self,
        twin: TwinId,
        name: &WorkloadName,
        then: impl FnOnce(&mut VolumeStatus) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut kept = self.kept()?;
        let found = match kept.get_mut(&(twin, name.deployment.clone())) {
            Some(Kept { status: Some(status), .. }) => status.workloads.get_mut(&name.workload),
            _ => None,
        };
        let volume = found.and_then(|workload| workload.volume.as_mut());
        then(volume.ok_or_else(|| CallError::not_found(format!("there is no volume {name}")))?)
    }
}

impl Snapshots for FakeNode {
    fn take(&self, take: TakeSnapshot) -> Answer<'_, Taken> {
        Box::pin(async move {
            self.volume(take.twin, &take.name, |volume| {
                let there = volume.snapshots.iter().find(|found| found.name == take.snapshot);
                if let Some(snapshot) = there.cloned() {
                    return Ok(Taken { change: Change::Unchanged, snapshot });
                }
                let (size, pool) = (volume.size, volume.pools[0].clone());
                let (name, taken) = (take.snapshot.clone(), Timestamp::UNIX_EPOCH);
                let snapshot = SnapshotStatus { name, size, taken, pool };
                volume.snapshots.push(snapshot.clone());
                Ok(Taken { change: Change::Created, snapshot })
            })
        })
    }

    fn list_of(&self, list: ListSnapshots) -> Answer<'_, Vec<SnapshotStatus>> {
        Box::pin(async move {
            self.volume(list.twin, &list.name, |volume| Ok(volume.snapshots.clone()))
        })
    }

    fn destroy(&self, delete: DeleteSnapshot) -> Answer<'_, ()> {
        Box::pin(async move {
            self.volume(delete.twin, &delete.name, |volume| {
                let before = volume.snapshots.len();
                volume.snapshots.retain(|found| found.name != delete.snapshot);
                let gone = volume.snapshots.len() < before;
                gone.then_some(()).ok_or_else(|| absent(&delete.name, &delete.snapshot))
            })
        })
    }

    fn restore(&self, restore: RestoreSnapshot) -> Answer<'_, SnapshotStatus> {
        Box::pin(async move {
            self.volume(restore.twin, &restore.name, |volume| {
                let found = volume.snapshots.iter().find(|found| found.name == restore.snapshot);
                found.cloned().ok_or_else(|| absent(&restore.name, &restore.snapshot))
            })
        })
    }
}
