//! Unit files of any content: refused by line or taken, never a panic; what is taken stands in an order that can be
//! started.
#![no_main]
#![allow(dead_code, unreachable_pub, unused_imports)]

use std::cell::OnceCell;
use std::fs;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/journal/mod.rs"]
mod journal;
#[path = "../../src/supervise/mod.rs"]
mod supervise;
#[path = "../../src/unit/mod.rs"]
mod unit;

thread_local! {
    static DIR: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// A line of this cuts the input into files: services `a`, `b` ..., the last one a template.
const CUT: &str = "#----\n";

fuzz_target!(|text: &str| {
    DIR.with(|dir| {
        // In memory where there is such a folder: thousands of files in a second.
        let dir = dir.get_or_init(|| {
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
        });
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            folder
        };
        let (units, templates) = (folder("units"), folder("templates"));
        let files: Vec<&str> = text.split(CUT).take(6).collect();
        for (name, text) in ["a", "b", "c", "d", "e"].iter().zip(&files) {
            fs::write(units.join(format!("{name}.toml")), text).unwrap();
        }
        fs::write(templates.join("vm.toml"), files.last().unwrap()).unwrap();

        let units = unit::load(dir.path());
        for problem in &units.problems {
            assert!(!problem.what.is_empty());
            let lines = text.lines().count();
            assert!(problem.line <= lines + 1, "{problem} of {lines} lines");
        }
        let mut placed: Vec<&str> = Vec::new();
        for service in &units.services {
            assert!(service.exec[0].starts_with('/'));
            for before in service.rules.after.iter().chain(&service.rules.requires) {
                assert!(placed.contains(&before.as_str()), "{} before {before}", service.name);
            }
            placed.push(&service.name);
        }
    });
});
