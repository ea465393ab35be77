//! A node in memory behind the real API: real TLS, real signatures, deployments in a map.
//!
//! It judges a deployment as `provisiond` does, by [`Deployment::from_json`], and then says at once
//! that everything runs. For tests only; nothing of it is in a node's image.

mod disks;
mod keys;
mod services;
mod snapshots;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use disks::FakeDisks;
use ed25519_dalek::{Signer, SigningKey};
use jiff::Timestamp;
use keys::FakeKeys;
use rcgen::{
    CertificateParams, DistinguishedName, Issuer, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use services::FakeInit;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zos_api::local::capacity::Measured;
use zos_api::local::identity::{Certificate, CertifyTls, Identity};
use zos_api::local::init::{Action, Boot, Phase};
use zos_api::local::provision::{Delete, Deleted, Get, List, Put, PutReply, UsageReply};
use zos_api::local::vm::ReadLog;
use zos_api::local::{CallError, Change};
use zos_daemon::{Bus, Daemon, Shutdown};
use zos_types::capacity::{Amount, Capacity, Resources};
use zos_types::machine::{BootReason, Network, TimeQuality, Watchdog};
use zos_types::status::{DeploymentStatus, State, WorkloadStatus};
use zos_types::unit::GIB;
use zos_types::volume::Sealing;
use zos_types::{Deployment, Fault, Id, Name, NodeId, TwinId, Workload, cloud};

use crate::backend::{
    About, Answer, Counts, CrashReport, Deployments, LogStream, Machine, Pending, Piece,
};
use crate::{Api, server, tls};

/// What the console of every VM says.
pub const LOG: &[u8] = b"hello from a VM\n\xff\xfe not UTF-8\n";
/// What it says again and again after that.
pub const TICK: &[u8] = b"tick\n";

/// A node in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeNode {
    key: SigningKey,
    /// Whether provisiond does not answer.
    silent: Arc<AtomicBool>,
    /// Whether no VM starts.
    stuck: Arc<AtomicBool>,
    kept: Arc<Mutex<AllKept>>,
    init: Arc<FakeInit>,
    disks: Arc<FakeDisks>,
    keys: Arc<FakeKeys>,
    settings: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A run of the API.
#[derive(Debug)]
pub struct Run {
    /// Where it answers.
    pub address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Run {
    /// Stops it, as SIGTERM does.
    pub async fn stop(self) {
        self.shutdown.begin();
        let _ = self.task.await;
    }
}

/// What is known of every twin's names.
type AllKept = BTreeMap<(TwinId, Name), Kept>;

/// What is known of a name.
#[derive(Debug)]
struct Kept {
    version: u64,
    body: Vec<u8>,
    /// None once it is deleted.
    status: Option<DeploymentStatus>,
}

impl FakeNode {
    /// A node whose key comes from a seed.
    pub fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        Self {
            keys: Arc::new(FakeKeys::new(&key)),
            key,
            silent: Arc::default(),
            stuck: Arc::default(),
            kept: Arc::default(),
            init: Arc::default(),
            disks: Arc::default(),
            settings: Arc::new(Mutex::new(BTreeMap::from([("farm".into(), "7".into())]))),
        }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        Id::from(&self.key.verifying_key())
    }

    /// Whether provisiond is to be silent from now on.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Whether VMs of deployments put from now on fail to start.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Who the farmer is in runs of the API that begin from now on: what follows `zos.farmer=`.
    pub fn set_farmer(&self, setting: &str) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.insert("farmer".to_owned(), setting.to_owned());
    }

    /// Serves the API on a free port of the loopback, for as long as the runtime lives. Each call
    /// is a new run of the API, with its own epoch and TLS key, over the same deployments.
    pub async fn serve(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.run(([127, 0, 0, 1], 0).into()).await?.address)
    }

    /// The same at an address, until it is stopped.
    pub async fn run(&self, address: SocketAddr) -> anyhow::Result<Run> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let tls = tls::acceptor(async |request| Ok(self.certify(&request))).await?;
        let daemon = self.daemon();
        let (shutdown, api) = (daemon.shutdown.clone(), Arc::new(self.api_of(&daemon)));
        let serving = daemon.serve_nothing(server::serve(listener, tls, api));
        Ok(Run { address, shutdown, task: tokio::spawn(serving) })
    }

    /// The API without a socket.
    pub fn api(&self) -> Api {
        self.api_of(&self.daemon())
    }

    fn api_of(&self, daemon: &Daemon) -> Api {
        let identity = Identity { node: self.id(), ephemeral: false, sealing: Sealing::Beside };
        let mut api = Api::new(identity, daemon, &Arc::new(self.clone()));
        api.boot = self.init.boot_word();
        api
    }

    fn daemon(&self) -> Daemon {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Daemon::simulated("apid", settings.into_iter().collect(), Bus::default(), None)
    }

    /// A leaf as identityd makes it.
    fn certify(&self, request: &CertifyTls) -> Certificate {
        let spki = STANDARD.decode(&request.spki).expect("base64");
        let point = Leaf(spki[spki.len() - 65..].to_vec()); // RFC 5480: the point ends it
        let mut params = CertificateParams::new([format!("{}.zos", self.id())]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(1));
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(9999, 12, 31);
        let root = Root(self.key.clone(), self.key.verifying_key().to_bytes());
        let issuer = Issuer::new(CertificateParams::default(), root);
        let leaf = params.signed_by(&point, &issuer).expect("a certificate");
        Certificate { der: STANDARD.encode(leaf.der()) }
    }

    fn kept(&self) -> Result<MutexGuard<'_, AllKept>, CallError> {
        if self.silent.load(Ordering::Relaxed) {
            return Err(CallError::busy("provisiond does not answer within 2 s"));
        }
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_now(&self, put: Put) -> Result<PutReply, CallError> {
        let body = STANDARD.decode(&put.body).map_err(|e| CallError::failed(&e))?;
        let deployment = Deployment::from_json(&body).map_err(|errors| CallError::Invalid {
            detail: "the deployment breaks rules".into(),
            errors,
        })?;
        let used = cloud::used(&deployment.resources());
        let mut kept = self.kept()?;
        let known = kept.get(&(put.twin, put.name.clone()));
        let next = known.map_or(1, |k| k.version + 1);
        let stuck = self.stuck.load(Ordering::Relaxed);
        let (version, mut status) = (deployment.version, status(&put.name, deployment, stuck));
        snapshots::keep(known.and_then(|known| known.status.as_ref()), &mut status);
        let change = match known {
            Some(Kept { version: same, body: old, status: Some(_) })
                if *same == version && *old == body =>
            {
                Change::Unchanged
            }
            _ if version != next => {
                let detail = format!("version {version} is not the next one, {next}");
                return Err(CallError::Conflict { detail, next_version: Some(next) });
            }
            Some(Kept { status: Some(_), .. }) => Change::Updated,
            _ => Change::Created,
        };
        if !put.dry_run {
            let entry = Kept { version, body, status: Some(status.clone()) };
            kept.insert((put.twin, put.name), entry);
        }
        Ok(PutReply { change, status, used })
    }

    fn find(&self, twin: TwinId, name: &Name) -> Result<DeploymentStatus, CallError> {
        match self.kept()?.get(&(twin, name.clone())) {
            Some(Kept { status: Some(status), .. }) => Ok(self.keys.shown(twin, status)),
            Some(Kept { version, .. }) => Err(CallError::Conflict {
                detail: "it was deleted".into(),
                next_version: Some(version + 1),
            }),
            None => Err(CallError::not_found("never heard of it")),
        }
    }
}

/// Every workload as it should be; VMs not if they are stuck.
fn status(name: &Name, deployment: Deployment, stuck: bool) -> DeploymentStatus {
    let workloads = deployment.workloads.iter().map(|(name, workload)| {
        let (state, address) = match workload {
            Workload::Vm(_) if stuck => {
                let fault = "/dev/kvm is absent".to_owned();
                (State::Degraded { fault, retry_at: Timestamp::UNIX_EPOCH }, None)
            }
            Workload::Vm(_) => (State::Running, "10.1.0.2".parse().ok()),
            Workload::Volume(_) | Workload::Share(_) => (State::Ready, None),
        };
        let since = Timestamp::UNIX_EPOCH;
        let volume = workload.volume().map(|(volume, _)| snapshots::made(volume));
        (name.clone(), WorkloadStatus { address, volume, ..WorkloadStatus::new(state, since) })
    });
    DeploymentStatus { name: name.clone(), workloads: workloads.collect(), deployment }
}

fn boot() -> Boot {
    Boot {
        version: "0.1.0".into(),
        image: "00".repeat(32),
        boot_reason: BootReason::PowerLoss,
        ending: None,
        watchdog: Some(Watchdog { identity: "i6300ESB timer".into(), timeout: 30, hardware: true }),
        time_quality: TimeQuality::Rtc,
        settings: BTreeMap::new(),
        phases: vec![Phase { name: "services".into(), millis: 1200 }],
        faults: Vec::new(),
    }
}

impl Machine for FakeNode {
    fn about(&self) -> Pending<'_, About> {
        let about = About {
            boot: Some(boot()),
            units: self.init.units(),
            network: Some(Network::default()),
            faults: vec![Fault::new("storage.foreign-disk:sda", "sda holds data; left alone")],
        };
        Box::pin(async { about })
    }

    fn shut_down(&self, action: Action) -> Answer<'_, ()> {
        Box::pin(async move { self.init.shut_down(action) })
    }

    fn crashes(&self) -> Answer<'_, CrashReport> {
        Box::pin(async { self.init.crashes() })
    }

    fn counts(&self) -> Pending<'_, Counts> {
        Box::pin(async { self.init.counts() })
    }

    fn capacity(&self) -> Answer<'_, (Measured, UsageReply)> {
        Box::pin(async {
            let capacity = Capacity {
                cru: Amount::new(8, 0),
                mru: Amount::new(33 * GIB, GIB),
                sru: Amount::new(1000 * GIB, 0),
                ..Capacity::default()
            };
            let offered = cloud::offered(&capacity.offered());
            let measured = Measured { processor: "Fake CPU".into(), capacity, offered };
            let kept = self.kept()?;
            let held = kept.values().filter_map(|k| k.status.as_ref());
            let resources: Resources = held.clone().map(|s| s.deployment.resources()).sum();
            let deployments = u64::try_from(held.count()).unwrap_or_default();
            Ok((measured, UsageReply { resources, deployments, vms: deployments }))
        })
    }
}

impl Deployments for FakeNode {
    fn put(&self, put: Put) -> Answer<'_, PutReply> {
        Box::pin(async { self.put_now(put) })
    }

    fn get(&self, get: Get) -> Answer<'_, DeploymentStatus> {
        Box::pin(async move { self.find(get.twin, &get.name) })
    }

    fn list(&self, list: List) -> Answer<'_, Vec<DeploymentStatus>> {
        Box::pin(async move {
            let kept = self.kept()?;
            let own = kept.iter().filter(|((twin, _), _)| *twin == list.twin);
            Ok(own.filter_map(|(_, k)| k.status.clone()).collect())
        })
    }

    fn delete(&self, delete: Delete) -> Answer<'_, Deleted> {
        Box::pin(async move {
            self.find(delete.twin, &delete.name)?;
            let mut kept = self.kept()?;
            let entry = kept
                .get_mut(&(delete.twin, delete.name))
                .ok_or_else(|| CallError::not_found("gone"))?;
            entry.status = None;
            Ok(Deleted { next_version: entry.version + 1 })
        })
    }

    fn read_log(&self, read: ReadLog) -> Answer<'_, LogStream> {
        Box::pin(async move {
            let status = self.find(read.twin, &read.name.deployment);
            let vm = status.ok().and_then(|s| {
                let workload = s.deployment.workloads.get(&read.name.workload).cloned();
                matches!(workload, Some(Workload::Vm(_))).then_some(())
            });
            vm.ok_or_else(|| CallError::not_found(format!("there is no VM {}", read.name)))?;
            let (sender, stream) = mpsc::channel(4);
            let held = LOG.len();
            let mut at = usize::try_from(read.from).unwrap_or(usize::MAX);
            let piece = |at: usize, bytes: Bytes| Ok(Piece { from: at as u64, bytes });
            let node = self.clone();
            tokio::spawn(async move {
                let first = Bytes::from_static(&LOG[at.min(held)..]);
                let mut next = at + first.len();
                let _ = sender.send(piece(at, first)).await;
                let there = || node.find(read.twin, &read.name.deployment).is_ok();
                while read.follow && !sender.is_closed() && there() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    // byte n of the log is always the same one
                    (at, next) = (next, next + TICK.len() - (next - held) % TICK.len());
                    let tick = Bytes::from_static(&TICK[(at - held) % TICK.len()..]);
                    let _ = sender.send(piece(at, tick)).await;
                }
            });
            Ok(stream)
        })
    }
}

/// A P-256 point as rcgen wants it.
struct Leaf(Vec<u8>);

impl PublicKeyData for Leaf {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The node's key as rcgen wants it.
struct Root(SigningKey, [u8; 32]);

impl PublicKeyData for Root {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Root {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}
