//! storaged: disks, pools, the place of the node's state, volumes.
//!
//! ```text
//!  uevents ─▶ life ─▶ keeper ─▶ jobs: probe, sample, adopt, open, own, prepare
//!               │        │
//!               │        └─ settle (when is it decided?)    disk::judge (what is on it?)
//!               └─ View ─▶ router: Settle, ListDisks, volumes ...
//!                       └▶ past: how the last run ended, crashes
//! ```
//! Decisions are pure (`settle`, `keeper`, `disk`, `volume::place`); `pool`, `state` and
//! `volume::{files, device}` change the machine. Absent on purpose: an unmount at the end. PID 1
//! stops the VMs first and unmounts then, and a storaged that is started again finds all as it was.
#![forbid(unsafe_code)]

mod boot_medium;
pub mod disk;
pub mod keeper;
pub mod life;
pub mod machine;
mod metrics;
pub mod past;
mod places;
pub mod pool;
pub mod settle;
pub mod state;
pub mod volume;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use zos_api::local::Done;
use zos_api::local::storage::{
    CloseVolume, CreateVolume, DeleteVolume, Disks, INTERFACE, ListCrashes, ListDisks, ListPools,
    ListVolumes, OpenVolume, Pools, SetIdentity, Settle, Volumes as VolumeList,
};
use zos_daemon::{Bus, Call, CallError, Daemon, Router, Shutdown};
use zos_types::NodeId;

use crate::keeper::{Event, Keeper};
use crate::life::{Life, View};
use crate::machine::Machine;
use crate::past::Past;
pub use crate::places::Places;
use crate::volume::Volumes;

/// Calls about volumes wait this long for the pools.
const STEADY: Duration = Duration::from_secs(60);

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let places = Places::node();
    run_on(daemon, places.clone(), Arc::new(machine::Node(places))).await?;
    // The thread that watches disks would be waited for, and has no end.
    std::process::exit(0)
}

/// The same on a machine of the caller's.
pub async fn run_on(
    daemon: Daemon,
    places: Places,
    machine: Arc<dyn Machine>,
) -> anyhow::Result<()> {
    let keeper = Keeper::new(
        daemon.config(),
        boot_medium::partition(&places.root),
        places.state.to_string_lossy().into_owned(),
        life::remembered(&places),
    );
    let faults = daemon.faults.clone();
    let (life, view) = Life::new(keeper, places.clone(), Arc::clone(&machine), faults);
    let (past, bus) = (Past::new(&places, view.settled.clone()), daemon.bus.clone());
    let router = router(&view, &past, &bus, &daemon.shutdown);
    metrics::count(&daemon.metrics, &view);
    // Not bound to the way down: calls that are still answered then may need it.
    tokio::spawn(life.run());
    tokio::spawn(past.clone().begin(bus.clone()));
    tokio::select! {
        served = daemon.serve(router) => served?,
        ended = machine.watch(view.news) => return ended,
    }
    past.end(&bus).await;
    Ok(())
}

/// The daemon's answers.
pub fn router(view: &View, past: &Past, bus: &Bus, shutdown: &Shutdown) -> Router {
    let (settle, identity, disks) = (view.clone(), view.clone(), view.clone());
    let (pools, list, close, delete) = (view.clone(), view.clone(), view.clone(), view.clone());
    let (create, create_bus) = (view.clone(), bus.clone());
    let (open, open_bus) = (view.clone(), bus.clone());
    let (past, past_bus) = (past.clone(), bus.clone());
    let (creating, opening) = (shutdown.clone(), shutdown.clone());
    let (closing, deleting) = (shutdown.clone(), shutdown.clone());
    Router::new(&INTERFACE)
        .on(move |_: Call, _: Settle| {
            let mut settled = settle.settled.clone();
            async move {
                let known = settled.wait_for(Option::is_some).await;
                let known = known.map_err(|_| CallError::busy("storaged is going down"))?;
                Ok(known.clone().expect("waited for it"))
            }
        })
        .on(move |_: Call, SetIdentity { node, ephemeral }| {
            let view = identity.clone();
            async move {
                let down = |_| CallError::busy("storaged is going down");
                let gone = |_| CallError::busy("storaged is going down");
                view.news.send(Event::Identity(node, ephemeral)).await.map_err(down)?;
                let mut known = view.node.clone();
                known.wait_for(|known| *known == Some((node, ephemeral))).await.map_err(gone)?;
                Ok(Done {})
            }
        })
        .on(move |_: Call, _: ListDisks| {
            let disks = disks.disks.borrow().clone();
            async move { Ok(Disks { disks }) }
        })
        .on(move |_: Call, _: ListPools| {
            let view = pools.clone();
            async move { Ok(Pools { pools: volumes(&view).await?.lock().await.pools() }) }
        })
        .on(move |_: Call, wanted: CreateVolume| {
            let (view, bus) = (create.clone(), create_bus.clone());
            apart(&creating, async move {
                let volumes = volumes(&view).await?;
                lasting(*view.node.borrow())?;
                volumes.lock().await.create(wanted, &bus).await
            })
        })
        .on(move |_: Call, _: ListVolumes| {
            let view = list.clone();
            async move { Ok(VolumeList { volumes: volumes(&view).await?.lock().await.list() }) }
        })
        .on_fds(move |_: Call, OpenVolume { twin, name }| {
            let (view, bus) = (open.clone(), open_bus.clone());
            apart(&opening, async move {
                let (volume, fd) =
                    volumes(&view).await?.lock().await.open(twin, name, &bus).await?;
                Ok((volume, vec![fd]))
            })
        })
        .on(move |_: Call, CloseVolume { twin, name }| {
            let view = close.clone();
            apart(&closing, async move {
                volumes(&view).await?.lock().await.close(twin, name).await?;
                Ok(Done {})
            })
        })
        .on(move |_: Call, DeleteVolume { twin, name }| {
            let view = delete.clone();
            apart(&deleting, async move {
                volumes(&view).await?.lock().await.delete(twin, name).await?;
                Ok(Done {})
            })
        })
        .on(move |_: Call, _: ListCrashes| {
            let (past, bus) = (past.clone(), past_bus.clone());
            async move { past.crashes(&bus).await }
        })
}

/// Pools and volumes, once those that are here are known: a volume that isn't found then isn't there.
async fn volumes(view: &View) -> Result<Arc<Mutex<Volumes>>, CallError> {
    let mut steady = view.steady.clone();
    let waited = tokio::time::timeout(STEADY, steady.wait_for(|steady| *steady)).await;
    match waited {
        Ok(Ok(_)) => Ok(Arc::clone(&view.volumes)),
        _ => Err(CallError::busy("the pools are still being opened")),
    }
}

/// A volume's key is sealed by the node: no lasting node, no volume.
fn lasting(node: Option<(NodeId, bool)>) -> Result<(), CallError> {
    match node {
        Some((_, false)) => Ok(()),
        Some((_, true)) => Err(CallError::Failed {
            detail: "the node's identity is lost with the next boot, and volumes would be too"
                .to_owned(),
        }),
        None => Err(CallError::busy("the node's identity is not known yet")),
    }
}

/// In a task of its own: a caller that leaves doesn't stop half-way what it began, nor does SIGTERM
/// within the grace.
fn apart<T, W>(
    shutdown: &Shutdown,
    work: W,
) -> impl Future<Output = Result<T, CallError>> + use<T, W>
where
    T: Send + 'static,
    W: Future<Output = Result<T, CallError>> + Send + 'static,
{
    let task = shutdown.spawn_to_end(work);
    async move { task.await.map_err(|error| CallError::failed(&error))? }
}
