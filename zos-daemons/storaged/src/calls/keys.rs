//! Keys of volumes that twins hold.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::time::timeout;
use zeroize::Zeroizing;
use zos_api::handover;
use zos_api::local::Done;
use zos_api::local::identity::Open;
use zos_api::local::storage::{DescribeKey, UnlockVolume};
use zos_daemon::{Call, CallError, Router};

use super::Calls;

/// identityd answers at once, or it is being started again.
const OPENING: Duration = Duration::from_secs(10);

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (describe, unlock) = (calls.clone(), calls.clone());
    router
        .on(move |_: Call, DescribeKey { twin, name }| {
            let calls = describe.clone();
            async move { calls.volumes().await?.describe_key(twin, name).await }
        })
        .on(move |_: Call, UnlockVolume { twin, name, sealed }| {
            let calls = unlock.clone();
            unlock.apart(async move {
                let volumes = calls.volumes().await?;
                let node = calls.lasting_node()?;
                // Before anything else: a key for what isn't there is not even looked at.
                volumes.describe_key(twin, name.clone()).await?;
                let context = handover::context(&node, &twin, &name);
                let opened = timeout(OPENING, calls.bus.call(Open { context, sealed })).await;
                let opened = opened.map_err(|_| CallError::busy("identityd does not answer"))?;
                let text = Zeroizing::new(opened?.data);
                let key = BASE64_STANDARD.decode(&*text).map(Zeroizing::new);
                let key = key.map_err(|error| CallError::failed(&error))?;
                volumes.unlock(twin, name, &key).await?;
                Ok(Done {})
            })
        })
}
