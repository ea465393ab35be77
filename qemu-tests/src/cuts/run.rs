//! Many cuts of one recording, some at a time.
//!
//! ```text
//!  seed, number ─▶ Cut { entries of each log, seed }      sorted, so that each worker's media go forward only
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::chance::Chance;
use super::check::Bench;
use super::medium::Medium;
use super::recording::Recording;
use super::replay::{Flushes, durable, survivors};

/// Cuts at a time: most of one is waiting for mounts.
const WORKERS: usize = 4;

/// A cut.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cut {
    /// How many entries of each log were answered.
    pub at: Vec<usize>,
    /// Says what became of those behind the last flush.
    pub seed: u64,
    /// Its number in its run.
    pub number: u64,
}

/// A cut after which something was wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub cut: Cut,
    /// What the node was at, in words.
    pub during: String,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// The cut of a number.
#[must_use]
pub fn cut(recording: &Recording, seed: u64, number: u64) -> Cut {
    let mut chance = Chance::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let last = recording.moments.last().cloned().unwrap_or_default();
    let facts: Vec<_> =
        recording.facts.0.iter().filter_map(|f| Some((&f.begun, f.done.as_ref()?))).collect();
    let at = match chance.below(4) {
        // Right when something was acknowledged: nothing of it may be missing.
        0 if !facts.is_empty() => facts[chance.place(facts.len())].1.clone(),
        // While something was asked for.
        1 | 2 if !facts.is_empty() => {
            let (begun, done) = facts[chance.place(facts.len())];
            between(recording, begun, done, &mut chance)
        }
        _ => between(recording, &vec![0; last.len()], &last, &mut chance),
    };
    Cut { at, seed: chance.draw(), number }
}

/// A moment between two: of one disk any, of the others what they had then.
fn between(recording: &Recording, from: &[usize], to: &[usize], chance: &mut Chance) -> Vec<usize> {
    let disk = chance.place(from.len());
    let at = from[disk] + chance.place(to[disk].saturating_sub(from[disk]) + 1);
    let later = recording.moments.partition_point(|moment| moment[disk] < at);
    let high = recording.moments.get(later).or(recording.moments.last());
    let low = recording.moments.get(later.saturating_sub(1));
    let one = |other: usize| {
        let (low, high) = (low.map_or(0, |m| m[other]), high.map_or(0, |m| m[other]));
        low + chance.place(high.saturating_sub(low) + 1)
    };
    let mut moment: Vec<usize> = (0..from.len()).map(one).collect();
    moment[disk] = at;
    moment
}

/// Makes these cuts in a folder, and gives those after which something was wrong.
pub fn run(
    recording: &Recording,
    mut cuts: Vec<Cut>,
    flushes: Flushes,
    folder: &Path,
) -> Result<Vec<Finding>> {
    cuts.sort();
    let done = AtomicUsize::new(0);
    let share = cuts.len().div_ceil(WORKERS).max(1);
    let all = cuts.len();
    let mut findings = std::thread::scope(|scope| {
        let worker = |(number, cuts): (usize, Vec<Cut>)| {
            let done = &done;
            scope.spawn(move || -> Result<Vec<Finding>> {
                let folder = folder.join(format!("worker-{number}"));
                std::fs::create_dir_all(&folder).context("make a worker's folder")?;
                let mut worker = Worker::new(recording, &folder)?;
                let mut findings = Vec::new();
                for cut in cuts {
                    let wrong = worker.one(&cut, flushes);
                    let wrong = wrong.with_context(|| format!("cut {}", cut.number))?;
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if count.is_multiple_of(1000) {
                        println!("{count} of {all} cuts");
                    }
                    if !wrong.is_empty() {
                        let during = during(recording, &cut.at);
                        findings.push(Finding { cut, during, wrong });
                    }
                }
                Ok(findings)
            })
        };
        let chunks: Vec<Vec<Cut>> = cuts.chunks(share).map(<[Cut]>::to_vec).collect();
        let workers: Vec<_> = chunks.into_iter().enumerate().map(worker).collect();
        let mut findings = Vec::new();
        for worker in workers {
            findings.extend(worker.join().ok().context("a worker panicked")??);
        }
        Ok::<_, anyhow::Error>(findings)
    })?;
    findings.sort_by_key(|finding| finding.cut.number);
    Ok(findings)
}

/// What the node was at.
fn during(recording: &Recording, at: &[usize]) -> String {
    let under_way = recording.facts.0.iter().filter(|fact| {
        let begun = fact.begun.iter().zip(at).all(|(then, at)| then <= at);
        begun && fact.done.as_ref().is_none_or(|done| done.iter().zip(at).any(|(d, at)| d > at))
    });
    let words = under_way.map(|f| match &f.is {
        Some(is) => format!("{} becoming {is}", f.about),
        None => format!("{} going", f.about),
    });
    words.collect::<Vec<_>>().join(", ")
}

struct Worker<'a> {
    recording: &'a Recording,
    logs: Vec<(super::log::Log, std::fs::File)>,
    media: Vec<Medium>,
    images: Vec<PathBuf>,
    bench: Bench,
}

impl<'a> Worker<'a> {
    fn new(recording: &'a Recording, folder: &Path) -> Result<Self> {
        let media = recording.disks.iter().enumerate();
        let media =
            media.map(|(n, disk)| Medium::new(&folder.join(format!("{n}.base")), disk.size));
        Ok(Self {
            recording,
            logs: recording.logs()?,
            media: media.collect::<Result<_>>()?,
            images: (0..recording.disks.len()).map(|n| folder.join(format!("{n}.img"))).collect(),
            bench: Bench::at(folder),
        })
    }

    fn one(&mut self, cut: &Cut, flushes: Flushes) -> Result<Vec<String>> {
        for (disk, (log, file)) in self.logs.iter().enumerate() {
            let from = durable(&log.entries, cut.at[disk], flushes);
            let seed = cut.seed.wrapping_add(disk as u64);
            let more = survivors(&log.entries, from, cut.at[disk], seed);
            self.media[disk].forward(log, file, from)?;
            self.media[disk].cut(log, file, &more, &self.images[disk])?;
        }
        let found = self.bench.look(&self.images)?;
        for image in &self.images {
            std::fs::remove_file(image).context("remove an image")?;
        }
        let mut wrong = found.wrong;
        wrong.extend(self.recording.facts.judge(&cut.at, &found.is));
        Ok(wrong)
    }
}
