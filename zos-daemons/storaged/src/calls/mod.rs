//! storaged's answers, by what they are about.
//!
//! ```text
//!  router ─┬─ boot      Settle, SetIdentity, ListCrashes
//!          ├─ disks     ListDisks, ListPools
//!          ├─ care      ScrubPool
//!          ├─ state     its copies: watched, lost, joined
//!          ├─ volumes   made, grown, opened, closed, destroyed
//!          └─ snapshots taken, listed, forgotten, set back to
//! ```

mod boot;
mod care;
mod disks;
mod keys;
mod snapshots;
mod state;
mod volumes;

use std::time::Duration;

use zos_api::local::storage::INTERFACE;
use zos_daemon::{Bus, CallError, Router, Shutdown};
use zos_types::NodeId;

use crate::life::View;
use crate::past::Past;
use crate::volume::Volumes;

/// Calls about volumes wait this long for the pools.
const STEADY: Duration = Duration::from_secs(60);

/// What the answers are made with.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    /// What the keeper knows.
    pub(crate) view: View,
    /// The node's runs before this one.
    pub(crate) past: Past,
    /// The way to the other daemons.
    pub(crate) bus: Bus,
    /// The way down.
    pub(crate) shutdown: Shutdown,
}

/// The daemon's answers.
pub(crate) fn router(calls: &Calls) -> Router {
    let router = boot::answer(Router::new(&INTERFACE), calls);
    let router = disks::answer(router, calls);
    let router = care::answer(router, calls);
    let router = volumes::answer(router, calls);
    let router = state::answer(router, calls);
    snapshots::answer(router, calls)
}

impl Calls {
    /// Pools and volumes, once those that are here are known: a volume that isn't found then isn't there.
    async fn volumes(&self) -> Result<Volumes, CallError> {
        let mut steady = self.view.steady.clone();
        let waited = tokio::time::timeout(STEADY, steady.wait_for(|steady| *steady)).await;
        match waited {
            Ok(Ok(_)) => Ok(self.view.volumes.clone()),
            _ => Err(CallError::busy("the pools are still being opened")),
        }
    }

    /// A volume's key is sealed by the node: no lasting node, no volume.
    fn lasting_node(&self) -> Result<NodeId, CallError> {
        match *self.view.node.borrow() {
            Some((node, false)) => Ok(node),
            Some((_, true)) => Err(CallError::Failed {
                detail: "the node's identity is lost with the next boot, and volumes would be too"
                    .to_owned(),
            }),
            None => Err(CallError::busy("the node's identity is not known yet")),
        }
    }

    /// In a task of its own: a caller that leaves doesn't stop half-way what it began, nor does
    /// SIGTERM within the grace.
    fn apart<T, W>(&self, work: W) -> impl Future<Output = Result<T, CallError>> + use<T, W>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let task = self.shutdown.spawn_to_end(work);
        async move { task.await.map_err(|error| CallError::failed(&error))? }
    }
}

fn going_down() -> CallError {
    CallError::busy("storaged is going down")
}
