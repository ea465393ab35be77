//! Disks and pools.

use zos_api::local::storage::{Disks, ListDisks, ListPools, Pools};
use zos_daemon::{Call, Router};

use super::Calls;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (disks, pools) = (calls.clone(), calls.clone());
    router
        .on(move |_: Call, _: ListDisks| {
            let mut known = disks.view.disks.borrow().clone();
            disks.view.care.told.borrow().dress_disks(&mut known);
            async move { Ok(Disks { disks: known }) }
        })
        .on(move |_: Call, _: ListPools| {
            let calls = pools.clone();
            async move {
                let mut pools = calls.volumes().await?.pools();
                calls.view.care.told.borrow().dress_pools(&mut pools);
                Ok(Pools { pools })
            }
        })
}
