//! Disks and pools.

use zos_api::local::storage::{Disks, ListDisks, ListPools, Pools};
use zos_daemon::{Call, Router};

use super::Calls;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (disks, pools) = (calls.clone(), calls.clone());
    router
        .on(move |_: Call, _: ListDisks| {
            let disks = disks.view.disks.borrow().clone();
            async move { Ok(Disks { disks }) }
        })
        .on(move |_: Call, _: ListPools| {
            let calls = pools.clone();
            async move { Ok(Pools { pools: calls.volumes().await?.pools() }) }
        })
}
