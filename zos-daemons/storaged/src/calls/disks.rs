//! Disks and pools: shown, taken over and given back.

use zos_api::local::Done;
use zos_api::local::storage::{
    AdoptDisk, Disks, ListDisks, ListPools, PlanAdoption, PlanRelease, Pools, ReleaseDisk,
};
use zos_daemon::{Call, Router};

use super::Calls;
use crate::life::Wish;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (disks, pools) = (calls.clone(), calls.clone());
    let router = router
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
        });
    orders(router, calls)
}

fn orders(router: Router, calls: &Calls) -> Router {
    let (plan, adopt) = (calls.clone(), calls.clone());
    let (leave, release) = (calls.clone(), calls.clone());
    router
        .on(move |_: Call, PlanAdoption { disk }| {
            let asks = plan.view.asks.clone();
            async move { asks.ask(disk, Wish::Adopt, None).await }
        })
        .on(move |_: Call, AdoptDisk { disk, plan }| {
            let asks = adopt.view.asks.clone();
            adopt.apart(async move {
                asks.ask(disk, Wish::Adopt, Some(plan)).await?;
                Ok(Done {})
            })
        })
        .on(move |_: Call, PlanRelease { disk }| {
            let asks = leave.view.asks.clone();
            async move { asks.ask(disk, Wish::Release, None).await }
        })
        .on(move |_: Call, ReleaseDisk { disk, plan }| {
            let asks = release.view.asks.clone();
            release.apart(async move {
                asks.ask(disk, Wish::Release, Some(plan)).await?;
                Ok(Done {})
            })
        })
}
