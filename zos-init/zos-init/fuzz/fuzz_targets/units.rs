//! Unit files of any content: refused by line or taken, never a panic; what is taken stands in an order that can be
//! started.
#![no_main]
#![allow(dead_code, unreachable_pub, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/journal/mod.rs"]
mod journal;
#[path = "../../src/supervise/mod.rs"]
mod supervise;
#[path = "../../src/unit/mod.rs"]
mod unit;

/// A line of this cuts the input into files: services `a`, `b` ..., the last one a template.
const CUT: &str = "#----\n";

fuzz_target!(|text: &str| {
    let file = |name: &str, text: &str| (format!("{name}.toml"), name.to_owned(), text.to_owned());
    let texts: Vec<&str> = text.split(CUT).take(6).collect();
    let names = ["a", "b", "c", "d", "e"].iter();
    let services: Vec<_> = names.zip(&texts).map(|(name, text)| file(name, text)).collect();
    let units = unit::parse(&services, &[file("vm", texts[texts.len() - 1])]);
    let (services, problems) = unit::order(units.services);

    let lines = text.lines().count();
    for problem in units.problems.iter().chain(&problems) {
        assert!(!problem.what.is_empty());
        assert!(problem.line <= lines + 1, "{problem} of {lines} lines");
    }
    let mut placed: Vec<&str> = Vec::new();
    for service in &services {
        assert!(service.exec[0].starts_with('/'));
        for before in service.rules.after.iter().chain(&service.rules.requires) {
            assert!(placed.contains(&before.as_str()), "{} before {before}", service.name);
        }
        placed.push(&service.name);
    }
});
