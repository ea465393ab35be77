//! vmd: owns the VMs of a node while they run. PID 1 is their parent, so nothing that happens to
//! vmd happens to them.
//!
//! ```text
//!  provisiond ── Ensure, Remove ──▶ host ──▶ machine (decides) ──▶ effects (asks)
//!  apid ──────── List, ReadLog ──▶   │                               │
//!  PID 1 ─────── units, Drain ───▶   │   storaged: volumes, shares ──┤
//!                                  notes               netd: taps ───┤
//!                    (found again after a restart)    PID 1: start ──┘
//! ```
//! Absent on purpose: anything that outlives a boot. Which VMs are to run is provisiond's to know.
#![forbid(unsafe_code)]

pub mod effects;
pub mod host;
pub mod machine;
pub mod meter;
pub mod notes;
mod outcome;
pub mod rates;
pub mod ring;
mod shares;
pub mod sockets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::{mpsc, oneshot};
use zos_api::local::Done;
use zos_api::local::storage::Settle;
use zos_api::local::vm::{Drain, Ensure, Ensured, INTERFACE, List, LogChunk, ReadLog, Remove, Vms};
use zos_daemon::{Bus, Call, CallError, Daemon, Metrics, Owner, Router, Sink, View};

use crate::effects::Places;
use crate::host::{Counts, Host, Message};
use crate::meter::Readings;
use crate::notes::Notes;
use crate::ring::Piece;

/// Made by PID 1 for vmd.
const RUNTIME: &str = "/run/zos/vm";
/// How often a followed console is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The machine that vmd runs on: the node's, or a simulated one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its runtime folder, which a boot empties.
    pub runtime: PathBuf,
    /// The boot's id: notes of another one are void.
    pub boot: String,
    /// Where it has what VMs need.
    pub places: Places,
}

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot's id")?;
    let rates::Settings(rates) = daemon.config();
    let places = Places { rates, ..Places::default() };
    let config = Config { runtime: RUNTIME.into(), boot: boot.trim().to_owned(), places };
    run_on(daemon, config).await
}

/// The same on a machine of the caller's.
pub async fn run_on(daemon: Daemon, config: Config) -> anyhow::Result<()> {
    let (bus, faults) = (daemon.bus.clone(), daemon.faults.clone());
    let (tell, messages) = mpsc::channel(64);
    let (heard, told) = (tell.clone(), bus.clone());
    let shutdown = daemon.shutdown.clone();
    let counts = Owner::new(Counts::new());
    count(&daemon.metrics, counts.view());
    let (live, readings) = (Owner::new(Vec::new()), Owner::new(Readings::new()));
    meter::show(&daemon.metrics, &readings.view());
    let cgroups = config.places.cgroups.clone();
    daemon.shutdown.spawn(meter::run(cgroups, live.view(), readings));
    daemon.shutdown.spawn(async move {
        let Config { runtime, boot, places } = config;
        let notes = Notes::new(folder(runtime, &told).await, &boot);
        let host =
            Host::new(notes, places, told.clone(), faults, heard.clone()).counted(counts, live);
        shutdown.spawn(host::watch_units(told, heard));
        host.run(messages).await;
    });
    daemon.serve(router(tell)).await?;
    Ok(())
}

/// VMs by state, as the host counts them.
#[expect(clippy::cast_precision_loss, reason = "some hundreds")]
fn count(metrics: &Metrics, counts: View<Counts>) {
    metrics.measure("vms", "VMs, by state", move || {
        let of =
            |(state, count): (&&str, &usize)| (vec![("state", (*state).to_owned())], *count as f64);
        counts.now().iter().map(of).collect()
    });
}

/// Where the notes lie: the runtime folder, or, without one, the state's.
async fn folder(runtime: PathBuf, bus: &Bus) -> PathBuf {
    if notes::is_writable(&runtime) {
        return runtime;
    }
    Path::new(&bus.insist(|| Settle {}).await.path).join("vm")
}

/// The daemon's answers.
pub fn router(tell: mpsc::Sender<Message>) -> Router {
    let with = tell.clone();
    let ensure = move |_: Call, Ensure { twin, name, vm }| {
        let tell = with.clone();
        async move {
            let change = ask(&tell, |reply| Message::Ensure((twin, name), vm, reply)).await??;
            Ok(Ensured { change })
        }
    };
    let with = tell.clone();
    let remove = move |_: Call, Remove { twin, name }| {
        let tell = with.clone();
        async move {
            ask(&tell, |reply| Message::Remove((twin, name), reply)).await?;
            Ok(Done {})
        }
    };
    let with = tell.clone();
    let list = move |_: Call, _: List| {
        let tell = with.clone();
        async move { Ok(Vms { vms: ask(&tell, Message::List).await? }) }
    };
    let with = tell.clone();
    let drain = move |_: Call, Drain { deadline_ms }| {
        let tell = with.clone();
        async move {
            let deadline = Duration::from_millis(deadline_ms);
            let down = tokio::time::timeout(deadline, ask(&tell, Message::Drain)).await;
            down.unwrap_or(Ok(()))?;
            Ok(Done {})
        }
    };
    let read = move |_: Call, request: ReadLog, out: Sink<LogChunk>| {
        let tell = tell.clone();
        async move { read_log(&tell, request, &out).await }
    };
    Router::new(&INTERFACE).on(ensure).on(remove).on(list).on(drain).on_stream(read)
}

async fn ask<T>(
    tell: &mpsc::Sender<Message>,
    message: impl FnOnce(oneshot::Sender<T>) -> Message,
) -> Result<T, CallError> {
    let gone = || CallError::busy("vmd is going down");
    let (reply, answer) = oneshot::channel();
    tell.send(message(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

async fn read_log(
    tell: &mpsc::Sender<Message>,
    ReadLog { twin, name, from, follow }: ReadLog,
    out: &Sink<LogChunk>,
) -> Result<LogChunk, CallError> {
    let none = || CallError::not_found(format!("there is no VM {name}"));
    let log = ask(tell, |reply| Message::Log((twin, name.clone()), reply)).await?;
    let (path, mut life) = log.ok_or_else(none)?;
    // Made here if the VM has not been started yet, so that a follower may come first.
    let ring = ring::open(&path).map_err(|e| CallError::failed(&e))?;
    let read = |from| ring::read(&ring, from).map_err(|e| CallError::failed(&e));
    let mut piece = read(from)?;
    if !follow {
        return Ok(chunk(&piece));
    }
    out.send(chunk(&piece)).await?;
    loop {
        let ended = tokio::select! {
            () = tokio::time::sleep(LOOK) => false,
            changed = life.changed() => changed.is_err(),
            () = out.closed() => return Ok(chunk(&piece)),
        };
        piece = read(piece.next())?;
        if ended {
            return Ok(chunk(&piece));
        }
        if !piece.data.is_empty() {
            out.send(chunk(&piece)).await?;
        }
    }
}

fn chunk(piece: &Piece) -> LogChunk {
    LogChunk { from: piece.from, data: BASE64_STANDARD.encode(&piece.data), next: piece.next() }
}
