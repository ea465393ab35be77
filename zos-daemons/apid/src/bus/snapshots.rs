//! What a twin asks for of its volumes' snapshots, over local calls.

use zos_api::local::provision::{
    DeleteSnapshot, ListSnapshots, RestoreSnapshot, TakeSnapshot, Taken,
};
use zos_types::volume::SnapshotStatus;

use super::{LOOK, Node, WRITE};
use crate::backend::{Answer, Snapshots};

impl Snapshots for Node {
    fn take(&self, take: TakeSnapshot) -> Answer<'_, Taken> {
        Box::pin(self.ask(WRITE, take))
    }

    fn list_of(&self, list: ListSnapshots) -> Answer<'_, Vec<SnapshotStatus>> {
        Box::pin(async { Ok(self.ask(LOOK, list).await?.snapshots) })
    }

    fn destroy(&self, delete: DeleteSnapshot) -> Answer<'_, ()> {
        Box::pin(async { self.ask(WRITE, delete).await.map(drop) })
    }

    fn restore(&self, restore: RestoreSnapshot) -> Answer<'_, SnapshotStatus> {
        Box::pin(self.ask(WRITE, restore))
    }
}
