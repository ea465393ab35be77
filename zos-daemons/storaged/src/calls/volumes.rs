//! Volumes: made, grown, opened, closed, destroyed.

use zos_api::local::Done;
use zos_api::local::storage::{
    CloseVolume, CreateVolume, DeleteVolume, GrowVolume, ListVolumes, OpenShare, OpenVolume,
    Volumes,
};
use zos_daemon::{Call, Router};
use zos_types::deployment::Content;

use super::Calls;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let router = super::keys::answer(router, calls);
    let (create, grow, list) = (calls.clone(), calls.clone(), calls.clone());
    let (open, close, delete) = (calls.clone(), calls.clone(), calls.clone());
    let share = calls.clone();
    router
        .on(move |_: Call, wanted: CreateVolume| {
            let calls = create.clone();
            create.apart(async move {
                let volumes = calls.volumes().await?;
                calls.lasting_node()?;
                volumes.create(wanted, &calls.bus).await
            })
        })
        .on(move |_: Call, GrowVolume { twin, name, size }| {
            let calls = grow.clone();
            grow.apart(async move { calls.volumes().await?.grow(twin, name, size).await })
        })
        .on(move |_: Call, _: ListVolumes| {
            let calls = list.clone();
            async move { Ok(Volumes { volumes: calls.volumes().await?.list() }) }
        })
        .on_fds(move |_: Call, OpenVolume { twin, name }| {
            let calls = open.clone();
            open.apart(async move {
                let volumes = calls.volumes().await?;
                let (volume, fd) = volumes.open(twin, name, Content::Disk, &calls.bus).await?;
                Ok((volume, vec![fd]))
            })
        })
        .on_fds(move |_: Call, OpenShare { twin, name }| {
            let calls = share.clone();
            share.apart(async move {
                let volumes = calls.volumes().await?;
                let (volume, root) = volumes.open_share(twin, name, &calls.bus).await?;
                Ok((volume, vec![root]))
            })
        })
        .on(move |_: Call, CloseVolume { twin, name }| {
            let calls = close.clone();
            close.apart(async move {
                calls.volumes().await?.close(twin, name).await?;
                Ok(Done {})
            })
        })
        .on(move |_: Call, DeleteVolume { twin, name }| {
            let calls = delete.clone();
            delete.apart(async move {
                calls.volumes().await?.delete(twin, name).await?;
                Ok(Done {})
            })
        })
}
