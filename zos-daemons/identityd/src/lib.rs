//! identityd: holds the node's root key and uses it for others. The key never leaves this process.
//!
//! ```text
//!  storaged.Settle ─▶ key.pem? ─▶ choose ─▶ Node { key } ─▶ storaged.SetIdentity
//!                                              │
//!                       Describe, CertifyTls, Seal, Unseal: wait until here
//! ```
//! Absent on purpose: a call that signs bytes as they come, or that gives the key away.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod identity;
pub mod key;
pub mod seal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use tokio::sync::watch;
use zeroize::Zeroizing;
use zos_api::local::identity::{
    Certificate, CertifyTls, Describe, INTERFACE, Identity, Seal, Secret, Unseal,
};
use zos_api::local::storage::{SetIdentity, Settle, Settled};
use zos_daemon::{Bus, Call, CallError, Daemon, FaultBoard, Router};
use zos_types::{Fault, NodeId};

use crate::identity::Choice;
use crate::seal::Sealer;

/// Between two attempts to reach storaged.
const RETRY: Duration = Duration::from_secs(1);

/// The node's identity in use. The key is wiped when this is dropped.
pub struct Node {
    key: SigningKey,
    sealer: Sealer,
    id: NodeId,
    ephemeral: bool,
}

impl Node {
    /// Puts a key to use.
    pub fn new(key: SigningKey, ephemeral: bool) -> Self {
        Self { sealer: Sealer::new(&key), id: NodeId::from(&key.verifying_key()), key, ephemeral }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("ephemeral", &self.ephemeral).finish()
    }
}

type Known = watch::Receiver<Option<Arc<Node>>>;

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let (tell, known) = watch::channel(None);
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    tokio::spawn(async move {
        let settled = settle(&bus).await;
        let node = Arc::new(load(&settled, &faults));
        tracing::info!(
            "the node is {}{}",
            node.id,
            if node.ephemeral { ", for this boot" } else { "" }
        );
        tell.send_replace(Some(Arc::clone(&node)));
        introduce(&bus, &node).await;
        // Keeps the channel open for as long as the daemon lives.
        tell.closed().await;
    });
    daemon.serve(router(known)).await?;
    Ok(())
}

async fn settle(bus: &Bus) -> Settled {
    loop {
        match bus.call(Settle {}).await {
            Ok(settled) => return settled,
            Err(error) => tracing::warn!("ask storaged where the state lies: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn introduce(bus: &Bus, node: &Node) {
    while let Err(error) = bus.call(SetIdentity { node: node.id, ephemeral: node.ephemeral }).await
    {
        tracing::warn!("tell storaged who the node is: {error}");
        tokio::time::sleep(RETRY).await;
    }
}

/// Loads or makes the key, whatever it takes: a node without any identity could not even say what
/// is wrong with it.
pub fn load(settled: &Settled, faults: &FaultBoard) -> Node {
    let folder = Path::new(&settled.path).join("identity");
    let choice = identity::choose(settled, key::read(&folder));
    match choice {
        Choice::Use(key, fault) => {
            fault.into_iter().for_each(|fault| faults.raise(fault));
            Node::new(*key, !settled.durable)
        }
        Choice::Make(fault) => {
            fault.into_iter().for_each(|fault| faults.raise(fault));
            let key = draw();
            match key::write(&folder, &key) {
                Ok(()) => Node::new(key, !settled.durable),
                Err(error) => {
                    let cause = CallError::failed(&error);
                    let detail = format!("this identity is lost with the next boot: {cause}");
                    faults.raise(Fault::new(identity::EPHEMERAL, detail));
                    Node::new(key, true)
                }
            }
        }
        Choice::Ephemeral(fault) => {
            faults.raise(fault);
            Node::new(draw(), true)
        }
    }
}

/// The kernel's random numbers don't fail once they run, and nothing can be done without them.
fn draw() -> SigningKey {
    key::draw().expect("getrandom(2) gives random bytes")
}

/// The daemon's answers. Each waits until the identity is known.
pub fn router(known: Known) -> Router {
    let with = known.clone();
    let describe = move |_: Call, _: Describe| {
        let known = with.clone();
        async move {
            let node = wait(known).await?;
            Ok(Identity { node: node.id, ephemeral: node.ephemeral })
        }
    };
    let with = known.clone();
    let certify = move |_: Call, request: CertifyTls| {
        let known = with.clone();
        async move {
            let node = wait(known).await?;
            let spki = decode("spki", &request.spki)?;
            let der = certificate::certify(&node.key, &spki).map_err(|error| match error {
                certificate::CertificateError::Key => CallError::invalid(error.to_string()),
                error => CallError::failed(&error),
            })?;
            Ok(Certificate { der: BASE64_STANDARD.encode(der) })
        }
    };
    let with = known.clone();
    let seal = move |_: Call, request: Seal| {
        let known = with.clone();
        async move {
            let node = wait(known).await?;
            let secret = decode("data", &request.data)?;
            let sealed =
                node.sealer.seal(&request.context, &secret).map_err(|error| refuse(&error))?;
            Ok(Secret { data: BASE64_STANDARD.encode(sealed) })
        }
    };
    let unseal = move |_: Call, request: Unseal| {
        let known = known.clone();
        async move {
            let node = wait(known).await?;
            let sealed = decode("data", &request.data)?;
            let secret =
                node.sealer.unseal(&request.context, &sealed).map_err(|error| refuse(&error))?;
            Ok(Secret { data: BASE64_STANDARD.encode(&*secret) })
        }
    };
    Router::new(&INTERFACE).on(describe).on(certify).on(seal).on(unseal)
}

async fn wait(mut known: Known) -> Result<Arc<Node>, CallError> {
    let node = known.wait_for(Option::is_some).await;
    let node = node.map_err(|_| CallError::busy("identityd is going down"))?;
    Ok(Arc::clone(node.as_ref().expect("waited for it")))
}

fn decode(field: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
    BASE64_STANDARD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| CallError::invalid(format!("`{field}` is not base64")))
}

fn refuse(error: &seal::SealError) -> CallError {
    CallError::invalid(error.to_string())
}
