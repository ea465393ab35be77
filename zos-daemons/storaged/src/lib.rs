//! storaged: disks, pools, the place of the node's state, volumes.
//!
//! ```text
//!  uevents ─▶ life ─▶ keeper ─▶ jobs: probe, sample, adopt, open, own, prepare
//!               │        │
//!               │        └─ settle (when is it decided?)    disk::judge (what is on it?)
//!               ├─ Seen ─▶ care: health, scrubs, room, rest
//!               └─ View ─▶ calls: Settle, ListDisks, volumes ...
//!                       └▶ past: how the last run ended, crashes
//! ```
//! Decisions are pure (`settle`, `keeper`, `disk`, `volume::place`); `pool`, `state` and
//! `volume::{files, device}` change the machine. Absent on purpose: an unmount at the end. PID 1
//! stops the VMs first and unmounts then, and a storaged that is started again finds all as it was.
#![forbid(unsafe_code)]

pub mod adopt;
mod boot_medium;
mod calls;
pub mod care;
pub mod copies;
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
pub mod superblock;
pub mod volume;

use std::sync::Arc;

use zos_daemon::Daemon;

use crate::calls::Calls;
use crate::care::Care;
use crate::keeper::Keeper;
use crate::life::Life;
use crate::machine::Machine;
use crate::past::Past;
pub use crate::places::Places;

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
        [&places.state, &places.mirror].map(|place| place.to_string_lossy().into_owned()),
        life::remembered(&places),
    );
    let faults = daemon.faults.clone();
    let care = Care::new(daemon.config());
    let (life, view, care) = Life::new(keeper, care, places.clone(), Arc::clone(&machine), faults);
    let past = Past::new(&places, view.settled.clone()).in_each(view.copies.clone());
    let bus = daemon.bus.clone();
    let calls = Calls {
        view: view.clone(),
        past: past.clone(),
        bus: bus.clone(),
        shutdown: daemon.shutdown.clone(),
    };
    let router = calls::router(&calls);
    metrics::count(&daemon.metrics, &view);
    // Not bound to the way down: calls that are still answered then may need it.
    tokio::spawn(life.run());
    tokio::spawn(care.run());
    tokio::spawn(past.clone().begin(bus.clone()));
    tokio::spawn(view.volumes.clone().care());
    tokio::spawn(past.clone().join(view.news.clone()));
    tokio::select! {
        served = daemon.serve(router) => served?,
        ended = machine.watch(view.news) => return ended,
    }
    past.end(&bus).await;
    Ok(())
}
