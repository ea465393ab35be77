//! Who starts after whom: missing units and cycles are found before anything starts.

use std::collections::BTreeMap;

use super::{Problem, Service};

/// Sorts services so that each comes after those that it starts after. Services in a cycle, and those that
/// require what is missing, are left out with a problem; a missing one in `after` alone is ignored with one.
pub(crate) fn order(mut services: Vec<Service>) -> (Vec<Service>, Vec<Problem>) {
    let mut problems = Vec::new();
    // Leaving one out may make another incomplete.
    while let Some(problem) = drop_incomplete(&mut services) {
        problems.push(problem);
    }
    drop_unknown_after(&mut services, &mut problems);
    while let Some(cycle) = find_cycle(&services) {
        let file = format!("{}.toml", cycle[0]);
        let what = format!("each waits for the next: {}", cycle.join(" -> "));
        problems.push(Problem { file, line: 0, what });
        services.retain(|service| !cycle.contains(&service.name));
        while let Some(problem) = drop_incomplete(&mut services) {
            problems.push(problem);
        }
        drop_unknown_after(&mut services, &mut problems);
    }
    (sorted(services), problems)
}

fn drop_incomplete(services: &mut Vec<Service>) -> Option<Problem> {
    let missing = |service: &Service| {
        let known = |name: &&String| !services.iter().any(|other| other.name == **name);
        service.rules.requires.iter().find(known).cloned()
    };
    let (at, missing) =
        services.iter().enumerate().find_map(|(at, service)| Some((at, missing(service)?)))?;
    let service = services.remove(at);
    let what = format!("requires {missing}, which is not there");
    Some(Problem { file: format!("{}.toml", service.name), line: 0, what })
}

fn drop_unknown_after(services: &mut [Service], problems: &mut Vec<Problem>) {
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    for service in services {
        let file = format!("{}.toml", service.name);
        service.rules.after.retain(|name| {
            let known = names.contains(name);
            if !known {
                let what = format!("starts after {name}, which is not there");
                problems.push(Problem { file: file.clone(), line: 0, what });
            }
            known
        });
    }
}

/// The names along a cycle, the first again at the end.
fn find_cycle(services: &[Service]) -> Option<Vec<String>> {
    let after: BTreeMap<&str, &[String]> =
        services.iter().map(|s| (s.name.as_str(), s.rules.after.as_slice())).collect();
    let mut done: Vec<&str> = Vec::new();
    for start in after.keys() {
        // Depth first; the path holds (unit, how many of its edges were followed).
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((unit, followed)) = path.last_mut() {
            let Some(next) = after.get(unit).and_then(|edges| edges.get(*followed)) else {
                done.push(unit);
                path.pop();
                continue;
            };
            *followed += 1;
            if let Some(at) = path.iter().position(|(name, _)| name == next) {
                let mut cycle: Vec<String> =
                    path[at..].iter().map(|(name, _)| (*name).to_owned()).collect();
                cycle.push(next.clone());
                return Some(cycle);
            }
            if !done.contains(&next.as_str()) {
                path.push((next, 0));
            }
        }
    }
    None
}

/// Without cycles: each after those it waits for, else as given.
fn sorted(mut rest: Vec<Service>) -> Vec<Service> {
    let mut sorted: Vec<Service> = Vec::new();
    while !rest.is_empty() {
        let placed = |name: &String| sorted.iter().any(|service| service.name == *name);
        let at = rest.iter().position(|service| service.rules.after.iter().all(placed));
        sorted.push(rest.remove(at.unwrap_or(0)));
    }
    sorted
}
