//! A loop that brings what is there to what is wanted.
//!
//! ```text
//!            ┌──────────── every ◀── Settled ──┐
//!   wake ──▶ wait ──────────────────────────▶ step
//!            ▲ └────────── soon  ◀── Pending ──┤
//!            └──────────── backoff ◀── error ──┘  ──▶ a fault after the third in a row
//! ```
//! It is level-triggered: a wake says only that something changed, many wakes are one, and a step
//! looks at everything anew. A step under way is never cut short; the loop ends between two.

use std::fmt::Display;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use zos_types::Fault;

use crate::metrics::Loops;
use crate::{Backoff, Daemon, FaultBoard, Shutdown};

/// So many failures in a row are shown to the farmer; fewer heal unseen.
const SHOWN: u32 = 3;

/// What a step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All is as it is wanted.
    Settled,
    /// Something is still to be done, and is waited for.
    Pending,
}

/// How often a loop runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// After a step that found all settled.
    pub every: Duration,
    /// After one that left something to do.
    pub soon: Duration,
    /// After failures.
    pub backoff: Backoff,
}

/// Wakes a loop. Clones wake the same one; many wakes before a step are one.
#[derive(Clone, Debug, Default)]
pub struct Wake(watch::Sender<()>);

impl Wake {
    /// Something changed.
    pub fn up(&self) {
        self.0.send_replace(());
    }
}

/// A loop before it runs.
#[derive(Debug)]
pub struct Reconciler {
    name: &'static str,
    pace: Pace,
    fault: String,
    shown: u32,
    failures: u32,
    said: String,
    faults: FaultBoard,
    loops: Loops,
    shutdown: Shutdown,
}

impl Reconciler {
    /// A loop of a daemon. Its fault is `<noun>.failing:<name>`, its metrics have its name.
    pub fn new(daemon: &Daemon, name: &'static str, pace: Pace) -> Self {
        Self {
            name,
            pace,
            fault: format!("{}.failing:{name}", daemon.noun()),
            shown: SHOWN,
            failures: 0,
            said: String::new(),
            faults: daemon.faults.clone(),
            loops: daemon.metrics.loops.clone(),
            shutdown: daemon.shutdown.clone(),
        }
    }

    /// Shows another fault than that, and from so many failures in a row on.
    #[must_use]
    pub fn shows(mut self, fault: &str, from: u32) -> Self {
        (self.fault, self.shown) = (fault.to_owned(), from);
        self
    }

    /// Tries until it succeeds once, with the same backoff, fault and metrics.
    pub async fn until<T, E: Display, F>(mut self, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            let begun = Instant::now();
            let (done, result) = match attempt().await {
                Ok(done) => (Some(done), Ok(Outcome::Settled)),
                Err(error) => (None, Err(error)),
            };
            self.loops.ended(self.name, done.is_some(), begun.elapsed());
            let pause = self.judge(result);
            if let Some(done) = done {
                return done;
            }
            sleep(pause).await;
        }
    }

    /// Runs until the way down begins. The first step is now.
    pub async fn run<E: Display, F>(mut self, wake: Wake, mut step: impl FnMut() -> F)
    where
        F: Future<Output = Result<Outcome, E>>,
    {
        let (shutdown, mut calls) = (self.shutdown.clone(), wake.0.subscribe());
        while !shutdown.has_begun() {
            // This step sees whatever was called for up to now.
            calls.mark_unchanged();
            let begun = Instant::now();
            let result = step().await;
            self.loops.ended(self.name, result.is_ok(), begun.elapsed());
            let pause = self.judge(result);
            tokio::select! {
                () = self.wait(&mut calls, pause) => {}
                () = shutdown.begun() => {}
            }
        }
    }

    /// How long to wait after a step, and what to tell of it.
    fn judge<E: Display>(&mut self, result: Result<Outcome, E>) -> Duration {
        let error = match result {
            Ok(outcome) => {
                self.failures = 0;
                self.said.clear();
                self.faults.clear(&self.fault);
                return match outcome {
                    Outcome::Settled => self.pace.every,
                    Outcome::Pending => self.pace.soon,
                };
            }
            Err(error) => format!("{error:#}"),
        };
        self.failures = self.failures.saturating_add(1);
        if self.said != error {
            tracing::warn!(failures = self.failures, "{}: {error}", self.name);
        }
        if self.failures >= self.shown {
            self.faults.raise(Fault::new(&self.fault, &error));
        }
        self.said = error;
        self.pace.backoff.jittered(self.failures)
    }

    /// A wake ends the pause; after a failure not before the shortest one, so that somebody who
    /// wakes at every change can't turn a failing loop into a hot one.
    async fn wait(&self, calls: &mut watch::Receiver<()>, pause: Duration) {
        let least =
            if self.failures > 0 { self.pace.backoff.first.min(pause) } else { Duration::ZERO };
        sleep(least).await;
        let _ = timeout(pause - least, calls.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{Bus, Settings};

    const PACE: Pace = Pace {
        every: Duration::from_secs(10),
        soon: Duration::from_secs(1),
        backoff: Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(8) },
    };

    fn daemon() -> Daemon {
        Daemon::simulated("testd", Settings::default(), Bus::default(), None)
    }

    /// The times of a loop's steps, in seconds, when they end as `outcomes` says; settled after that.
    async fn times(
        outcomes: &[Result<Outcome, &'static str>],
        wakes: &[u64],
        until: u64,
    ) -> Vec<u64> {
        let (daemon, wake) = (daemon(), Wake::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (noted, outcomes) = (Arc::clone(&seen), outcomes.to_vec());
        let start = tokio::time::Instant::now();
        let looped = Reconciler::new(&daemon, "things", PACE).run(wake.clone(), move || {
            let mut noted = noted.lock().unwrap();
            noted.push(start.elapsed().as_secs());
            let outcome = outcomes.get(noted.len() - 1).copied();
            std::future::ready(outcome.unwrap_or(Ok(Outcome::Settled)))
        });
        let task = daemon.shutdown.spawn_to_end(looped);
        for at in wakes {
            tokio::time::sleep_until(start + Duration::from_secs(*at)).await;
            // many at once are one
            wake.up();
            wake.up();
        }
        tokio::time::sleep_until(start + Duration::from_secs(until)).await;
        assert!(daemon.shutdown.finish(crate::shutdown::GRACE).await);
        task.await.unwrap();
        std::mem::take(&mut *seen.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_settled_loop_runs_seldom_a_pending_one_often_and_a_wake_makes_it_run_now() {
        assert_eq!(times(&[], &[], 25).await, [0, 10, 20]);
        assert_eq!(
            times(&[Ok(Outcome::Pending), Ok(Outcome::Pending)], &[], 13).await,
            [0, 1, 2, 12]
        );
        assert_eq!(times(&[], &[3, 7], 18).await, [0, 3, 7, 17]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_loop_backs_off_and_a_wake_can_not_make_it_hot() {
        let failing = [Err("no"); 4];
        let at = times(&failing, &[], 30).await;
        let gaps: Vec<u64> = at.windows(2).map(|w| w[1] - w[0]).collect();
        // 2, 4, 8, 8 less at most a quarter, seen in whole seconds
        let fits = |gap: u64, pause: u64| (pause * 3 / 4 - 1..=pause + 1).contains(&gap);
        assert!([2, 4, 8, 8].iter().zip(&gaps).all(|(p, g)| fits(*g, *p)), "{at:?}");
        let woken = times(&[Err("no"); 50], &(0..20).collect::<Vec<_>>(), 20).await;
        assert!(woken.len() <= 12, "{woken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_failure_in_a_row_is_shown_until_it_heals() {
        let daemon = daemon();
        let mut looped = Reconciler::new(&daemon, "things", PACE);
        let shown =
            || daemon.faults.list().into_iter().map(|f| (f.id, f.detail)).collect::<Vec<_>>();
        for _ in 0..2 {
            looped.judge(Err::<Outcome, _>("the disk is on fire"));
        }
        assert!(shown().is_empty());
        looped.judge(Err::<Outcome, _>("the disk is on fire"));
        let fault = ("test.failing:things".to_owned(), "the disk is on fire".to_owned());
        assert_eq!(shown(), [fault]);
        looped.judge(Ok::<_, &str>(Outcome::Settled));
        assert!(shown().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_made_until_it_succeeds_and_shown_meanwhile() {
        let (daemon, start) = (daemon(), tokio::time::Instant::now());
        let opening = Reconciler::new(&daemon, "open", PACE).shows("test.state", 1);
        let (faults, mut left) = (daemon.faults.clone(), 3);
        let done = opening.until(move || {
            left -= 1;
            let shown = faults.list().len();
            std::future::ready(if left == 0 { Ok((7, shown)) } else { Err("not yet") })
        });
        assert_eq!(done.await, (7, 1));
        assert!(daemon.faults.list().is_empty());
        assert!((4..=6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_counted() {
        let daemon = daemon();
        let looped = Reconciler::new(&daemon, "things", PACE);
        let shutdown = daemon.shutdown.clone();
        let mut left = 3;
        let step = || {
            left -= 1;
            if left == 0 {
                shutdown.begin();
            }
            std::future::ready(if left == 2 { Err("no") } else { Ok(Outcome::Settled) })
        };
        looped.run(Wake::default(), step).await;
        let text = daemon.metrics.text();
        for line in [
            "zos_testd_loop_runs_total{loop=\"things\",outcome=\"ok\"} 2",
            "zos_testd_loop_runs_total{loop=\"things\",outcome=\"failed\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("zos_testd_loop_last_success_seconds{loop=\"things\"} "), "{text}");
    }
}
