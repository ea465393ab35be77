//! A daemon of a simulated node: a thread with a runtime of its own, so that it ends with all that it
//! began, as a process does.
//!
//! ```text
//!  start ─▶ thread: runtime ─ life ── ended by itself, or when told to stop ─┐
//!                        └─ killed, or too slow to stop ─▶ all tasks dropped ─┴─▶ told
//! ```

use std::future::Future;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;
use zos_api::local::init::Exit;

use crate::pid1::{Log, route_logs};

/// Enough for a daemon; the kernel gives what of it is used.
const STACK: usize = 1 << 20;

/// How long a daemon that was told to stop may take; its own grace is shorter.
const SLOW: Duration = Duration::from_secs(8);

/// What a daemon is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Nothing.
    Run,
    /// To end in good order: SIGTERM.
    Stop,
    /// To end where it stands: SIGKILL.
    Kill,
}

/// A running daemon. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Part {
    tell: watch::Sender<Told>,
}

impl Part {
    /// Starts a life, which hears when it is to stop. `ended` is called once when it has ended: nothing
    /// of it is left then.
    pub(crate) fn start<F>(
        name: &str,
        log: &Log,
        life: impl FnOnce(watch::Receiver<Told>) -> F + Send + 'static,
        ended: impl FnOnce(Exit, String) + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let (tell, told) = watch::channel(Told::Run);
        let log = log.clone();
        let end = End { ended: Some(ended), exit: code(101), words: "it panicked".into() };
        thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            let mut end = end;
            route_logs(&log);
            (end.exit, end.words) = run(life, told);
        })?;
        Ok(Self { tell })
    }

    /// Tells it to end in good order.
    pub(crate) fn stop(&self) {
        self.tell.send_replace(Told::Stop);
    }

    /// Ends it where it stands.
    pub(crate) fn kill(&self) {
        self.tell.send_replace(Told::Kill);
    }
}

/// Tells the end, also that of a life that panics.
struct End<T: FnOnce(Exit, String)> {
    ended: Option<T>,
    exit: Exit,
    words: String,
}

impl<T: FnOnce(Exit, String)> Drop for End<T> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(self.exit, std::mem::take(&mut self.words));
        }
    }
}

fn run<F>(
    life: impl FnOnce(watch::Receiver<Told>) -> F,
    told: watch::Receiver<Told>,
) -> (Exit, String)
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (code(1), format!("start the runtime: {error}")),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            result = life(told.clone()) => Some(result),
            () = cut(told) => None,
        }
    });
    // What waits for disks in a thread of its own is not waited for.
    runtime.shutdown_background();
    match ended {
        Some(Err(error)) => (code(1), format!("{error:#}")),
        Some(Ok(())) | None => (code(0), String::new()),
    }
}

/// Until a life has to be cut short.
async fn cut(mut told: watch::Receiver<Told>) {
    // An error: the node that held it has gone.
    let first = told.wait_for(|told| *told != Told::Run).await.map_or(Told::Kill, |told| *told);
    if first == Told::Stop {
        tokio::select! {
            () = sleep(SLOW) => {}
            _ = told.wait_for(|told| *told == Told::Kill) => {}
        }
    }
}

fn code(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, oom: false }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// How a life ends: its code and words.
    fn ends<F>(
        life: impl FnOnce(watch::Receiver<Told>) -> F + Send + 'static,
        told: Told,
    ) -> (Option<i32>, String)
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let (tell, heard) = mpsc::channel();
        let ended = move |exit: Exit, words| tell.send((exit.code, words)).unwrap();
        let part = Part::start("test", &Log::default(), life, ended).unwrap();
        match told {
            Told::Run => {}
            Told::Stop => part.stop(),
            Told::Kill => part.kill(),
        }
        let end = heard.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(part);
        end
    }

    #[test]
    fn every_end_is_told() {
        let nothing = || (Some(0), String::new());
        assert_eq!(ends(async |_| Ok(()), Told::Run), nothing());
        let failed = ends(async |_| anyhow::bail!("no disk"), Told::Run);
        assert_eq!(failed, (Some(1), "no disk".into()));
        let panicked = ends(async |_| panic!("on purpose"), Told::Run);
        assert_eq!(panicked, (Some(101), "it panicked".into()));
        let obedient = async |mut told: watch::Receiver<Told>| {
            told.wait_for(|told| *told == Told::Stop).await?;
            anyhow::bail!("stopped")
        };
        assert_eq!(ends(obedient, Told::Stop), (Some(1), "stopped".into()));
        assert_eq!(ends(|_| std::future::pending(), Told::Kill), nothing());
    }

    #[test]
    fn what_it_began_ends_with_it() {
        let (held, alive) = mpsc::channel::<()>();
        let life = async move |_| {
            tokio::spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            std::future::pending().await
        };
        ends(life, Told::Kill);
        assert_eq!(alive.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
