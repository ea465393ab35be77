//! Reading the unit files again.
//!
//! ```text
//!             good ─▶ as it says now ┐            one that is would fall out
//!  unit file  bad ──▶ as it was ─────┴▶ in order? ───────────────────────────▶ nothing changes at all
//!             gone ─▶ stops, and is forgotten
//! ```

use std::path::Path;

use serde::Serialize;
use zos_host::clock;

use super::{Node, RequestError, launch};
use crate::supervise::Declared;
use crate::unit::{self, Service, Units};

/// What `Reload` tells.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reloaded {
    /// Units that are new or changed.
    changed: Vec<String>,
    /// Units that are gone.
    removed: Vec<String>,
    /// What is wrong with files.
    problems: Vec<String>,
}

impl Node {
    /// Reads the unit files and templates again.
    pub(crate) fn reload(&mut self) -> Result<Reloaded, RequestError> {
        let dir = Path::new(crate::UNITS);
        let is_there =
            |folder: &str, name: &str| dir.join(folder).join(format!("{name}.toml")).exists();
        let old = self.services.values().cloned().collect();
        let mut new = unit::read(dir);
        let services = merge(&mut new, old, |name| is_there("units", name));
        let mut told = Reloaded {
            problems: new.problems.iter().map(ToString::to_string).collect(),
            ..Reloaded::default()
        };
        let Some(services) = services else { return Ok(told) };

        let declare = |service: &Service| Declared {
            name: service.name.clone(),
            rules: service.rules.clone(),
            broken: self.broken(&service.exec[0]),
        };
        let declared = services.iter().map(declare).collect();
        let (reloaded, actions) = self.supervisor.reload(clock::boottime_millis(), declared)?;
        let name = |id| self.services.get(id).map(|service: &Service| service.name.clone());
        told.removed = reloaded.removed.iter().filter_map(name).collect();
        for (id, service) in reloaded.units.into_iter().zip(services) {
            let before = self.services.get(&id);
            if reloaded.changed.contains(&id) || before != Some(&service) {
                told.changed.push(service.name.clone());
            }
            if before.and_then(|before| before.socket.as_ref()) != service.socket.as_ref() {
                self.sockets.remove(&id);
                match service.socket.as_deref().map(launch::bind) {
                    Some(Ok(socket)) => drop(self.sockets.insert(id, socket)),
                    Some(Err(error)) => told.problems.push(error.line()),
                    None => {}
                }
            }
            self.services.insert(id, service);
        }
        self.templates
            .retain(|name, _| !new.templates.contains_key(name) && is_there("templates", name));
        self.templates.extend(new.templates);
        self.perform(actions);
        Ok(told)
    }
}

/// The services that are to be, in start order; `None`: one that is would fall out, so nothing may change. Problems are
/// added to those of the files.
fn merge(
    new: &mut Units,
    old: Vec<Service>,
    is_there: impl Fn(&str) -> bool,
) -> Option<Vec<Service>> {
    let mut services = std::mem::take(&mut new.services);
    let old: Vec<Service> = old.into_iter().filter(|old| is_there(&old.name)).collect();
    let has = |services: &[Service], name: &str| services.iter().any(|one| one.name == name);
    for service in &old {
        if !has(&services, &service.name) {
            services.push(service.clone());
        }
    }
    let (services, problems) = unit::order(services);
    new.problems.extend(problems);
    old.iter().all(|old| has(&services, &old.name)).then_some(services)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder of units: name and further lines of each file.
    fn load(files: &[(&str, &str)]) -> (tempfile::TempDir, Units) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("units")).unwrap();
        fs::create_dir_all(dir.path().join("templates")).unwrap();
        for (name, lines) in files {
            let text = format!("exec = [\"/bin/x\"]\nuser = \"root\"\n{lines}\n");
            fs::write(dir.path().join(format!("units/{name}.toml")), text).unwrap();
        }
        let units = unit::read(dir.path());
        (dir, units)
    }

    #[test]
    fn what_is_bad_stays_what_is_gone_goes_and_contradictions_change_nothing() {
        let before = [("a", ""), ("b", "after = [\"a\"]"), ("c", "requires = [\"b\"]")];
        let check = |after: &[(&str, &str)], expect: Option<&[&str]>, problem: &str| {
            let old = load(&before).1.services;
            let (dir, mut new) = load(after);
            let is_there = |name: &str| dir.path().join(format!("units/{name}.toml")).exists();
            let merged = merge(&mut new, old.clone(), is_there);
            let names = merged.as_ref().map(|services| {
                services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>()
            });
            assert_eq!(names.as_deref(), expect, "{after:?}");
            let problems: Vec<String> = new.problems.iter().map(ToString::to_string).collect();
            let problems = problems.join("; ");
            assert_eq!(problems.is_empty(), problem.is_empty(), "{problems}");
            assert!(problems.contains(problem), "{problems}");
            merged.unwrap_or_default()
        };
        check(&before, Some(&["a", "b", "c"]), "");
        let [a, b, c] = before;
        check(&[a, b, c, ("d", "")], Some(&["a", "b", "c", "d"]), "");
        check(&[a, b], Some(&["a", "b"]), "");
        // A bad file: as it was.
        let merged = check(&[a, ("b", "ready = \"maybe\""), c], Some(&["a", "b", "c"]), "maybe");
        assert_eq!(merged[1].rules.after, ["a"]);
        // The others know it all the while.
        let merged =
            check(&[("a", "after = [\"b\"]"), ("b", "x = 1"), c], None, "each waits for the next");
        assert!(merged.is_empty());
        let d = ("d", "after = [\"b\"]");
        let merged = check(&[a, ("b", "x = 1"), c, d], Some(&["a", "b", "c", "d"]), "unknown key");
        assert_eq!(merged[3].rules.after, ["b"]);
        // One that is would have no place any more; a new one is left out.
        check(&[("a", "after = [\"b\"]"), b, c], None, "b -> a");
        check(&[a, c], None, "requires b");
        check(&[a, b, c, ("d", "requires = [\"e\"]")], Some(&["a", "b", "c"]), "requires e");
    }
}
