//! Many cuts of one recording, some at a time.
//!
//! ```text
//!  seed, number ─▶ Cut { entries of each log, seed }      sorted, so that each worker's media go forward only
//!
//!  a cut ─▶ boot with all disks ─▶ judge                                    and where the node could do without a disk:
//!       └─▶ boot without it ─▶ judge, one write more ─▶ boot with it again, as the cut left it ─▶ judge
//! ```

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::chance::Chance;
use super::check::{Bench, Found, Image};
use super::facts::{About, numbers};
use super::medium::Medium;
use super::order::Order;
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
pub fn cut(order: &Order, seed: u64, number: u64) -> Cut {
    let mut chance = Chance::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    Cut { at: order.draw(&mut chance), seed: chance.draw(), number }
}

/// What cuts came to.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Those after which something was wrong.
    pub findings: Vec<Finding>,
    /// How many boots were made of them.
    pub boots: usize,
}

/// Makes these cuts in a folder, and gives those after which something was wrong.
pub fn run(
    recording: &Recording,
    mut cuts: Vec<Cut>,
    flushes: Flushes,
    folder: &Path,
) -> Result<Outcome> {
    cuts.sort();
    let done = AtomicUsize::new(0);
    let share = cuts.len().div_ceil(WORKERS).max(1);
    let all = cuts.len();
    let mut outcome = std::thread::scope(|scope| {
        let worker = |(number, cuts): (usize, Vec<Cut>)| {
            let done = &done;
            scope.spawn(move || -> Result<Outcome> {
                let folder = folder.join(format!("worker-{number}"));
                std::fs::create_dir_all(&folder).context("make a worker's folder")?;
                let mut worker = Worker::new(recording, &folder)?;
                let mut outcome = Outcome::default();
                for cut in cuts {
                    let wrong = worker.one(&cut, flushes, &mut outcome);
                    let wrong = wrong.with_context(|| format!("cut {}", cut.number))?;
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if count.is_multiple_of(1000) {
                        println!("{count} of {all} cuts");
                    }
                    if !wrong.is_empty() {
                        let during = during(recording, &cut.at);
                        outcome.findings.push(Finding { cut, during, wrong });
                    }
                }
                Ok(outcome)
            })
        };
        let chunks: Vec<Vec<Cut>> = cuts.chunks(share).map(<[Cut]>::to_vec).collect();
        let workers: Vec<_> = chunks.into_iter().enumerate().map(worker).collect();
        let mut all = Outcome::default();
        for worker in workers {
            let outcome = worker.join().ok().context("a worker panicked")??;
            all.findings.extend(outcome.findings);
            all.boots += outcome.boots;
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    outcome.findings.sort_by_key(|finding| finding.cut.number);
    Ok(outcome)
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
    media: Vec<RefCell<Medium>>,
    images: Vec<Image>,
    bench: Bench,
}

impl<'a> Worker<'a> {
    fn new(recording: &'a Recording, folder: &Path) -> Result<Self> {
        let media = recording.disks.iter().enumerate();
        let media =
            media.map(|(n, disk)| Medium::new(&folder.join(format!("{n}.base")), disk.size));
        let media = media.map(|medium| medium.map(RefCell::new));
        Ok(Self {
            recording,
            logs: recording.logs()?,
            media: media.collect::<Result<_>>()?,
            images: (0..recording.disks.len())
                .map(|number| Image { number, path: folder.join(format!("{number}.img")) })
                .collect(),
            bench: Bench::at(folder),
        })
    }

    fn one(&mut self, cut: &Cut, flushes: Flushes, outcome: &mut Outcome) -> Result<Vec<String>> {
        let all: Vec<usize> = (0..self.images.len()).collect();
        all.iter().try_for_each(|disk| self.lay(*disk, cut, flushes))?;
        let facts = &self.recording.facts;
        let found = self.bench.look(&self.images)?;
        outcome.boots += 1;
        let mut wrong = self.judge(cut, &found, None);
        let mut missed = all;
        missed.retain(|disk| facts.may_miss(&cut.at, *disk));
        if !missed.is_empty() {
            let away = missed[Chance::new(cut.seed).place(missed.len())];
            outcome.boots += 2;
            wrong.extend(self.without(away, cut, flushes)?);
        }
        for image in &self.images {
            std::fs::remove_file(&image.path).context("remove an image")?;
        }
        Ok(wrong)
    }

    /// A boot without a disk that the node can do without, and one more with that disk as the cut left it.
    fn without(&self, away: usize, cut: &Cut, flushes: Flushes) -> Result<Vec<String>> {
        (0..self.images.len()).try_for_each(|disk| self.lay(disk, cut, flushes))?;
        let here: Vec<Image> =
            self.images.iter().filter(|image| image.number != away).cloned().collect();
        let others = numbers(here.iter().map(|image| image.number));
        let mut wrong = Vec::new();
        let mut boot = |images: &[Image], gone: Option<usize>, boots: u32| -> Result<()> {
            let found = self.bench.look(images)?;
            let with = if gone.is_some() { "without" } else { "again with" };
            let mut said = self.judge(cut, &found, Some(away).filter(|_| gone.is_some()));
            if gone.is_none() {
                // It went on alone, and says so.
                said.retain(|word| !word.starts_with(&About::Copies.to_string()));
            }
            if found.is.get(&About::Copies) != Some(&others) {
                said.push(format!("{others} does not lead: {:?}", found.is.get(&About::Copies)));
            }
            if found.boots != boots {
                said.push(format!(
                    "the book knows of {} boots, and there were {boots}",
                    found.boots
                ));
            }
            wrong.extend(said.into_iter().map(|word| format!("{with} disk {away}: {word}")));
            Ok(())
        };
        boot(&here, Some(away), 0)?;
        boot(&self.images, None, 1)?;
        Ok(wrong)
    }

    /// Lays a disk down as a cut leaves it.
    fn lay(&self, disk: usize, cut: &Cut, flushes: Flushes) -> Result<()> {
        let (log, file) = &self.logs[disk];
        let from = durable(&log.entries, cut.at[disk], flushes.of(disk));
        let seed = cut.seed.wrapping_add(disk as u64);
        let more = survivors(&log.entries, from, cut.at[disk], seed);
        let mut medium = self.media[disk].borrow_mut();
        medium.forward(log, file, from)?;
        medium.cut(log, file, &more, &self.images[disk].path)
    }

    fn judge(&self, cut: &Cut, found: &Found, away: Option<usize>) -> Vec<String> {
        let facts = &self.recording.facts;
        let mut wrong = found.wrong.clone();
        let mut is = found.is.clone();
        for (about, why) in &found.broken {
            if facts.may_be_broken(&cut.at, about, away) {
                is.remove(about);
            } else {
                wrong.push(format!("{about} can't be used: {why}"));
            }
        }
        wrong.extend(facts.judge(&cut.at, &is, away));
        wrong
    }
}
