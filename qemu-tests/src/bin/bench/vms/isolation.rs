//! A quiet VM's delays beside a neighbour that takes all it can get, over its delays alone.
//!
//! ```text
//!  /tenants/bench-a/vm   the victim: timer, disk, network, round after round
//!  /tenants/bench-b/vm   cpu | disk | net | memory | console, one after another
//! ```
//!
//! Each stands in the cgroup of a twin, as PID 1 makes them. Under emulation the cores are emulated, too: ratios that
//! say where to look, and no more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::SOON;
use serde_json::Value;

use super::pack::KERNEL;
use super::{Bench, Vm, Way, parse};
use crate::figures::{Figures, median};

const NEIGHBOURS: [&str; 5] = ["cpu", "disk", "net", "memory", "console"];
const FELT: [&str; 3] = ["timer", "disk", "network"];
/// Whole rounds of the victim of which the middle one counts.
const ROUNDS: usize = 3;

pub(crate) fn measure(bench: &mut Bench, figures: &mut Figures) -> Result<()> {
    let vm = |number: usize, orders: &str, bench: &Bench| Vm {
        kernel: KERNEL,
        memory: 128,
        orders: format!("{orders} address=10.77.0.{}/24 to=10.77.0.1 seconds=2", number + 2),
        disk: Some(bench.disks[number].clone()),
        tap: Some(number),
    };
    let victim = vm(0, "role=victim", bench);
    let victim = bench.launch("victim", Way::Ours, &victim)?;
    admit(bench, "a", victim)?;
    bench.told("victim", "{")?;
    let alone = delays(bench)?;
    for (what, micros) in FELT.iter().zip(alone) {
        figures.add(&format!("isolation: p99 alone, {what}"), micros, "us");
    }
    for kind in NEIGHBOURS {
        let neighbour = vm(1, &format!("role={kind}"), bench);
        let pid = bench.launch("neighbour", Way::Ours, &neighbour)?;
        admit(bench, "b", pid)?;
        bench.told("neighbour", "\"hostile\"")?;
        let beside = delays(bench)?;
        ensure!(
            bench.machine.probe()?.read(&format!("/proc/{pid}/status"))?.contains("zos-vmm"),
            "the neighbour {kind} is gone"
        );
        bench.end("neighbour", pid)?;
        for ((what, beside), alone) in FELT.iter().zip(beside).zip(alone) {
            figures.add(&format!("isolation: {what} beside {kind}"), beside / alone, "x").goal =
                Some(1.2);
        }
    }
    bench.end("victim", victim)
}

/// Puts a VM's process into the cgroup of a twin.
fn admit(bench: &mut Bench, twin: &str, pid: u64) -> Result<()> {
    let probe = bench.machine.probe()?;
    let group = format!("/sys/fs/cgroup/tenants/bench-{twin}");
    probe.make_dir(&format!("{group}/vm"))?;
    probe.write(&format!("{group}/vm/cgroup.procs"), &pid.to_string())
}

/// The victim's p99 of each kind in microseconds, over rounds that begin from now on.
fn delays(bench: &mut Bench) -> Result<[f64; 3]> {
    let before = rounds(bench)?.len();
    let end = Instant::now() + 4 * SOON;
    loop {
        let now = rounds(bench)?;
        // The round that was under way doesn't count.
        if let Some(whole) = now.get(before + 1..before + 1 + ROUNDS) {
            let p99 = |what: &str| -> Result<f64> {
                let values = whole.iter().map(|round| {
                    round[what]["p99"].as_f64().with_context(|| format!("no {what} in {round}"))
                });
                Ok(median(values.collect::<Result<_>>()?).max(1.0))
            };
            return Ok([p99(FELT[0])?, p99(FELT[1])?, p99(FELT[2])?]);
        }
        ensure!(Instant::now() < end, "the victim tells nothing any more");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn rounds(bench: &mut Bench) -> Result<Vec<Value>> {
    let said = bench.machine.probe()?.tail("victim", 32 << 10)?;
    let rounds: Vec<Value> = said.lines().filter_map(parse).collect();
    match rounds.iter().find_map(|round| round["error"].as_str()) {
        Some(error) => anyhow::bail!("the victim: {error}"),
        None => Ok(rounds),
    }
}
