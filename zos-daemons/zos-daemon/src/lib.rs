//! The chassis that every daemon stands on.
//!
//! ```text
//!  PID 1 ── listening socket, ready pipe, settings ──▶ Daemon ──▶ App::run ──▶ serve(router)
//!                                                        │                        │
//!                                      bus ── calls ─────┤        SIGTERM ──▶ returns, exit 0
//!                                   faults ── shown by ──┤
//!                                    store ── durable ───┘
//! ```
//!
//! A daemon is a function `run(daemon: Daemon) -> Result<()>`. It serves one interface on the
//! socket that PID 1 opened for it, so callers may call before it is up: they wait in the backlog.
//! A daemon that panics or returns an error is started again by PID 1; there is no second
//! mechanism for that here.
#![forbid(unsafe_code)]

pub mod bus;
pub mod faults;
mod log;
pub mod metrics;
pub mod settings;
pub mod store;

use std::io::Write;

pub use bus::{Bus, Call, Router, Sink, Watch};
pub use faults::FaultBoard;
pub use metrics::Metrics;
pub use settings::Settings;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
pub use zos_api::local::CallError;

/// What a daemon is given.
#[derive(Debug)]
pub struct Daemon {
    /// Its name: `storaged`.
    pub name: &'static str,
    /// The farmer's settings.
    pub settings: Settings,
    /// Its way to the other daemons.
    pub bus: Bus,
    /// What it sees wrong.
    pub faults: FaultBoard,
    /// What it counts.
    pub metrics: Metrics,
    listener: Option<UnixListener>,
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
        let settings = Settings::load().map_err(DaemonError::Settings)?;
        log::start(settings.get("debug").is_some() || settings.get("log") == Some("debug"));
        let listener = listenfd::ListenFd::from_env()
            .take_unix_listener(0)
            .map_err(|e| DaemonError::Os("take the listening socket", e))?
            .map(|listener| {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)
            })
            .transpose()
            .map_err(|e| DaemonError::Os("listen", e))?;
        Ok(Self::simulated(name, settings, Bus::default(), listener))
    }

    /// A daemon without PID 1: a part of a simulated node, or of a test.
    pub fn simulated(
        name: &'static str,
        settings: Settings,
        bus: Bus,
        listener: Option<UnixListener>,
    ) -> Self {
        let faults = FaultBoard::default();
        let metrics = Metrics::new(name, faults.clone());
        Self { name, settings, bus, faults, metrics, listener }
    }

    /// Signals readiness and serves until SIGTERM.
    pub async fn serve(mut self, router: Router) -> Result<(), DaemonError> {
        let router = router.seal(self.faults.clone(), &self.metrics)?;
        let listener = self.listener.take().ok_or(DaemonError::NoSocket)?;
        self.ready();
        tokio::select! {
            () = router.accept(listener) => Ok(()),
            result = Self::stopped() => result,
        }
    }

    /// Signals readiness. Only for a daemon that serves nothing; [`Daemon::serve`] does it else.
    pub fn ready(&self) {
        let Some(number) = std::env::var("ZOS_READY_FD").ok().and_then(|n| n.parse::<u32>().ok())
        else {
            return;
        };
        let pipe = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
        if let Err(error) = pipe.and_then(|mut pipe| pipe.write_all(b"\n")) {
            tracing::warn!("signal readiness: {error}");
        }
    }

    /// Waits for SIGTERM.
    pub async fn stopped() -> Result<(), DaemonError> {
        let mut stop = signal(SignalKind::terminate())
            .map_err(|e| DaemonError::Os("listen for SIGTERM", e))?;
        stop.recv().await;
        Ok(())
    }
}
