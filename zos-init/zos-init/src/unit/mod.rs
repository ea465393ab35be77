//! Unit files: what is to run. Parsed in layers; after the last nobody checks again.
//!
//! ```text
//!  text ─ form ─▶ keys with lines ─ parse ─▶ Service / Template ─ graph ─▶ services in start order
//!         │ unknown key,                     │ unknown user, signal ...    │ missing unit, cycle
//!         └──────────── Problem { file, line, what is wrong, what was meant } ┘
//! ```
//! A broken file costs its unit, not the boot: the problems become faults that the node shows.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use zos_host::process::{Capabilities, Namespace, Resource};

mod form;
mod graph;
mod resources;
mod rules;
mod sandbox;
mod service;
mod template;

pub(crate) use graph::order;
pub(crate) use resources::Resources;
pub(crate) use rules::{Backoff, Budget, Liveness, Ready, Restart, Rules};
pub(crate) use sandbox::Sandbox;

#[cfg(test)]
mod tests;

/// A service of the node: one program, started at boot and kept running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The file's name without `.toml`.
    pub(crate) name: String,
    /// Program and arguments; the program is an absolute path.
    pub(crate) exec: Vec<String>,
    /// Further `KEY=value` of its environment.
    pub(crate) env: BTreeMap<String, String>,
    /// User and group id.
    pub(crate) user: u32,
    /// Capabilities, ambient; it can never have others.
    pub(crate) capabilities: Capabilities,
    /// Device nodes that are given to its user.
    pub(crate) devices: Vec<String>,
    /// Unix socket that PID 1 binds and passes as the descriptor named `varlink`.
    pub(crate) socket: Option<String>,
    /// Its working folder.
    pub(crate) dir: String,
    /// Unix socket of its own that answers when it is ready; there is one if its rules say so.
    pub(crate) ready_socket: Option<String>,
    /// Program and arguments of its liveness check; empty if its rules know none.
    pub(crate) check: Vec<String>,
    /// What is kept of what it prints.
    pub(crate) log: crate::journal::Rules,
    /// What it gives up beside capabilities.
    pub(crate) sandbox: Sandbox,
    /// What its cgroup enforces.
    pub(crate) cgroup: Resources,
    /// What the supervisor goes by.
    pub(crate) rules: Rules,
}

/// What a transient unit's starter can't choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// The file's name without `.toml`; the first part of its units' names.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) exec: Vec<String>,
    /// How many arguments the starter may add.
    pub(crate) open_arguments: usize,
    /// Its namespaces.
    pub(crate) namespaces: Vec<Namespace>,
    /// `/` is empty.
    pub(crate) empty_root: bool,
    /// But for a `/proc` of its own processes.
    pub(crate) proc: bool,
    /// User and group id of slot 0.
    pub(crate) first_user: u32,
    /// How many slots there are.
    pub(crate) slots: u32,
    /// The name of the passed mount in which its user owns what root owns on the disk.
    pub(crate) owned: Option<String>,
    /// setrlimit's limits.
    pub(crate) limits: Vec<(Resource, u64)>,
    /// How much likelier than others it is to be killed when the machine has no memory left.
    pub(crate) oom_score: i32,
    /// Signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// Milliseconds that it has for that when the node goes down.
    pub(crate) stop_timeout: u64,
}

/// Something wrong with a unit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Problem {
    /// The file.
    pub(crate) file: String,
    /// The line, from 1; 0 when it is about the file as a whole.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// All units of a node.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// Services, each after those that it starts after; else in the files' order.
    pub(crate) services: Vec<Service>,
    /// Templates by name.
    pub(crate) templates: BTreeMap<String, Template>,
    /// What was wrong, and left out.
    pub(crate) problems: Vec<Problem>,
}

/// Reads `DIR/units/*.toml` and `DIR/templates/*.toml`.
#[must_use]
pub(crate) fn load(dir: &Path) -> Units {
    let mut units = read(dir);
    let (services, problems) = order(units.services);
    units.services = services;
    units.problems.extend(problems);
    units
}

/// The same, each service by itself: in the order of their names.
#[must_use]
pub(crate) fn read(dir: &Path) -> Units {
    let mut problems = Vec::new();
    let services = files(&dir.join("units"), &mut problems);
    let templates = files(&dir.join("templates"), &mut problems);
    let mut units = parse(&services, &templates);
    units.problems.splice(..0, problems);
    units
}

/// File name, unit name and text.
pub(crate) type File = (String, String, String);

/// What these files say, each by itself.
#[must_use]
pub(crate) fn parse(services: &[File], templates: &[File]) -> Units {
    let mut units = Units::default();
    for (file, name, text) in services {
        match service::parse(file, name, text) {
            Ok(service) => units.services.push(service),
            Err(problems) => units.problems.extend(problems),
        }
    }
    for (file, name, text) in templates {
        match template::parse(file, name, text) {
            Ok(template) => {
                units.templates.insert(name.clone(), template);
            }
            Err(problems) => units.problems.extend(problems),
        }
    }
    units
}

/// Each `.toml` in a folder, sorted by name.
fn files(dir: &Path, problems: &mut Vec<Problem>) -> Vec<File> {
    let mut problem = |file: String, what: &std::io::Error| {
        problems.push(Problem { file, line: 0, what: what.to_string() });
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            problem(dir.display().to_string(), &error);
            return Vec::new();
        }
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for file in names {
        match std::fs::read_to_string(dir.join(&file)) {
            Ok(text) => found.push((file.clone(), file.trim_end_matches(".toml").to_owned(), text)),
            Err(error) => problem(file, &error),
        }
    }
    found
}
