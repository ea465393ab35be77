//! The copies of the node's state: where they lie, one that is lost, one that has joined.

use std::time::Duration;

use tokio::sync::watch;
use zos_api::local::storage::{JoinState, LoseState, StateCopies, StateCopy, WatchState};
use zos_api::local::{Done, User};
use zos_daemon::{Call, CallError, Router, Sink};

use super::{Calls, going_down};
use crate::keeper::Event;

/// A loss is written down within this time, or asked for again.
const WRITTEN: Duration = Duration::from_secs(10);

pub(super) fn answer(router: Router, calls: &Calls) -> Router {
    let (watch, lose, join) = (calls.clone(), calls.clone(), calls.clone());
    router
        .on_stream(move |_: Call, _: WatchState, out: Sink<StateCopies>| {
            let mut copies = watch.view.copies.clone();
            async move {
                loop {
                    let told = told(&mut copies).await?;
                    out.send(told).await?;
                    tokio::select! {
                        changed = copies.changed() => changed.map_err(|_| going_down())?,
                        () = out.closed() => return Err(CallError::busy("the caller has gone")),
                    }
                }
            }
        })
        .on(move |_: Call, LoseState { pool, coming, reason }| {
            let calls = lose.clone();
            async move {
                calls.lose(pool, coming, reason).await?;
                Ok(Done {})
            }
        })
        .on(move |call: Call, JoinState { pool, coming }| {
            let calls = join.clone();
            async move {
                let who = call.user.unwrap_or(User::Storage);
                calls.joined(pool, coming, who).await?;
                Ok(Done {})
            }
        })
}

impl Calls {
    async fn joined(&self, pool: String, coming: String, who: User) -> Result<(), CallError> {
        let event = Event::StateJoined(pool, coming, who);
        self.view.news.send(event).await.map_err(|_| going_down())
    }

    /// Answers once what is told of the copies is without this one; its mark was written before.
    async fn lose(&self, pool: String, coming: String, reason: String) -> Result<(), CallError> {
        let mut copies = self.view.copies.clone();
        let is_it = |copy: &&StateCopy| copy.pool == pool && copy.coming == coming;
        let now = told(&mut copies).await?;
        let Some(lost) = now.copies.iter().find(is_it) else { return Ok(()) };
        let others = now.copies.iter().filter(|copy| copy.current && !is_it(copy)).count();
        if lost.current && others == 0 {
            let detail = format!("pool {pool} has the last copy of the state");
            return Err(CallError::Failed { detail });
        }
        let event = Event::StateLost(pool.clone(), coming.clone(), reason);
        self.view.news.send(event).await.map_err(|_| going_down())?;
        let gone = |told: &Option<StateCopies>| {
            told.as_ref().is_some_and(|told| !told.copies.iter().any(|copy| is_it(&copy)))
        };
        let waited = tokio::time::timeout(WRITTEN, copies.wait_for(gone)).await;
        match waited.map(|waited| waited.is_ok()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(going_down()),
            Err(_) => Err(CallError::busy(format!("the loss of pool {pool} is not written yet"))),
        }
    }
}

/// Where the copies lie, once that is known.
async fn told(copies: &mut watch::Receiver<Option<StateCopies>>) -> Result<StateCopies, CallError> {
    let known = copies.wait_for(Option::is_some).await.map_err(|_| going_down())?;
    Ok(known.clone().unwrap_or_default())
}
