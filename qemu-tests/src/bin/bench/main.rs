//! `make bench`: what a boot and a VM cost, beside peers that did the same in the same run.
//!
//! ```text
//!  node     our image, direct kernel ─▶ phases, idle memory, each process's share, a VM's overhead
//!  inits    PID 1, s6 and runit, each with the same services
//!  disks    in a node: adoption, volumes by the hundred, a VM on each kind of volume beside dm-thin
//!  state    a durable write of the state on one disk and two, beside redb and fsync
//!  vms      in a node, turn by turn: zos-vmm | QEMU microvm | QEMU q35: boots, disk, network; isolation of neighbours
//!  debian   Debian's cloud kernel and stock systemd root, booted the same way
//!  image    sizes
//! ```
//!
//! Times under emulation say nothing by themselves; ratios do, and counts (exits) do always. Results go to
//! `target/bench/bench.json` and, as a table, to the terminal.
#![forbid(unsafe_code)]

mod debian;
mod disks;
mod figures;
mod inits;
mod node;
mod state;
mod vms;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use qemu_tests::{Scene, image};

use crate::figures::Figures;

/// What can be measured by itself.
const PARTS: [&str; 7] = ["image", "node", "state", "disks", "vms", "inits", "debian"];

/// Measures boot, memory, VMs and their peers, and shows them as a table.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Examples:\n  bench               everything, about 20 minutes under emulation\n  bench --runs 9      steadier medians of VM starts\n  bench --only inits  PID 1 beside s6 and runit alone\n  bench --no-debian   without the peer that has to be downloaded"
)]
struct Arguments {
    /// How often each VMM starts a VM.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these parts: image, node, state, disks, vms, inits, debian.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out Debian with systemd (its root is made with mmdebstrap, some 100 MB of packages).
    #[arg(long)]
    no_debian: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let dir = image::project().join("target/bench");
    let mut scene = Scene::new(&dir.join("machines"))?;
    let mut figures = Figures::default();
    if let Some(unknown) = arguments.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("there is no part {unknown}; known are {}", PARTS.join(", "));
    }
    let outcome = parts(arguments, &mut scene, &mut figures);
    // What was measured before a part failed isn't lost.
    let path = dir.join("bench.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&figures)?)
        .with_context(|| format!("write {}", path.display()))?;
    print!("{}", figures.table());
    println!("\n{}", path.display());
    outcome
}

/// All that is wanted, one after another.
fn parts(arguments: &Arguments, scene: &mut Scene, figures: &mut Figures) -> Result<()> {
    let wanted = |part: &str| arguments.only.is_empty() || arguments.only.iter().any(|p| p == part);
    if wanted("image") {
        figures::image(figures)?;
    }
    if wanted("node") {
        eprintln!("bench: a node boots");
        node::measure(scene, figures).context("measure a node")?;
    }
    if wanted("state") {
        state::measure(scene, figures).context("measure the state's writes")?;
    }
    if wanted("disks") {
        eprintln!("bench: disks, volumes, and VMs on them");
        disks::measure(scene, figures).context("measure disks")?;
    }
    if wanted("vms") {
        eprintln!("bench: {} VMs in a node, by each VMM", arguments.runs);
        vms::measure(scene, arguments.runs, figures).context("measure VMs")?;
    }
    if wanted("inits") {
        inits::measure(scene, figures).context("measure PID 1 and its peers")?;
    }
    if wanted("debian") && !arguments.no_debian {
        eprintln!("bench: Debian boots");
        debian::measure(scene, figures).context("measure Debian")?;
    }
    Ok(())
}
