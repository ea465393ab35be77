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
pub mod plan;
pub mod status;
pub mod steps;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zos_api::local::provision::{Delete, Get, INTERFACE, List, Put, Usage};
use zos_api::local::storage::Settle;
use zos_daemon::{Bus, Call, CallError, Daemon, FaultBoard, Router};
use zos_types::Fault;

use crate::book::Book;
use crate::brain::Brain;

/// Between two tries to open the book.
const RETRY: Duration = Duration::from_secs(5);
/// How long a call waits for the book.
const PATIENCE: Duration = Duration::from_secs(20);

type Known = watch::Receiver<Option<Arc<Brain>>>;

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let (tell, known) = watch::channel(None);
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    tokio::spawn(async move {
        let brain = Arc::new(open(bus, faults).await);
        tell.send_replace(Some(Arc::clone(&brain)));
        brain.reconcile().await;
    });
    daemon.serve(router(known)).await?;
    Ok(())
}

/// Opens the book where the state lies. A book that can't be opened is never replaced.
async fn open(bus: Bus, faults: FaultBoard) -> Brain {
    loop {
        match bus.call(Settle {}).await {
            Err(error) => tracing::warn!("ask storaged where the state lies: {error}"),
            Ok(settled) => match Book::open(&Path::new(&settled.path).join("provision")) {
                Err(error) => {
                    let detail = format!("no deployment runs: {}", CallError::failed(&error));
                    faults.raise(Fault::new("provision.state", detail));
                }
                Ok((book, unreadable)) => {
                    faults.clear("provision.state");
                    faults.replace("provision.unreadable:", unreadable);
                    if !settled.durable {
                        let detail = "no disk keeps deployments: they are lost with the next boot";
                        faults.raise(Fault::new("provision.ephemeral", detail));
                    }
                    return Brain::new(book, bus, faults);
                }
            },
        }
        tokio::time::sleep(RETRY).await;
    }
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
    let usage = move |_: Call, _: Usage| {
        let known = known.clone();
        async move { Ok(wait(known).await?.usage().await) }
    };
    Router::new(&INTERFACE).on(put).on(get).on(list).on(delete).on(usage)
}

async fn wait(mut known: Known) -> Result<Arc<Brain>, CallError> {
    let late = || CallError::busy("the node has not opened its book of deployments yet");
    let brain = tokio::time::timeout(PATIENCE, known.wait_for(Option::is_some)).await;
    let brain = brain.map_err(|_| late())?.map_err(|_| late())?;
    brain.as_ref().map(Arc::clone).ok_or_else(late)
}
