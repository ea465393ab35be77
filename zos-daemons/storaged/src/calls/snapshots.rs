//! Snapshots: taken, listed, forgotten, set back to.

use zos_api::local::Done;
use zos_api::local::storage::{
    DeleteSnapshot, ListSnapshots, RestoreSnapshot, Snapshots, TakeSnapshot,
};
use zos_daemon::{Call, Router};

use super::Calls;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (take, list) = (calls.clone(), calls.clone());
    let (delete, restore) = (calls.clone(), calls.clone());
    router
        .on(move |_: Call, TakeSnapshot { twin, name, snapshot }| {
            let calls = take.clone();
            take.apart(
                async move { calls.volumes().await?.take_snapshot(twin, name, snapshot).await },
            )
        })
        .on(move |_: Call, ListSnapshots { twin }| {
            let calls = list.clone();
            async move { Ok(Snapshots { snapshots: calls.volumes().await?.snapshots(twin) }) }
        })
        .on(move |_: Call, DeleteSnapshot { twin, name, snapshot }| {
            let calls = delete.clone();
            delete.apart(async move {
                calls.volumes().await?.delete_snapshot(twin, name, snapshot).await?;
                Ok(Done {})
            })
        })
        .on(move |_: Call, RestoreSnapshot { twin, name, snapshot }| {
            let calls = restore.clone();
            restore.apart(async move {
                calls.volumes().await?.restore_snapshot(twin, name, snapshot).await?;
                Ok(Done {})
            })
        })
}
