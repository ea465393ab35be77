//! provisiond: keeps what twins want, and has it made so. The brain without hands: it touches no
//! machine, and asks those who do.
//!
//! ```text
//!  apid ── Put ──▶ version ▸ kept ▸ admit ──▶ book (durable) ──▶ plan ──▶ storaged: volumes
//!                                                │                └─────▶ vmd: VMs
//!          Get ◀── status ◀── what is there ─────┘
//! ```
//! After a boot the book is opened, nothing is there, and the plan brings all of it back.
#![forbid(unsafe_code)]

pub mod admit;
pub mod attempts;
pub mod book;
pub mod brain;
pub mod kept;
pub mod needs;
pub mod plan;
pub mod space;
pub mod status;
pub mod steps;

use std::sync::Arc;
use std::time::Duration;

use zos_api::local::provision::{
    Delete, DeleteSnapshot, Get, INTERFACE, List, ListSnapshots, Put, RestoreSnapshot,
    TakeSnapshot, Usage,
};
use zos_daemon::metrics::Labels;
use zos_daemon::store::State;
use zos_daemon::{
    Bus, Call, CallError, Daemon, FaultBoard, Metrics, Owner, Reconciler, Router, Shutdown, View,
};
use zos_types::Fault;

use crate::book::Book;
use crate::brain::{Brain, Held};

/// How long a call waits for the book.
const PATIENCE: Duration = Duration::from_secs(20);

/// The brain, once its book is open.
pub type Known = View<Option<Arc<Brain>>>;

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let owner = Owner::new(None::<Arc<Brain>>);
    let known = owner.view();
    count(&daemon.metrics, known.clone());
    let opening = Reconciler::new(&daemon, "open", brain::PACE).shows("provision.state", 1);
    let keeping = Reconciler::new(&daemon, "deployments", brain::PACE);
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    let shutdown = daemon.shutdown.clone();
    daemon.shutdown.spawn(async move {
        let brain = Arc::new(open(&bus, &faults, &shutdown, opening).await);
        owner.put(Some(Arc::clone(&brain)));
        brain.reconcile(keeping).await;
    });
    daemon.serve(router(known)).await?;
    Ok(())
}

/// Opens the book where the state lies. A book that can't be opened is never replaced.
async fn open(bus: &Bus, faults: &FaultBoard, shutdown: &Shutdown, opening: Reconciler) -> Brain {
    let state = State::watch(bus, shutdown, "provision").await;
    let (book, unreadable) = opening
        .until(|| {
            let opened = Book::open(state.copies());
            let words = |error| format!("no deployment runs: {}", CallError::failed(&error));
            std::future::ready(opened.map_err(words))
        })
        .await;
    faults.replace("provision.unreadable:", unreadable);
    if !state.is_durable() {
        let detail = "no disk keeps deployments: they are lost with the next boot";
        faults.raise(Fault::new("provision.ephemeral", detail));
    }
    shutdown.spawn(state.keep(book.store()));
    Brain::new(book, bus.clone(), faults.clone())
}

/// What twins have asked for.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn count(metrics: &Metrics, known: Known) {
    let with = known.clone();
    metrics.measure("deployments", "Deployments kept", move || {
        let brain = Option::clone(&with.now());
        let kept = brain.and_then(|brain| brain.deployments());
        kept.map(|count| (Labels::new(), count as f64)).into_iter().collect()
    });
    let held = move || Option::clone(&known.now()).and_then(|brain| brain.held());
    let of = held.clone();
    metrics.measure("volumes", "Volumes and shares that are there", move || {
        of().map(|held| (Labels::new(), held.volumes as f64)).into_iter().collect()
    });
    let of = held.clone();
    metrics.measure("snapshots", "Snapshots that are there", move || {
        of().map(|held| (Labels::new(), held.snapshots as f64)).into_iter().collect()
    });
    let help = "What is set aside for volumes and snapshots, by class";
    metrics.measure("storage_reserved_bytes", help, move || {
        let Some(Held { reserved, .. }) = held() else { return Vec::new() };
        [("ssd", reserved.sru), ("hdd", reserved.hru)]
            .map(|(class, bytes)| (vec![("class", class.into())], bytes.0 as f64))
            .into()
    });
}

/// The daemon's answers. Each waits a while for the book.
pub fn router(known: Known) -> Router {
    let with = known.clone();
    let put = move |_: Call, request: Put| {
        let known = with.clone();
        async move { wait(known).await?.put(request).await }
    };
    let with = known.clone();
    let get = move |_: Call, Get { twin, name }| {
        let known = with.clone();
        async move { wait(known).await?.get((twin, name)).await }
    };
    let with = known.clone();
    let list = move |_: Call, List { twin }| {
        let known = with.clone();
        async move { Ok(wait(known).await?.list(twin).await) }
    };
    let with = known.clone();
    let delete = move |_: Call, Delete { twin, name, evidence }| {
        let known = with.clone();
        async move { wait(known).await?.delete((twin, name), evidence).await }
    };
    let with = known.clone();
    let take = move |_: Call, take: TakeSnapshot| {
        let known = with.clone();
        async move { wait(known).await?.take_snapshot(take).await }
    };
    let with = known.clone();
    let snapshots = move |_: Call, list: ListSnapshots| {
        let known = with.clone();
        async move { wait(known).await?.list_snapshots(list).await }
    };
    let with = known.clone();
    let destroy = move |_: Call, delete: DeleteSnapshot| {
        let known = with.clone();
        async move { wait(known).await?.delete_snapshot(delete).await }
    };
    let with = known.clone();
    let restore = move |_: Call, restore: RestoreSnapshot| {
        let known = with.clone();
        async move { wait(known).await?.restore_snapshot(restore).await }
    };
    let usage = move |_: Call, _: Usage| {
        let known = known.clone();
        async move { Ok(wait(known).await?.usage().await) }
    };
    let router = Router::new(&INTERFACE).on(put).on(get).on(list).on(delete).on(usage);
    router.on(take).on(snapshots).on(destroy).on(restore)
}

async fn wait(known: Known) -> Result<Arc<Brain>, CallError> {
    let late = || CallError::busy("the node has not opened its book of deployments yet");
    Ok(tokio::time::timeout(PATIENCE, known.find()).await.map_err(|_| late())??)
}
