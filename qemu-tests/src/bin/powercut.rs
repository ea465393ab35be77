//! Cuts a recorded node's power many times: `make powercut`.
//!
//! ```text
//!  one disk, then two: recorded once, kept in target/qemu-tests/powercut-DISKS
//!                           └─▶ cuts FROM .. FROM + RUNS of SEED ─▶ score, where to go on
//! ```

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use qemu_tests::cuts::order::Order;
use qemu_tests::cuts::recording::Recording;
use qemu_tests::cuts::replay::Flushes;
use qemu_tests::cuts::run::{self, Cut};
use qemu_tests::cuts::{check, failed, place, scenario};
use qemu_tests::{Scene, image};

/// What to do.
#[derive(Debug, Parser)]
struct Options {
    /// How many cuts; of two disks a tenth, unless they are asked for.
    #[arg(long, env = "POWERCUT_RUNS", default_value_t = 10_000)]
    runs: u64,
    /// Of which series.
    #[arg(long, env = "POWERCUT_SEED", default_value_t = 1)]
    seed: u64,
    /// The first of them; else the one behind the last run's.
    #[arg(long, env = "POWERCUT_FROM")]
    from: Option<u64>,
    /// All of them at this entry of each log, to look at one place closely.
    #[arg(long, env = "POWERCUT_AT", value_delimiter = ',')]
    at: Vec<usize>,
    /// Records anew, even if there is a recording.
    #[arg(long, env = "POWERCUT_RECORD")]
    record: bool,
    /// The disks of the node: 1 or 2; else one and then the other.
    #[arg(long, env = "POWERCUT_DISKS")]
    disks: Option<usize>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Err(why) = check::possible() {
        bail!("cuts of the power can't be looked at here: it {why}");
    }
    let findings = match options.disks {
        Some(disks) => cut(&options, disks, options.runs)?,
        None => cut(&options, 1, options.runs)? + cut(&options, 2, options.runs.div_ceil(10))?,
    };
    ensure!(findings == 0, "{findings} cuts with faults");
    Ok(())
}

/// So many cuts of a node with so many disks; gives how many of them found something.
fn cut(options: &Options, disks: usize, runs: u64) -> Result<usize> {
    let folder = image::project().join(format!("target/qemu-tests/powercut-{disks}"));
    let recording = recording(options, disks, &folder)?;
    let order = Order::of(&recording)?;
    let mark = folder.join(format!("next-{}", options.seed));
    let before = std::fs::read_to_string(&mark).ok().and_then(|text| text.trim().parse().ok());
    let from: u64 = options.from.or(before).unwrap_or(0);
    let cut = |number| {
        let cut = run::cut(&order, options.seed, number);
        if options.at.is_empty() { cut } else { Cut { at: options.at.clone(), ..cut } }
    };
    let cuts: Vec<Cut> = (from..from + runs).map(cut).collect();
    let begun = Instant::now();
    let scratch = place()?;
    let outcome = run::run(&recording, cuts, Flushes::Honest, scratch.path())?;
    if options.at.is_empty() && options.from.is_none() {
        std::fs::write(&mark, (from + runs).to_string())?;
    }
    for finding in &outcome.findings {
        println!(
            "POWERCUT_DISKS={} POWERCUT_SEED={} POWERCUT_FROM={} POWERCUT_RUNS=1",
            disks, options.seed, finding.cut.number
        );
        println!(
            "    at {:?}, seed {}, during: {}",
            finding.cut.at, finding.cut.seed, finding.during
        );
        for fact in &recording.facts.0 {
            for disk in 0..disks {
                if let Some(part) = failed::part(fact, &finding.cut.at, disk) {
                    println!("    disk {disk}, step {:?}, part {part}", failed::step(fact));
                }
            }
        }
        finding.wrong.iter().for_each(|wrong| println!("    {wrong}"));
    }
    println!(
        "{disks} disks: {} cuts ({from}.. of seed {}) of {:?} entries, {} boots in {} s: {} with faults",
        runs,
        options.seed,
        recording.moments.last(),
        outcome.boots,
        begun.elapsed().as_secs(),
        outcome.findings.len()
    );
    Ok(outcome.findings.len())
}

fn recording(options: &Options, disks: usize, folder: &Path) -> Result<Recording> {
    if !options.record
        && let Some(kept) = Recording::load(folder)?
    {
        return Ok(kept);
    }
    let mut scene = Scene::new(folder)?;
    let recording = scenario::record(&mut scene, disks)?;
    recording.save(folder)?;
    Ok(recording)
}
