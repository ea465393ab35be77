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
//!
//! The farmer is whoever signs with the key of `zos.farmer=` ([`Farmer`]): the node's services, their
//! logs, its disks, its power, its crashes and its metrics are his. A twin's deployments are not.
#![forbid(unsafe_code)]

pub mod backend;
mod bus;
mod caller;
mod clock;
mod epoch;
#[cfg(feature = "fake")]
pub mod fake;
mod farmer;
mod metrics;
mod problem;
mod routes;
pub mod server;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use backend::{Deployments, Disks, Keys, Machine, Services, Snapshots};
use epoch::Epoch;
pub use farmer::{Farm, Farmer};
use metrics::Served;
pub use routes::{openapi, router};
use tokio::net::TcpListener;
use zos_api::local::identity::{Describe, Identity};
use zos_api::node::PORT;
use zos_daemon::{Daemon, Shutdown};

/// The API of one node, in one run.
pub struct Api {
    identity: Identity,
    farm: Farm,
    /// Phases of the boot that end here.
    phases: BTreeMap<String, u64>,
    epoch: Mutex<Epoch>,
    /// Which boot this is, for cursors that outlive it.
    boot: String,
    served: Served,
    shutdown: Shutdown,
    machine: Arc<dyn Machine>,
    services: Arc<dyn Services>,
    disks: Arc<dyn Disks>,
    deployments: Arc<dyn Deployments>,
    snapshots: Arc<dyn Snapshots>,
    keys: Arc<dyn Keys>,
}

impl Api {
    /// An API that listens from now on, in a new epoch.
    pub fn new<N: Machine + Services + Disks + Deployments + Snapshots + Keys>(
        identity: Identity,
        daemon: &Daemon,
        node: &Arc<N>,
    ) -> Self {
        let now = clock::now();
        let phases = BTreeMap::from([("api-ready".to_owned(), now.boot_millis)]);
        Self {
            epoch: Mutex::new(Epoch::new(identity.node, now)),
            identity,
            farm: daemon.config(),
            phases,
            boot: clock::boot_word(),
            served: Served::new(&daemon.metrics),
            shutdown: daemon.shutdown.clone(),
            machine: Arc::<N>::clone(node),
            services: Arc::<N>::clone(node),
            disks: Arc::<N>::clone(node),
            deployments: Arc::<N>::clone(node),
            snapshots: Arc::<N>::clone(node),
            keys: Arc::<N>::clone(node),
        }
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
    serve(daemon, listener).await
}

/// Serves a node's API on a listener until the way down begins; then what is being answered is
/// answered first.
pub async fn serve(daemon: Daemon, listener: TcpListener) -> anyhow::Result<()> {
    let bus = &daemon.bus;
    let certified = async {
        let identity = bus.insist(|| Describe {}).await;
        let tls = tls::acceptor(async |spki| Ok(bus.insist(|| spki.clone()).await)).await?;
        anyhow::Ok((identity, tls))
    };
    let (identity, tls) = tokio::select! {
        certified = certified => certified?,
        () = daemon.shutdown.begun() => return Ok(()),
    };
    let node = Arc::new(bus::Node::new(daemon.bus.clone(), daemon.faults.clone()));
    let api = Arc::new(Api::new(identity, &daemon, &node));
    let address = listener.local_addr().context("look at the listener")?;
    tracing::info!("node {} answers on {address}", api.identity.node);
    daemon.serve_nothing(server::serve(listener, tls, api)).await;
    Ok(())
}
