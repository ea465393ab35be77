//! Each target over a fixed series of inputs: the same ones on each run.

use super::TARGETS;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::path::Path;

/// Inputs for each target.
const INPUTS: usize = 300;
const LONGEST: usize = 2048;

#[test]
fn targets_stand_a_series_of_inputs() {
    for (name, target) in TARGETS {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for number in 0..INPUTS {
            let mut bytes = vec![0; LONGEST * number / INPUTS];
            rng.fill_bytes(&mut bytes);
            eprintln!("{name} {number}");
            target(&bytes);
        }
    }
}

/// Inputs that once broke something, or lead deep: `fuzz/corpus/<target>/`, as they are and changed a little.
#[test]
fn targets_stand_what_was_kept() {
    for (name, target) in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let Ok(files) = std::fs::read_dir(dir) else { continue };
        for file in files {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            let kept = std::fs::read(&path).unwrap();
            target(&kept);
            let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            (0..INPUTS).for_each(|_| target(&changed(&kept, &mut rng)));
        }
    }
}

/// A few bytes changed, left out or put in.
fn changed(kept: &[u8], rng: &mut TestRng) -> Vec<u8> {
    let mut bytes = kept.to_vec();
    for _ in 0..=rng.next_u32() % 4 {
        let at = rng.next_u32() as usize % (bytes.len() + 1);
        let [what, value, ..] = rng.next_u32().to_le_bytes();
        match what % 4 {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] = value,
            _ => bytes.insert(at, value),
        }
    }
    bytes
}

/// `make fuzz` knows every target, and no other.
#[test]
fn every_target_has_its_program() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let programs: Vec<&str> = manifest
        .lines()
        .skip_while(|line| *line != "[[bin]]")
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(programs, names);
}
