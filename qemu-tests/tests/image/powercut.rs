//! Power cuts at any moment of a node's life: nothing acknowledged is lost, nothing is unreadable, nothing is half there.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::cuts::recording::Recording;
use qemu_tests::cuts::replay::Flushes;
use qemu_tests::cuts::run::{self, Cut, Finding};
use qemu_tests::cuts::{check, failed, place, scenario};
use qemu_tests::scene;

/// Cuts of one recording. `make powercut` makes as many as one likes.
const CUTS: u64 = 300;
/// Cuts of the same on a disk that forgets what it has flushed.
const LIES: u64 = 40;

fn cuts(recording: &Recording, seed: u64, count: u64, flushes: Flushes) -> Result<Vec<Finding>> {
    let cuts: Vec<Cut> = (0..count).map(|number| run::cut(recording, seed, number)).collect();
    run::run(recording, cuts, flushes, place()?.path())
}

fn words(findings: &[Finding]) -> String {
    let one =
        |finding: &Finding| format!("{:?} {}: {:?}", finding.cut, finding.during, finding.wrong);
    findings.iter().take(10).map(one).collect::<Vec<_>>().join("\n")
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

        let found = cuts(&recording, 1, CUTS, Flushes::Honest)?;
        ensure!(found.is_empty(), "{} of {CUTS} cuts:\n{}", found.len(), words(&found));
        let again = failed::again(&recording).into_iter().map(|(cut, _)| cut).collect();
        let found = run::run(&recording, again, Flushes::Honest, place()?.path())?;
        ensure!(found.is_empty(), "what failed once fails again:\n{}", words(&found));

        // The test of the test: where flushes do nothing, as on a disk that lies or behind a program that forgets to ask, the
        // same cuts find what is lost.
        for window in [30, 300] {
            let found = cuts(&recording, 1, LIES, Flushes::Ignored(window))?;
            println!(
                "without flushes {} of {LIES} cuts find a loss in the last {window} writes",
                found.len()
            );
            ensure!(!found.is_empty(), "no cut finds that {window} flushes were ignored");
        }
        Ok(())
    });
}
