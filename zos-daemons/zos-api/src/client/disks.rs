//! A farmer's requests about disks and pools.

use super::{Client, ClientError, body};
use crate::node::disks::{Confirmation, DiskChange, DiskList, PoolList};
use zos_types::disk::{Disk, DiskPlan, Pool};

fn target(disk: &str, change: DiskChange) -> String {
    let word = match change {
        DiskChange::Adopt => "adopt",
        DiskChange::Release => "release",
    };
    format!("/v1/disks/{disk}/{word}")
}

impl Client {
    /// The node's disks.
    pub async fn disks(&self) -> Result<DiskList, ClientError> {
        body(&self.signed("GET", "/v1/disks", &[]).await?)
    }

    /// One disk, by the kernel's name or by its stable id.
    pub async fn disk(&self, disk: &str) -> Result<Disk, ClientError> {
        body(&self.signed("GET", &format!("/v1/disks/{disk}"), &[]).await?)
    }

    /// What a change would do to a disk.
    pub async fn plan(&self, disk: &str, change: DiskChange) -> Result<DiskPlan, ClientError> {
        let target = format!("{}?dry_run=true", target(disk, change));
        body(&self.signed("POST", &target, &[]).await?)
    }

    /// Carries out a plan by its hash; the disk as it is then.
    pub async fn confirm(
        &self,
        disk: &str,
        change: DiskChange,
        plan: &str,
    ) -> Result<Disk, ClientError> {
        let word = serde_json::to_vec(&Confirmation { plan: plan.to_owned() });
        let word = word.map_err(|e| ClientError::Protocol(e.to_string()))?;
        body(&self.signed("POST", &target(disk, change), &word).await?)
    }

    /// Begins a scrub of a pool, by its id.
    pub async fn scrub(&self, pool: &str) -> Result<Pool, ClientError> {
        body(&self.signed("POST", &format!("/v1/pools/{pool}/scrub"), &[]).await?)
    }

    /// The node's pools.
    pub async fn pools(&self) -> Result<PoolList, ClientError> {
        body(&self.signed("GET", "/v1/pools", &[]).await?)
    }
}
