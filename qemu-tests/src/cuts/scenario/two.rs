//! A node with two disks: the state's second copy comes, is lost and comes back.
//!
//! ```text
//!  disk 0   state ─────────┬─ both ──────────────┬─ alone ─────────────┬─ both ──────── off
//!  disk 1       plugged in ┘   volumes on both   └ taken out    put in ┘ (filled)
//!           deployments come, change and go                deployments
//!                              a VM writes and syncs on a volume with two copies
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use zos_types::volume::VolumeState;

use super::{Run, Storage, deployments, guest, numbers, of, put, volume};
use crate::cuts::facts::About;
use crate::probe::Probe;

/// What must be looked at and mended on an emulated node: storaged looks after mirrors each half a minute.
const PATIENCE: Duration = Duration::from_secs(300);
/// The disk that comes, goes and comes back.
const SECOND: &str = "disk-1";

pub(super) fn go(run: &mut Run) -> Result<()> {
    let Run { recorder, node, api, twin, direct } = run;
    std::thread::scope(|threads| -> Result<()> {
        let churn = threads.spawn(|| deployments(recorder, api, *twin, 2));
        let copies = recorder.ask(About::Copies, Some("0+1".into()))?;
        node.plug(SECOND)?;
        wait_copies(node.probe()?, 2)?;
        recorder.done(&copies)?;
        let mut storage = Storage { recorder, probe: node.probe()?, twin: *direct };
        for (round, integrity) in ["none", "repair", "repair"].into_iter().enumerate() {
            volume(&mut storage, round, integrity)?;
        }
        churn.join().ok().context("the twin's thread panicked")?
    })?;
    let guest = guest(recorder, node, api, *twin, "repair")?;
    numbers(recorder, node, guest, *twin, 3)?;

    let data = of("hello", "data")?;
    let copies = recorder.ask(About::Copies, Some("0".into()))?;
    // When its record says so nobody is told; until the disk is back either may be.
    recorder.ask(About::Legs(*twin, data.clone()), Some("0".into()))?;
    node.unplug(SECOND)?;
    wait_copies(node.probe()?, 1)?;
    recorder.done(&copies)?;
    put(recorder, api, *twin, "apart", &["a"])?;
    numbers(recorder, node, guest, *twin, 3)?;
    put(recorder, api, *twin, "apart", &["a", "b"])?;

    let copies = recorder.ask(About::Copies, Some("0+1".into()))?;
    let legs = recorder.ask(About::Legs(*twin, data), Some("0+1".into()))?;
    node.plug(SECOND)?;
    wait_copies(node.probe()?, 2)?;
    recorder.done(&copies)?;
    put(recorder, api, *twin, "again", &["a"])?;
    wait_mirror(node.probe()?)?;
    recorder.done(&legs)?;
    numbers(recorder, node, guest, *twin, 3)?;
    put(recorder, api, *twin, "again", &["a", "b"])
}

/// Waits until the state has so many copies with all of it, and no other.
fn wait_copies(probe: &mut Probe, count: usize) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let time = (1, Duration::from_secs(2));
        let told = probe.watch("storage", "org.zos.Storage.WatchState", json!({}), time)?;
        let copies = told.last().and_then(|told| told["copies"].as_array().cloned());
        let copies = copies.unwrap_or_default();
        if copies.len() == count && copies.iter().all(|copy| copy["current"] == true) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the state's copies are {copies:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until the guest's volume has two whole copies.
fn wait_mirror(probe: &mut Probe) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let listed = probe.varlink("storage", "org.zos.Storage.ListVolumes", json!({}))?;
        let listed: zos_api::local::storage::Volumes = serde_json::from_value(listed)?;
        let data =
            listed.volumes.into_iter().find(|volume| volume.name.to_string() == "hello/data");
        let condition = data.context("the guest's volume is there")?.condition;
        if condition.state == VolumeState::Ready {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the guest's volume is not whole: {condition:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
