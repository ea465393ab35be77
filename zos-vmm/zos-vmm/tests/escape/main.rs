//! The VMM, taken over. Assume the worst: a stranger's code runs in each kind of thread, and tries what an
//! intruder would try. Nothing may succeed.
//!
//! ```text
//!  in a node    PID 1, template `vm` ─▶ this program in place of zos-vmm, with what vmd passes
//!  on a host    it starts itself in the same fence, as far as one can without an image   (cargo test)
//!                    │
//!                    ├─ landlock, as the VMM does
//!                    └─ for each kind of thread, for each goal: a child enters that kind's filter and tries
//!  ─▶ a line for each goal: what became of it outside of the filters, and in each kind of thread
//! ```
//!
//! | Word | Means |
//! |---|---|
//! | `killed` | the filter ended the process |
//! | `EPERM` ... | the kernel refused |
//! | `-` | there is nothing to try it on |
//! | `WON` | it succeeded: a hole. Outside of the filters in brackets where only they hold it |
#![allow(unsafe_code)] // It tries what nobody should.

mod attempt;
mod goals;
mod host;
mod ring;

use attempt::{Outcome, Page};
use goals::{Goal, World};
use std::process::ExitCode;
use zos_vmm::console::Ring;
use zos_vmm::jail::{self, Kind};

fn main() -> ExitCode {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return host::run();
    }
    let world = World::of_environment();
    if let Err(error) = jail::give_up_paths() {
        eprintln!("escape: landlock: {error}");
        return ExitCode::FAILURE;
    }
    let page = Page::new();
    let mut report = Report::new(&world);
    let mut columns: Vec<Option<Kind>> = vec![None];
    columns.extend(Kind::ALL.map(Some));
    let mut won = 0;
    let kinds = Kind::ALL.map(|kind| format!("{kind:?}").to_lowercase());
    report.line(&format!("escape: {:<44} outside {}", "goal", kinds.join(" ")));
    for goal in goals::all() {
        let outcomes: Vec<Outcome> =
            columns.iter().map(|kind| attempt::try_in(*kind, goal, &world, &page)).collect();
        won += outcomes.iter().skip(1).filter(|outcome| **outcome == Outcome::Won).count();
        // Outside of a node the outer fence is only part of what it is there.
        won += usize::from(world.in_node() && outcomes[0] == Outcome::Won && !goal.filtered);
        report.line(&format!("escape: {:<44} {}", goal.name, words(goal, &outcomes)));
    }
    let mut allowed = 0;
    if !world.in_node() {
        allowed = attempt::beyond_the_list(&page);
        report.line(&format!("escape: calls beyond the list that were not killed: {allowed}"));
    }
    report.line(&format!(
        "escape: {} goals in {} kinds of threads: {won} won",
        goals::all().count(),
        Kind::ALL.len()
    ));
    if world.in_node() {
        // In a node: more memory than its cgroup has. Nobody is left to tell of it but PID 1.
        report.line("escape: now memory without end");
        goals::eat_memory();
        report.line("escape: memory without end: WON");
    }
    if won == 0 && allowed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lines for whoever watches: on stderr, and in a node on the guest's console, which is read by the API.
struct Report(Option<Ring>);

impl Report {
    fn new(world: &World) -> Self {
        let console = world.file("serial-ring");
        Self(console.map(|file| Ring::open(file).expect("the console's ring")))
    }

    fn line(&mut self, line: &str) {
        eprintln!("{line}");
        if let Some(ring) = &mut self.0 {
            ring.append(format!("{line}\n").as_bytes());
        }
    }
}

fn words(goal: &Goal, outcomes: &[Outcome]) -> String {
    let mut words: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
    if outcomes[0] == Outcome::Won && goal.filtered {
        words[0] = "(WON)".to_owned();
    }
    // Most kinds are alike: said once.
    if words[1..].iter().all(|word| *word == words[1]) {
        words.truncate(2);
        words[1] += " in all";
    }
    words.join(" ")
}
