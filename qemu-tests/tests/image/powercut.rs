//! Power cuts at any moment of a node's life: nothing acknowledged is lost, nothing is unreadable, nothing is half there.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::cuts::chance::Chance;
use qemu_tests::cuts::facts::{About, Fact};
use qemu_tests::cuts::order::Order;
use qemu_tests::cuts::recording::Recording;
use qemu_tests::cuts::replay::Flushes;
use qemu_tests::cuts::run::{self, Cut, Finding, Outcome};
use qemu_tests::cuts::{check, failed, place, scenario};
use qemu_tests::scene;

/// Cuts of one recording. `make powercut` makes as many as one likes.
const CUTS: u64 = 300;
/// Cuts of the same on a disk that forgets what it has flushed.
const LIES: u64 = 40;

/// Cuts of a recording of two disks: about three boots each.
const OF_TWO: u64 = 100;

/// Cuts of the same before its second copy was whole.
const HASTY: u64 = 12;

fn cuts(recording: &Recording, seed: u64, count: u64, flushes: Flushes) -> Result<Outcome> {
    let order = Order::of(recording)?;
    let cuts: Vec<Cut> = (0..count).map(|number| run::cut(&order, seed, number)).collect();
    run::run(recording, cuts, flushes, place()?.path())
}

fn words(findings: &[Finding]) -> String {
    let one =
        |finding: &Finding| format!("{:?} {}: {:?}", finding.cut, finding.during, finding.wrong);
    findings.iter().take(10).map(one).collect::<Vec<_>>().join("\n")
}

/// So many cuts, and what failed once: nothing may be wrong.
fn lose_nothing(recording: &Recording, count: u64) -> Result<()> {
    let done = cuts(recording, 1, count, Flushes::Honest)?;
    println!("{count} cuts, {} boots", done.boots);
    ensure!(
        done.findings.is_empty(),
        "{} of {count} cuts:\n{}",
        done.findings.len(),
        words(&done.findings)
    );
    let again = failed::again(recording, &Order::of(recording)?);
    let again = again.into_iter().map(|(cut, _)| cut).collect();
    let done = run::run(recording, again, Flushes::Honest, place()?.path())?;
    ensure!(done.findings.is_empty(), "what failed once fails again:\n{}", words(&done.findings));
    Ok(())
}

/// The test of the test: where flushes do nothing, as on a disk that lies or behind a program that forgets to ask, the
/// same cuts find what is lost.
fn find_lies(recording: &Recording, count: u64, flushes: Flushes) -> Result<()> {
    let found = cuts(recording, 1, count, flushes)?.findings;
    println!("{flushes:?}: {} of {count} cuts find a loss", found.len());
    ensure!(!found.is_empty(), "no cut finds that flushes were ignored: {flushes:?}");
    Ok(())
}

#[test]
fn three_hundred_cuts_lose_nothing_and_a_lying_disk_is_found_out() {
    if let Err(why) = check::possible() {
        println!("skipped: it {why}");
        return;
    }
    scene("powercut", |scene| {
        let recording = scenario::record(scene, 1)?;
        let entries = recording.moments.last().context("the log has an end")?[0];
        ensure!(entries > 500, "hardly anything was written: {entries} entries");
        recording.save(scene.dir())?;
        lose_nothing(&recording, CUTS)?;
        find_lies(&recording, LIES, Flushes::Ignored(30))?;
        find_lies(&recording, LIES, Flushes::Ignored(300))
    });
}

#[test]
fn cuts_of_two_disks_lose_nothing_and_either_disk_that_lies_is_found_out() {
    if let Err(why) = check::possible() {
        println!("skipped: it {why}");
        return;
    }
    scene("powercut-two", |scene| {
        let recording = scenario::record(scene, 2)?;
        let entries = recording.moments.last().context("the logs have an end")?;
        ensure!(entries.iter().all(|n| *n > 500), "hardly anything was written: {entries:?}");
        recording.save(scene.dir())?;
        lose_nothing(&recording, OF_TWO)?;
        for disk in 0..2 {
            find_lies(&recording, LIES / 2, Flushes::IgnoredBy(disk, 300))?;
        }

        // A second copy that is told whole before it is: without the first disk there is nothing to boot from.
        let order = Order::of(&recording)?;
        let mut hasty = recording;
        let second =
            |fact: &&mut Fact| fact.about == About::Copies && fact.is.as_deref() == Some("0+1");
        let fact = hasty.facts.0.iter_mut().find(second).context("the second copy came")?;
        let done = fact.done.replace(fact.begun.clone()).context("it was whole in the end")?;
        let (from, to) = (fact.begun[0], done[0]);
        let early = (0..HASTY).map(|number| {
            let at = from + (to - from) * usize::try_from(number)? / usize::try_from(HASTY)?;
            Ok(Cut { at: order.with(0, at, &mut Chance::new(number)), seed: number, number })
        });
        let early = early.collect::<Result<Vec<_>>>()?;
        let found = run::run(&hasty, early, Flushes::Honest, place()?.path())?.findings;
        println!("told whole too early: {} of {HASTY} cuts find it", found.len());
        ensure!(!found.is_empty(), "no cut finds that a copy was told whole before it was");
        Ok(())
    });
}
