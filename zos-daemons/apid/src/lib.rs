//! apid: the node API. HTTPS on TCP 8443, signed requests, problems, OpenAPI.
//!
//! ```text
//!  TCP ─▶ TLS ─▶ route ─▶ who asks? ─▶ provisiond, vmd …  ─▶ answer | problem
//!  caps   P-256  405 404  signature,   local calls, each
//!         leaf   415 413  epoch        with a bound
//! ```
//!
//! apid never touches the machine and keeps no state: each start has a fresh TLS key and a fresh
//! epoch, so nothing signed for an earlier run is good for this one. What another daemon does not
//! answer in time is a fault in `GET /v1/node` and a 503 elsewhere.
#![forbid(unsafe_code)]

pub mod backend;
mod bus;
mod caller;
mod clock;
mod epoch;
#[cfg(feature = "fake")]
pub mod fake;
mod problem;
mod routes;
pub mod server;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use backend::{Deployments, Machine};
use epoch::Epoch;
pub use routes::{openapi, router};
use tokio::net::TcpListener;
use zos_api::local::identity::{Describe, Identity};
use zos_api::node::PORT;
use zos_daemon::{Bus, CallError, Daemon};

/// The API of one node, in one run.
pub struct Api {
    identity: Identity,
    farm: Option<String>,
    /// Phases of the boot that end here.
    phases: BTreeMap<String, u64>,
    epoch: Mutex<Epoch>,
    machine: Arc<dyn Machine>,
    deployments: Arc<dyn Deployments>,
}

impl Api {
    /// An API that listens from now on, in a new epoch.
    pub fn new(
        identity: Identity,
        farm: Option<String>,
        machine: Arc<dyn Machine>,
        deployments: Arc<dyn Deployments>,
    ) -> Self {
        let now = clock::now();
        let phases = BTreeMap::from([("api-ready".to_owned(), now.boot_millis)]);
        let epoch = Mutex::new(Epoch::new(identity.node, now));
        Self { identity, farm, phases, epoch, machine, deployments }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The daemon's life. It serves no local interface.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let listener = server::listen(PORT).with_context(|| format!("listen on TCP {PORT}"))?;
    run_on(daemon, listener).await
}

/// The same on a socket of the caller's: of a simulated node, which shares its address with others.
pub async fn run_on(daemon: Daemon, listener: TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr().context("tell the listening address")?;
    let identity = patient(&daemon.bus, || Describe {}).await?;
    let tls = tls::acceptor(async |spki| patient(&daemon.bus, || spki.clone()).await).await?;
    let farm = daemon.settings.get("farm").map(str::to_owned);
    let node = Arc::new(bus::Node::new(daemon.bus.clone(), daemon.faults.clone()));
    let deployments: Arc<dyn Deployments> = Arc::<bus::Node>::clone(&node);
    let api = Api::new(identity, farm, node, deployments);
    tracing::info!("node {} answers on TCP {}", api.identity.node, address.port());
    daemon.ready();
    tokio::select! {
        () = server::serve(listener, tls, router(Arc::new(api))) => Ok(()),
        stopped = Daemon::stopped() => Ok(stopped?),
    }
}

/// Calls until the daemon called is there; an answer that won't change is final.
async fn patient<M: zos_api::local::Method>(
    bus: &Bus,
    method: impl Fn() -> M,
) -> Result<M::Reply, CallError> {
    loop {
        match bus.call(method()).await {
            Err(CallError::Busy { detail }) => {
                tracing::info!("{}: {detail}; asking again", M::NAME);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            answer => return answer,
        }
    }
}
