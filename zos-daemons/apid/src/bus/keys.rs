//! Keys of volumes that twins hold: identityd has what they seal to, storaged the volumes.

use zos_api::local::identity::{PublicSealingKey, SealingKey};
use zos_api::local::storage::{DescribeKey, UnlockVolume};
use zos_types::volume::VolumeKey;

use super::{LOOK, Node, WRITE};
use crate::backend::{Answer, Keys};

impl Keys for Node {
    fn sealing_key(&self) -> Answer<'_, PublicSealingKey> {
        Box::pin(self.ask(LOOK, SealingKey {}))
    }

    fn describe(&self, describe: DescribeKey) -> Answer<'_, VolumeKey> {
        Box::pin(self.ask(LOOK, describe))
    }

    fn unlock(&self, unlock: UnlockVolume) -> Answer<'_, ()> {
        Box::pin(async { self.ask(WRITE, unlock).await.map(drop) })
    }
}
