//! The way down: one signal to all, and a wait for those who have something to finish.
//!
//! ```text
//!  SIGTERM ─▶ begin ─┬─▶ serve: no more calls; those under way are answered
//!                    ├─▶ spawn:        dropped where it waits
//!                    └─▶ spawn_to_end: told, and waited for ──▶ finish: all ended, or the grace is over
//! ```

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long what is under way may take, from the signal on.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A daemon's way down. Clones are the same way.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Begins it. Beginning twice is beginning once.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Waits until it has begun.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Starts a task that may end where it waits, once the way down begins.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let begun = self.begun.clone();
        tokio::spawn(async move { begun.run_until_cancelled(task).await })
    }

    /// Starts a task that is waited for on the way down, as long as the grace lasts.
    pub fn spawn_to_end<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits for the tasks that are to end; false when the grace was over first.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.begin();
        self.tasks.close();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !ended {
            tracing::warn!(tasks = self.tasks.len(), "what was under way did not end in time");
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn some_are_dropped_and_some_are_waited_for() {
        let shutdown = Shutdown::default();
        let dropped = shutdown.spawn(std::future::pending::<()>());
        let written = Arc::new(AtomicBool::new(false));
        let (way, done) = (shutdown.clone(), Arc::clone(&written));
        shutdown.spawn_to_end(async move {
            way.begun().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.store(true, Ordering::Relaxed);
        });
        tokio::task::yield_now().await;
        assert!(!shutdown.has_begun() && !dropped.is_finished());
        assert!(shutdown.finish(GRACE).await);
        assert!(written.load(Ordering::Relaxed) && shutdown.has_begun());
        assert_eq!(dropped.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer_than_the_grace() {
        let shutdown = Shutdown::default();
        shutdown.spawn_to_end(std::future::pending::<()>());
        assert!(!shutdown.finish(GRACE).await);
    }
}
