//! What a boot asks: whether the disks have settled, who the node is, what its last run left.

use zos_api::local::Done;
use zos_api::local::storage::{ListCrashes, SetIdentity, Settle};
use zos_daemon::{Call, Router};

use super::{Calls, going_down};
use crate::keeper::Event;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (settle, identity, crashes) = (calls.clone(), calls.clone(), calls.clone());
    router
        .on(move |_: Call, _: Settle| {
            let mut settled = settle.view.settled.clone();
            async move {
                let known = settled.wait_for(Option::is_some).await.map_err(|_| going_down())?;
                Ok(known.clone().expect("waited for it"))
            }
        })
        .on(move |_: Call, SetIdentity { node, ephemeral }| {
            let view = identity.view.clone();
            async move {
                let event = Event::Identity(node, ephemeral);
                view.news.send(event).await.map_err(|_| going_down())?;
                let mut known = view.node.clone();
                let told = known.wait_for(|known| *known == Some((node, ephemeral))).await;
                told.map_err(|_| going_down())?;
                Ok(Done {})
            }
        })
        .on(move |_: Call, _: ListCrashes| {
            let (past, bus) = (crashes.past.clone(), crashes.bus.clone());
            async move { past.crashes(&bus).await }
        })
}
