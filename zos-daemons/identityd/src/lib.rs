//! identityd: holds the node's root key and uses it for others. The key never leaves this process.
//!
//! ```text
//!  storaged.Settle ─▶ key.pem? ─▶ choose ─┐
//!  /dev/tpmrm0 ─▶ tpm-<id>.json? ─▶ wrap ─┴▶ Node { key, sealer, opener } ─▶ storaged.SetIdentity
//!                                              │
//!          Describe, CertifyTls, Seal, Unseal, SealingKey, Open: wait until here
//! ```
//! Absent on purpose: a call that signs bytes as they come, or that gives the key away.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod identity;
pub mod key;
pub mod seal;
pub mod tpm;
pub mod wrap;

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;
use zos_api::handover::Opener;
use zos_api::local::identity::{
    Certificate, CertifyTls, Describe, INTERFACE, Identity, Open, PublicSealingKey, Seal, Sealed,
    SealingKey, Secret, Unseal,
};
use zos_api::local::storage::{SetIdentity, Settle, Settled};
use zos_daemon::store::State;
use zos_daemon::store::files::Files;
use zos_daemon::{
    Backoff, Call, CallError, Config, Daemon, FaultBoard, Owner, Reader, Router, View,
};
use zos_types::{Fault, NodeId};

use crate::identity::Choice;
use crate::seal::{SealError, Sealer};
use crate::tpm::{DEVICE, Stream, Tpm};
use crate::wrap::{Make, Wraps};

/// What the farmer says of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// `zos.tpm=new`: seal to this TPM from now on, also when an earlier one sealed before it.
    pub new_tpm: bool,
}

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self { new_tpm: reader.choice("tpm", &[("new", ())]).is_some() }
    }
}

/// A way to the machine's TPM: none where there is none.
pub type FindTpm = fn() -> std::io::Result<Option<Tpm>>;

/// The machine's own.
pub fn find_tpm() -> std::io::Result<Option<Tpm>> {
    Ok(Stream::device(Path::new(DEVICE))?.map(Tpm::behind))
}

/// The node's identity in use. The keys are wiped when this is dropped.
pub struct Node {
    key: SigningKey,
    sealer: Sealer,
    opener: Opener,
    id: NodeId,
    ephemeral: bool,
}

impl Node {
    /// Puts a key to use.
    pub fn new(key: SigningKey, ephemeral: bool) -> Self {
        let (sealer, opener) = (Sealer::new(&key, &Wraps::default()), Opener::draw(&key));
        Self { sealer, opener, id: NodeId::from(&key.verifying_key()), key, ephemeral }
    }

    /// Seals with these from now on.
    #[must_use]
    pub fn with(self, wraps: &Wraps) -> Self {
        Self { sealer: Sealer::new(&self.key, wraps), ..self }
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
    run_on(daemon, find_tpm).await
}

/// The same on a machine of the caller's.
pub async fn run_on(daemon: Daemon, tpm: FindTpm) -> anyhow::Result<()> {
    let settings = daemon.config();
    let owner = Owner::new(None::<Arc<Node>>);
    let known = owner.view();
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    let shutdown = daemon.shutdown.clone();
    daemon.shutdown.spawn(async move {
        let settled = bus.insist(|| Settle {}).await;
        let state = State::watch(&bus, &shutdown, "identity").await;
        let files = Files::new(state.copies(), key::is_sound);
        settle(&files, &faults).await;
        // One copy is read, and written first; it need not be the first place, when that was lost.
        let folder = files.folder();
        let path = folder.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let settled = Settled { path, ..settled };
        let node = load(&settled, &faults);
        // A TPM takes its time, up to seconds.
        let asked = tokio::task::spawn_blocking(move || wraps(&settled, settings, tpm()));
        let found = asked.await.unwrap_or_default();
        found.faults.iter().for_each(|fault| faults.raise(fault.clone()));
        // What was made now is in each copy before anybody hears of it.
        settle(&files, &faults).await;
        shutdown.spawn(state.keep(files));
        let node = Arc::new(node.with(&found));
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

/// Has each file in every copy of the state, however long it takes: a key that may be lost is none.
async fn settle(files: &Files, faults: &FaultBoard) {
    let mut failures = 0;
    loop {
        let work = files.clone();
        let done = tokio::task::spawn_blocking(move || work.settle()).await;
        let error = match done {
            Ok(Ok(())) => break,
            Ok(Err(error)) => CallError::failed(&error).to_string(),
            Err(error) => error.to_string(),
        };
        faults.raise(Fault::new("identity.copies", error));
        failures += 1;
        tokio::time::sleep(Backoff::default().jittered(failures)).await;
    }
    faults.clear("identity.copies");
    for (number, told) in files.told().into_iter().enumerate() {
        faults.raise(Fault::new(format!("identity.file-kept:{number}"), told));
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

/// Opens the wrapping secrets of a state, and makes the first one where it may.
pub fn wraps(settled: &Settled, settings: Settings, tpm: std::io::Result<Option<Tpm>>) -> Wraps {
    let make = match settings.new_tpm {
        _ if !settled.durable => Make::Never,
        false => Make::First,
        true => Make::Further,
    };
    wrap::load(&Path::new(&settled.path).join("identity"), tpm, make)
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
            let sealing = node.sealer.sealing();
            Ok(Identity { node: node.id, ephemeral: node.ephemeral, sealing })
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
            let sealing = node.sealer.sealing();
            Ok(Sealed { data: BASE64_STANDARD.encode(sealed), sealing })
        }
    };
    let with = known.clone();
    let unseal = move |_: Call, request: Unseal| {
        let known = with.clone();
        async move {
            let node = known.find().await?;
            let sealed = decode("data", &request.data)?;
            let secret =
                node.sealer.unseal(&request.context, &sealed).map_err(|error| refuse(&error))?;
            Ok(Secret { data: BASE64_STANDARD.encode(&*secret) })
        }
    };
    let with = known.clone();
    let sealing_key = move |_: Call, _: SealingKey| {
        let known = with.clone();
        async move {
            let Opener { public, signature, .. } = &known.find().await?.opener;
            let (key, signature) =
                (BASE64_STANDARD.encode(public), BASE64_STANDARD.encode(signature));
            Ok(PublicSealingKey { key, signature })
        }
    };
    let open = move |_: Call, request: Open| {
        let known = known.clone();
        async move {
            let node = known.find().await?;
            let sealed = decode("sealed", &request.sealed)?;
            let opened = node.opener.open(&request.context, &sealed);
            let secret = opened.map_err(|error| CallError::invalid(error.to_string()))?;
            Ok(Secret { data: BASE64_STANDARD.encode(&*secret) })
        }
    };
    let router = Router::new(&INTERFACE).on(describe).on(certify).on(seal).on(unseal);
    router.on(sealing_key).on(open)
}

fn decode(field: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
    BASE64_STANDARD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| CallError::invalid(format!("`{field}` is not base64")))
}

fn refuse(error: &SealError) -> CallError {
    match error {
        SealError::Elsewhere => CallError::failed(error),
        _ => CallError::invalid(error.to_string()),
    }
}
