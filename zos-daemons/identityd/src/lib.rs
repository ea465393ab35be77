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

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;
use zos_api::local::identity::{
    Certificate, CertifyTls, Describe, INTERFACE, Identity, Seal, Secret, Unseal,
};
use zos_api::local::storage::{SetIdentity, Settle, Settled};
use zos_daemon::{Call, CallError, Daemon, FaultBoard, Owner, Router, View};
use zos_types::{Fault, NodeId};

use crate::identity::Choice;
use crate::seal::Sealer;

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

type Known = View<Option<Arc<Node>>>;

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let owner = Owner::new(None::<Arc<Node>>);
    let known = owner.view();
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    daemon.shutdown.spawn(async move {
        let settled = bus.insist(|| Settle {}).await;
        let node = Arc::new(load(&settled, &faults));
        let lasts = if node.ephemeral { ", for this boot" } else { "" };
        tracing::info!("the node is {}{lasts}", node.id);
        owner.put(Some(Arc::clone(&node)));
        bus.insist(|| SetIdentity { node: node.id, ephemeral: node.ephemeral }).await;
        // The fact keeps its owner for as long as somebody may ask for it.
        owner.unread().await;
    });
    daemon.serve(router(known)).await?;
    Ok(())
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
            let node = known.find().await?;
            Ok(Identity { node: node.id, ephemeral: node.ephemeral })
        }
    };
    let with = known.clone();
    let certify = move |_: Call, request: CertifyTls| {
        let known = with.clone();
        async move {
            let node = known.find().await?;
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
            let node = known.find().await?;
            let secret = decode("data", &request.data)?;
            let sealed =
                node.sealer.seal(&request.context, &secret).map_err(|error| refuse(&error))?;
            Ok(Secret { data: BASE64_STANDARD.encode(sealed) })
        }
    };
    let unseal = move |_: Call, request: Unseal| {
        let known = known.clone();
        async move {
            let node = known.find().await?;
            let sealed = decode("data", &request.data)?;
            let secret =
                node.sealer.unseal(&request.context, &sealed).map_err(|error| refuse(&error))?;
            Ok(Secret { data: BASE64_STANDARD.encode(&*secret) })
        }
    };
    Router::new(&INTERFACE).on(describe).on(certify).on(seal).on(unseal)
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
