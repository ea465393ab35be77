//! Care by the farmer's word.

use zos_api::local::Done;
use zos_api::local::storage::ScrubPool;
use zos_daemon::{Call, Router};

use super::Calls;

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let care = calls.view.care.clone();
    router.on(move |_: Call, ScrubPool { pool }| {
        let care = care.clone();
        async move {
            care.scrub(&pool).await?;
            Ok(Done {})
        }
    })
}
