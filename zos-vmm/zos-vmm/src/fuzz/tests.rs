//! Each target over a fixed series of inputs: the same ones on each run.

use super::TARGETS;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::path::Path;

/// Inputs for each target.
const INPUTS: usize = 300;
const LONGEST: usize = 2048;

#[test]
fn targets_stand_a_series_of_inputs() {
    use proptest::prelude::Rng as _;
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

/// Inputs that once broke something, or lead deep: `fuzz/corpus/<target>/`.
#[test]
fn targets_stand_what_was_kept() {
    for (name, target) in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let Ok(files) = std::fs::read_dir(dir) else { continue };
        for file in files {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
        }
    }
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
