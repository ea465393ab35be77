//! Disks and pools, over local calls.

use std::time::Duration;

use zos_api::local::CallError;
use zos_api::local::storage::{
    AdoptDisk, ListDisks, ListPools, PlanAdoption, PlanRelease, ReleaseDisk, ScrubPool,
};
use zos_types::disk::{Disk, DiskPlan, Pool};

use super::{LOOK, Node, WRITE};
use crate::backend::{Answer, DiskChange, Disks};

/// Both ends of a disk are read, which may have to spin up.
const PLAN: Duration = Duration::from_secs(30);
/// For wiping what marked a disk, and for the file system on it. A client waits no longer either.
const ADOPT: Duration = Duration::from_secs(55);

impl Disks for Node {
    fn disks(&self) -> Answer<'_, Vec<Disk>> {
        Box::pin(async { Ok(self.ask(LOOK, ListDisks {}).await?.disks) })
    }

    fn pools(&self) -> Answer<'_, Vec<Pool>> {
        Box::pin(async { Ok(self.ask(LOOK, ListPools {}).await?.pools) })
    }

    fn scrub(&self, pool: String) -> Answer<'_, ()> {
        Box::pin(async { self.ask(WRITE, ScrubPool { pool }).await.map(drop) })
    }

    fn plan(&self, disk: String, change: DiskChange) -> Answer<'_, DiskPlan> {
        Box::pin(async move {
            match change {
                DiskChange::Adopt => self.ask(PLAN, PlanAdoption { disk }).await,
                DiskChange::Release => self.ask(PLAN, PlanRelease { disk }).await,
            }
        })
    }

    fn confirm(&self, disk: String, change: DiskChange, plan: String) -> Answer<'_, ()> {
        Box::pin(async move {
            match change {
                DiskChange::Adopt => {
                    let adopted = self.ask(ADOPT, AdoptDisk { disk: disk.clone(), plan }).await;
                    adopted.map(drop).map_err(|error| match error {
                        CallError::Busy { detail } => CallError::busy(format!(
                            "{detail}; it may go on: GET /v1/disks/{disk} tells"
                        )),
                        error => error,
                    })
                }
                DiskChange::Release => self.ask(WRITE, ReleaseDisk { disk, plan }).await.map(drop),
            }
        })
    }
}
