//! A twin's requests about its volumes' snapshots.

use zos_types::volume::SnapshotStatus;
use zos_types::{Name, WorkloadName};

use super::{Client, ClientError, body};
use crate::node::SnapshotList;

impl Client {
    /// A volume's snapshots.
    pub async fn snapshots(&self, volume: &WorkloadName) -> Result<SnapshotList, ClientError> {
        body(&self.signed("GET", &target(volume), &[]).await?)
    }

    /// Keeps a volume as it is now; a snapshot of this name that is there is left as it is.
    pub async fn take_snapshot(
        &self,
        volume: &WorkloadName,
        name: &Name,
    ) -> Result<SnapshotStatus, ClientError> {
        body(&self.signed("PUT", &format!("{}/{name}", target(volume)), &[]).await?)
    }

    /// Destroys a snapshot.
    pub async fn delete_snapshot(
        &self,
        volume: &WorkloadName,
        name: &Name,
    ) -> Result<(), ClientError> {
        self.signed("DELETE", &format!("{}/{name}", target(volume)), &[]).await.map(drop)
    }

    /// Sets a volume back to a snapshot. Answered when it is noted: the volume's status shows
    /// `restoring` until it is done.
    pub async fn restore_snapshot(
        &self,
        volume: &WorkloadName,
        name: &Name,
    ) -> Result<SnapshotStatus, ClientError> {
        body(&self.signed("POST", &format!("{}/{name}/restore", target(volume)), &[]).await?)
    }
}

fn target(WorkloadName { deployment, workload }: &WorkloadName) -> String {
    format!("/v1/deployments/{deployment}/workloads/{workload}/snapshots")
}
