//! Moves the pins: the newest version of each package in its suite, and the libraries that the tools need then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use crate::arch::Arch;
use crate::elf;
use crate::error::{Error, Result};
use crate::fetch::Fetcher;
use crate::inputs::{Lock, Package, Pin, Purpose};

/// What changed for one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Package.
    pub name: String,
    /// Before; absent for a new one.
    pub from: Option<String>,
    /// Now; absent for one that is no longer needed.
    pub to: Option<String>,
}

/// The lock with the newest versions of all packages, or of those named.
///
/// # Errors
/// A name that `inputs.toml` doesn't have, a package that its suite doesn't serve, or the network.
pub fn update(fetcher: &Fetcher, arch: Arch, names: &[String]) -> Result<(Lock, Vec<Moved>)> {
    if fetcher.offline() {
        return Err(Error::Offline("the list of newest versions".into()));
    }
    let of_debian = |name: &String| {
        fetcher.inputs.debian.as_ref().is_some_and(|debian| debian.packages.contains(name))
    };
    let known = |name: &String| fetcher.inputs.find(name).is_some() || of_debian(name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let libraries = fetcher
            .lock
            .package
            .iter()
            .any(|p| p.purpose == Purpose::Library && p.name == **unknown);
        let why = if libraries {
            "is a library: update the tool that needs it"
        } else {
            "isn't in inputs.toml"
        };
        return Err(Error::form(unknown, why));
    }
    // A package for all architectures may be wanted on another one only.
    let elsewhere = |p: &&Pin| {
        !p.fits(arch) || fetcher.inputs.find(&p.name).is_some_and(|wanted| !wanted.wanted_on(arch))
    };
    let mut pins: Vec<Pin> = fetcher.lock.package.iter().filter(elsewhere).cloned().collect();
    let mut tools_changed = false;
    for package in fetcher.inputs.package.iter().filter(|p| p.wanted_on(arch)) {
        let old = fetcher.lock.find(&package.name, arch);
        let named = names.is_empty() || names.contains(&package.name);
        let pin = match old {
            Some(old) if !named => old.clone(),
            // Of an architecture that has no image yet, only what is asked for is pinned.
            None if !named => continue,
            _ => newest(fetcher, package, arch)?,
        };
        fetcher.tree(&pin)?;
        tools_changed |= matches!(pin.purpose, Purpose::Tool | Purpose::Tests | Purpose::Peers)
            && old != Some(&pin);
        pins.push(pin);
    }
    if names.is_empty() || tools_changed {
        pins.extend(libraries(fetcher, &pins, arch)?);
    } else {
        pins.extend(
            fetcher
                .lock
                .package
                .iter()
                .filter(|p| p.fits(arch) && !p.needed_by.is_empty())
                .cloned(),
        );
    }
    if names.is_empty() || names.iter().any(of_debian) {
        pins.extend(debian(fetcher, arch)?);
    } else {
        pins.extend(fetcher.lock.of(Purpose::Debian, arch).cloned());
    }
    let lock = Lock { package: pins };
    let moved = differences(&fetcher.lock, &lock);
    Ok((lock, moved))
}

/// The Debian of tests: its packages and all that they depend on, of one moment.
fn debian(fetcher: &Fetcher, arch: Arch) -> Result<Vec<Pin>> {
    let Some(debian) = fetcher.inputs.debian.as_ref().filter(|_| arch == Arch::X86_64) else {
        return Ok(Vec::new());
    };
    let all = fetcher.apt.closure(&debian.packages, arch, &debian.suite)?;
    let pin = |(name, version): (String, String)| {
        let served = fetcher.apt.show(&name, arch, &version)?;
        let (arch, sha256, size) = (served.arch, served.sha256, served.size);
        let (suite, purpose) = (debian.suite.clone(), Purpose::Debian);
        Ok(Pin { name, version, suite, arch, purpose, sha256, size, needed_by: Vec::new() })
    };
    all.into_iter().map(pin).collect()
}

fn newest(fetcher: &Fetcher, package: &Package, arch: Arch) -> Result<Pin> {
    let pin = serve(fetcher, &package.name, &package.suite, package.purpose, arch)?;
    let what = format!("{}: suite {}", package.name, package.suite);
    Ok(pin.ok_or_else(|| Error::form(what, format!("doesn't serve it for {arch}")))?.0)
}

/// The newest version in a suite with its dependencies.
fn serve(
    fetcher: &Fetcher,
    name: &str,
    suite: &str,
    purpose: Purpose,
    arch: Arch,
) -> Result<Option<(Pin, Vec<String>)>> {
    let Some(version) = fetcher.apt.versions(name, arch, suite)?.into_iter().next() else {
        return Ok(None);
    };
    let served = fetcher.apt.show(name, arch, &version)?;
    let pin = Pin {
        name: name.to_owned(),
        version,
        suite: suite.to_owned(),
        arch: served.arch,
        purpose,
        sha256: served.sha256,
        size: served.size,
        needed_by: Vec::new(),
    };
    Ok(Some((pin, served.depends)))
}

/// Packages that hold a library which some tool, or a program of the tests, loads, by walking ELF NEEDED over all that it
/// depends on. A library that both load stands twice: with the purpose `library` for the image, `tests` for the tests.
fn libraries(fetcher: &Fetcher, pins: &[Pin], arch: Arch) -> Result<Vec<Pin>> {
    let mut found: BTreeMap<(Purpose, String), Pin> = BTreeMap::new();
    for user in pins.iter().filter(|p| p.fits(arch)) {
        let purpose = match user.purpose {
            Purpose::Tool => Purpose::Library,
            Purpose::Tests | Purpose::Peers => user.purpose,
            _ => continue,
        };
        let programs = programs(fetcher, user)?;
        if programs.is_empty() {
            continue;
        }
        let candidates = dependencies(fetcher, user, arch)?;
        let mut trees: Vec<PathBuf> = Vec::new();
        for pin in &candidates {
            trees.push(fetcher.tree(pin)?);
        }
        for library in elf::closure(&programs, &trees, arch)? {
            let Some(at) = trees.iter().position(|tree| library.source.starts_with(tree)) else {
                continue;
            };
            let pin = Pin { purpose, ..candidates[at].clone() };
            let pin = found.entry((purpose, pin.name.clone())).or_insert(pin);
            if !pin.needed_by.contains(&user.name) {
                pin.needed_by.push(user.name.clone());
            }
        }
    }
    // A package of the tests (or a peer) may itself hold what another one loads.
    found.retain(|(purpose, name), _| {
        !pins.iter().any(|p| (p.purpose, &p.name) == (*purpose, name))
    });
    Ok(found.into_values().collect())
}

/// The programs of a package whose libraries are wanted: those of `inputs.toml` for a tool or a peer, `qemu-system-<arch>`
/// for QEMU.
fn programs(fetcher: &Fetcher, user: &Pin) -> Result<Vec<PathBuf>> {
    let own = fetcher.tree(user)?;
    if user.purpose == Purpose::Tests {
        let qemu = Arch::ALL.iter().map(|arch| own.join(format!("usr/bin/qemu-system-{arch}")));
        return Ok(qemu.filter(|path| path.is_file()).collect());
    }
    if user.purpose == Purpose::Peers {
        let peer = fetcher.inputs.find(&user.name);
        return Ok(peer.iter().flat_map(|p| &p.programs).map(|path| own.join(path)).collect());
    }
    let tools = fetcher.inputs.tool.iter().filter(|t| t.package == user.name);
    Ok(tools.map(|t| own.join(&t.path)).collect())
}

/// Everything that a package depends on, in its own suite.
fn dependencies(fetcher: &Fetcher, tool: &Pin, arch: Arch) -> Result<Vec<Pin>> {
    let mut seen = BTreeSet::from([tool.name.clone()]);
    let mut queue = VecDeque::from(fetcher.apt.show(&tool.name, arch, &tool.version)?.depends);
    let mut pins = Vec::new();
    while let Some(name) = queue.pop_front() {
        if !seen.insert(name.clone()) {
            continue;
        }
        // A virtual package is served by none; what it stands for is never a library that a program names.
        let Some((pin, depends)) = serve(fetcher, &name, &tool.suite, Purpose::Library, arch)?
        else {
            continue;
        };
        pins.push(pin);
        queue.extend(depends);
    }
    Ok(pins)
}

fn differences(old: &Lock, new: &Lock) -> Vec<Moved> {
    let versions = |lock: &Lock| -> BTreeMap<(String, String), String> {
        lock.package.iter().map(|p| ((p.name.clone(), p.arch.clone()), p.version.clone())).collect()
    };
    let (old, new) = (versions(old), versions(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let moved = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    moved
        .map(|key| Moved {
            name: key.0.clone(),
            from: old.get(key).cloned(),
            to: new.get(key).cloned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_came_moved_and_went() {
        let pin = |name: &str, version: &str| Pin {
            name: name.into(),
            version: version.into(),
            suite: "trixie".into(),
            arch: "all".into(),
            purpose: Purpose::Boot,
            sha256: String::new(),
            size: 0,
            needed_by: vec![],
        };
        let old = Lock { package: vec![pin("a", "1"), pin("b", "1"), pin("c", "1")] };
        let new = Lock { package: vec![pin("a", "1"), pin("b", "2"), pin("d", "1")] };
        let rows: Vec<_> =
            differences(&old, &new).into_iter().map(|m| (m.name, m.from, m.to)).collect();
        let text = |t: &str| Some(t.to_owned());
        let wanted = [("b", text("1"), text("2")), ("c", text("1"), None), ("d", None, text("1"))];
        assert_eq!(rows, wanted.map(|(n, f, t)| (n.to_owned(), f, t)));
    }
}
