//! Cuts that once found something wrong, tried again on each recording.
//!
//! Recordings differ from run to run, so a cut is told by the step that was under way and how far it was, in thousandths
//! of its entries; a few entries around that place are tried, too.

use super::chance::Chance;
use super::facts::Fact;
use super::order::Order;
use super::recording::Recording;
use super::run::Cut;

/// A cut that failed once.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Of how many disks the recording was.
    pub disks: usize,
    /// By which of them the place is told.
    pub disk: usize,
    /// The step, as [`step`] writes it.
    pub step: &'static str,
    /// How far it was.
    pub part: usize,
    /// What became of what was pending.
    pub seed: u64,
    /// What was wrong.
    pub found: &'static str,
}

/// All of them.
pub const FAILED: &[Failed] = &[
    Failed {
        disks: 1,
        disk: 0,
        step: "volume direct/v3 going",
        part: 300,
        seed: 15_137_155_071_961_474_719,
        found: "the sweep left a volume's record.new",
    },
    Failed {
        disks: 1,
        disk: 0,
        step: "volume hello/data becoming 1073741824",
        part: 600,
        seed: 4_863_682_721_831_212_303,
        found: "the sweep left a volume's record.new",
    },
    Failed {
        disks: 1,
        disk: 0,
        step: "volume direct/v0 becoming 4194304",
        part: 405,
        seed: 7_101_304_772_362_851_874,
        found: "btrfs's superblock torn by 512 bytes: the pool could not be mounted, the node had no key",
    },
    Failed {
        disks: 2,
        disk: 0,
        step: "volume direct/c1 becoming 12582912",
        part: 857,
        seed: 8_867_285_529_627_868_617,
        found: "a volume of two copies was there on one of them alone, said that it was whole, and could not be opened",
    },
    Failed {
        disks: 2,
        disk: 0,
        step: "mirror hello/data becoming 0+1",
        part: 977,
        seed: 16_712_741_124_281_662_149,
        found: "a copy was noted as whole again before the other's record let go of it: both were taken for used apart",
    },
];

/// Entries tried on each side of the place.
const AROUND: usize = 12;
/// Every so many of them with two disks, where a cut takes three boots.
const APART: usize = 3;

/// A step's name, the same in each recording.
#[must_use]
pub fn step(fact: &Fact) -> String {
    let about = fact.about.to_string();
    // Twins are others in each run.
    let about = about.split(" of ").next().unwrap_or_default();
    match &fact.is {
        Some(is) => format!("{about} becoming {is}"),
        None => format!("{about} going"),
    }
}

/// How far a step was at a cut by one of the disks, in thousandths; none: it was not under way there.
#[must_use]
pub fn part(fact: &Fact, at: &[usize], disk: usize) -> Option<usize> {
    let (begun, done) = (fact.begun.get(disk)?, fact.done.as_ref()?.get(disk)?);
    let at = at.get(disk)?;
    (begun <= at && at <= done && begun < done).then(|| (at - begun) * 1000 / (done - begun))
}

/// The cuts of the table for a recording of so many disks.
#[must_use]
pub fn again(recording: &Recording, order: &Order) -> Vec<(Cut, &'static Failed)> {
    let mut cuts = Vec::new();
    for failed in FAILED.iter().filter(|failed| failed.disks == recording.disks.len()) {
        for fact in recording.facts.0.iter().filter(|fact| step(fact) == failed.step) {
            let Some(done) = &fact.done else { continue };
            let (begun, done) = (fact.begun[failed.disk], done[failed.disk]);
            let step = if failed.disks > 1 { APART } else { 1 };
            for shift in (0..=2 * AROUND).step_by(step) {
                let place = begun + done.saturating_sub(begun) * failed.part / 1000 + shift;
                let place = place.saturating_sub(AROUND).clamp(begun, done);
                let at = order.with(failed.disk, place, &mut Chance::new(failed.seed));
                cuts.push((Cut { at, seed: failed.seed, number: cuts.len() as u64 }, failed));
            }
        }
    }
    cuts
}
