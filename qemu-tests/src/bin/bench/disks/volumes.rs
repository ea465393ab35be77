//! Volumes by the hundred: made, kept as snapshots, cloned, listed; and what storaged holds for them.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::stacks::dmsetup;
use super::{Bench, TWIN, volume};
use crate::figures::{Figures, float, mib};

/// How many of each.
const MANY: usize = 32;
/// Volumes in all.
const ALL: usize = 1000;
const SIZE: u64 = 16 << 20;

pub(super) fn measure(bench: &mut Bench, figures: &mut Figures) -> Result<()> {
    let few = memory(bench)?;
    for integrity in ["none", "detect", "repair"] {
        let name = format!("many/{integrity}-#");
        let rate = bench.rate("CreateVolume", MANY, volume(&name, SIZE, integrity))?;
        figures.add(&format!("volume, {integrity}: made in a second"), rate, "/s");
    }
    let origin = "many/none-0";
    let snapshots = bench.rate(
        "TakeSnapshot",
        MANY,
        json!({"twin": TWIN, "name": origin, "snapshot": "s#"}),
    )?;
    let peer = thin_snapshots(bench)?;
    figures.add("volume: snapshots in a second", snapshots, "/s").peer =
        Some(("dm-thin by dmsetup", peer));
    let mut clone = volume("many/clone-#", SIZE, "none");
    clone["from"] = format!("{origin}@s0").into();
    let clones = bench.rate("CreateVolume", MANY, clone)?;
    figures.add("volume: clones in a second", clones, "/s");
    let there = 4 * MANY + 3;
    let rest = bench.rate("CreateVolume", ALL - there, volume("rest/v#", SIZE, "none"))?;
    figures.add("volume: made in a second, up to 1,000", rest, "/s");
    let lists = bench.rate("ListVolumes", MANY, json!({}))?;
    figures.add("volume: lists of 1,000 in a second", lists, "/s");
    let all = memory(bench)?;
    figures.add("storaged: PSS with 3 volumes", few, "MiB");
    figures.add("storaged: PSS with 1,000 volumes", all, "MiB").peer = Some(("with 3", few));
    Ok(())
}

/// What storaged's process holds, in MiB.
fn memory(bench: &mut Bench) -> Result<f64> {
    let processes = bench.machine.probe()?.processes()?;
    let storaged = processes.iter().find(|process| process["name"] == "storaged");
    let kib = storaged.and_then(|process| process["pss"].as_u64()).context("storaged runs")?;
    Ok(mib(kib << 10))
}

/// Snapshots of the peer a second: each is a message, which suspends nothing while the origin is idle.
fn thin_snapshots(bench: &mut Bench) -> Result<f64> {
    let start = std::time::Instant::now();
    for number in 1..=MANY {
        dmsetup(bench, &["suspend", "thin"])?;
        let message = format!("create_snap {number} 0");
        dmsetup(bench, &["message", "pool", "0", &message])?;
        dmsetup(bench, &["resume", "thin"])?;
    }
    Ok(float(MANY as u64) / start.elapsed().as_secs_f64())
}
