//! The chassis that every daemon stands on.
//!
//! ```text
//!  PID 1 ── socket, ready pipe, settings ──▶ Daemon ──▶ run(daemon) ──▶ serve(router) ──▶ exit 0
//!                                              │            │                ▲
//!        config   settings, typed, once ───────┤            ├─ Reconciler: wake, step, backoff
//!        bus      calls to other daemons ──────┤            ├─ Owner, View: facts with one owner
//!        faults   what is wrong, shown ────────┤            └─ Store: what outlives a boot
//!        metrics  what is counted, told ───────┤
//!        shutdown SIGTERM, and who ends when ──┘
//! ```
//!
//! A daemon is a function `run(daemon: Daemon) -> Result<()>`. It serves one interface on the
//! socket that PID 1 opened for it, so callers may call before it is up: they wait in the backlog.
//! A daemon that panics or returns an error is started again by PID 1; there is no second
//! mechanism for that here. Nothing here is a process's but what [`Daemon::start`] makes (log,
//! panic report, signal), so many simulated daemons fit in one process.
#![forbid(unsafe_code)]

mod backoff;
pub mod bus;
pub mod faults;
mod log;
pub mod metrics;
mod panics;
mod ready;
pub mod reconcile;
pub mod settings;
pub mod shutdown;
pub mod state;
pub mod store;

pub use backoff::Backoff;
pub use bus::{Bus, Call, Router, Sink, Watch};
pub use faults::FaultBoard;
pub use log::log_to;
pub use metrics::{Labels, Metrics};
use ready::Ready;
pub use reconcile::{Outcome, Pace, Reconciler, Wake};
pub use settings::{Config, Reader, Settings};
pub use shutdown::Shutdown;
pub use state::{Owner, View};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
pub use zos_api::local::CallError;

/// What a daemon is given.
#[derive(Debug)]
pub struct Daemon {
    /// Its name: `storaged`.
    pub name: &'static str,
    /// What is said about the node; [`Daemon::config`] makes sense of it.
    pub settings: Settings,
    /// Its way to the other daemons.
    pub bus: Bus,
    /// What it sees wrong.
    pub faults: FaultBoard,
    /// What it counts.
    pub metrics: Metrics,
    /// Its way down, and the tasks that end with it.
    pub shutdown: Shutdown,
    listener: Option<UnixListener>,
    ready: Option<Ready>,
}

/// Why a daemon could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// PID 1 passed no socket.
    #[error("no listening socket was passed (LISTEN_FDS); a daemon is started by PID 1")]
    NoSocket,
    /// A method of the interface has no handler, or one that it does not declare has.
    #[error("{0} is not handled as its interface declares it")]
    Handlers(&'static str),
    /// The settings file is there and can't be read.
    #[error("read the settings")]
    Settings(#[source] std::io::Error),
    /// The operating system said no.
    #[error("{0}")]
    Os(&'static str, #[source] std::io::Error),
}

impl Daemon {
    /// Takes what PID 1 passed. Must be called within a tokio runtime, once.
    pub fn start(name: &'static str) -> Result<Self, DaemonError> {
        panics::tell(name);
        let settings = Settings::load(name).map_err(DaemonError::Settings)?;
        let listener = listenfd::ListenFd::from_env()
            .take_unix_listener(0)
            .map_err(|e| DaemonError::Os("take the listening socket", e))?
            .map(|listener| {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)
            })
            .transpose()
            .map_err(|e| DaemonError::Os("listen", e))?;
        let mut daemon = Self::simulated(name, settings, Bus::default(), listener);
        log::start(log::Verbosity::of(&daemon.settings), daemon.metrics.log_lines.clone());
        daemon.ready = Ready::from_env().map_err(|e| DaemonError::Os("take the ready pipe", e))?;
        let mut stop = signal(SignalKind::terminate())
            .map_err(|e| DaemonError::Os("listen for SIGTERM", e))?;
        let shutdown = daemon.shutdown.clone();
        tokio::spawn(async move {
            stop.recv().await;
            shutdown.begin();
        });
        Ok(daemon)
    }

    /// A daemon without PID 1: a part of a simulated node, or of a test. It goes down when somebody
    /// begins its [`Shutdown`].
    pub fn simulated(
        name: &'static str,
        settings: Settings,
        bus: Bus,
        listener: Option<UnixListener>,
    ) -> Self {
        let faults = FaultBoard::default();
        let metrics = Metrics::new(name, faults.clone());
        let (shutdown, ready) = (Shutdown::default(), None);
        Self { name, settings, bus, faults, metrics, shutdown, listener, ready }
    }

    /// What it is about: `storage`, of which `storaged` is the daemon.
    pub fn noun(&self) -> &'static str {
        self.name.strip_suffix('d').unwrap_or(self.name)
    }

    /// The settings that this daemon follows. Each word that makes no sense becomes a fault.
    pub fn config<C: Config>(&self) -> C {
        let (config, faults) = Reader::config(&self.settings);
        faults.into_iter().for_each(|fault| self.faults.raise(fault));
        config
    }

    /// Signals readiness and serves until SIGTERM; then what is under way may end within a grace.
    pub async fn serve(mut self, router: Router) -> Result<(), DaemonError> {
        let shutdown = self.shutdown.clone();
        let server = router.seal(self.faults.clone(), &self.metrics, shutdown.clone())?;
        let listener = self.listener.take().ok_or(DaemonError::NoSocket)?;
        self.ready();
        server.accept(listener).await;
        shutdown.finish(shutdown::GRACE).await;
        Ok(())
    }

    /// The same for a daemon without a local interface of its own, beside `work`, which does not
    /// end. If it was passed a socket, it tells its faults and metrics there, as all do.
    pub async fn serve_nothing(mut self, work: impl Future<Output = ()>) {
        let listener = self.listener.take();
        let (faults, shutdown) = (self.faults.clone(), self.shutdown.clone());
        let server = Router::bare(faults, &self.metrics, shutdown);
        let told = async {
            match listener {
                Some(listener) => server.accept(listener).await,
                None => self.shutdown.begun().await,
            }
        };
        self.ready();
        tokio::select! {
            () = told => {}
            () = work => {}
        }
        self.shutdown.finish(shutdown::GRACE).await;
    }

    /// Signals readiness; PID 1's watchdog is fed from then on.
    fn ready(&self) {
        if let Some(ready) = &self.ready {
            ready.tell();
        }
    }
}

/// Logs why a daemon ended: the last line of a process that could not start or go on.
pub fn log_end(daemon: &str, error: &dyn std::fmt::Display) {
    eprint!("{}", log::line(log::ERROR, &format!("{error:#}"), daemon, &[]));
}
