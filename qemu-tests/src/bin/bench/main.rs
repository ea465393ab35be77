//! `make bench`: what a boot and a VM cost, beside peers that did the same in the same run.
//!
//! ```text
//!  node     our image, direct kernel ─▶ phases, idle memory, each process's share, a VM's overhead
//!  vms      in that node, turn by turn: zos-vmm | QEMU microvm, same kernel, same initramfs
//!  debian   Debian's cloud kernel and stock systemd root, booted the same way
//!  image    sizes
//! ```
//!
//! Times under emulation say nothing by themselves; ratios do, and counts (exits) do always. Results go to
//! `target/bench/bench.json` and, as a table, to the terminal.
#![forbid(unsafe_code)]

mod debian;
mod figures;
mod node;
mod vms;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use qemu_tests::{Scene, image};

use crate::figures::Figures;

/// Measures boot, memory, VMs and their peers, and shows them as a table.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Examples:\n  bench               everything, about 10 minutes under emulation\n  bench --runs 9      steadier medians of VM starts\n  bench --no-debian   without the peer that has to be downloaded"
)]
struct Arguments {
    /// How often each VMM starts a VM.
    #[arg(long, default_value_t = 5)]
    runs: usize,
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
    figures::image(&mut figures)?;
    eprintln!("bench: a node boots");
    node::measure(&mut scene, &mut figures).context("measure a node")?;
    eprintln!("bench: {} VMs in a node, by each VMM", arguments.runs);
    vms::measure(&mut scene, arguments.runs, &mut figures).context("measure VMs")?;
    if !arguments.no_debian {
        eprintln!("bench: Debian boots");
        debian::measure(&mut scene, &mut figures).context("measure Debian")?;
    }
    let path = dir.join("bench.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&figures)?)
        .with_context(|| format!("write {}", path.display()))?;
    print!("{}", figures.table());
    println!("\n{}", path.display());
    Ok(())
}
