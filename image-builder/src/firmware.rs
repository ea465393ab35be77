//! Blobs that built-in drivers ask for, and the proof that none is missing.
//!
//! ```text
//!  kernel-config/firmware.toml: driver → blobs ──┐
//!  kernel's .config: is the driver built in? ────┼─▶ /lib/firmware/*, or a list of everything that doesn't fit
//!  kernel's modinfo: what do drivers ask for? ───┘
//! ```
//!
//! "The driver is there, the blob is not" shows on a farmer's machine only; here it fails the build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::arch::Arch;
use crate::cpio::Mode;
use crate::error::{Error, Result, read, read_text};
use crate::fetch::Fetcher;
use crate::kernel::Kernel;
use crate::manifest::Foreign;
use crate::root::{Part, Root};

/// `firmware.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Drivers that ask for blobs.
    #[serde(default)]
    pub driver: Vec<Driver>,
}

/// A driver and its blobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// Kernel option that builds it in.
    pub option: String,
    /// Its name as a module: what modinfo calls it.
    pub module: String,
    /// Package with the blobs.
    pub package: String,
    /// What happens without them.
    pub reason: String,
    /// Paths below `/lib/firmware`.
    #[serde(default)]
    pub blobs: Vec<String>,
    /// Blobs that the driver names and we leave out, with the reason.
    #[serde(default)]
    pub omit: BTreeMap<String, String>,
}

impl List {
    /// Parses the text.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::form("firmware.toml", e.to_string()))
    }
}

/// Puts every blob into the root, after all checks; gives what the manifest says of them.
///
/// # Errors
/// [`Error::Firmware`] with everything that doesn't fit, or a package that can't be had.
pub fn add(
    root: &mut Root,
    dir: &Path,
    kernel: &Kernel,
    fetcher: &Fetcher,
    arch: Arch,
) -> Result<Vec<Foreign>> {
    let list = List::parse(&read_text(&dir.join("firmware.toml"))?)?;
    let mut wrong = check(&list, &kernel.config()?, &asked(&kernel.modinfo()?));
    let mut foreign = Vec::new();
    for driver in &list.driver {
        if driver.blobs.is_empty() {
            continue;
        }
        let pin = fetcher.pin(&driver.package, arch)?;
        let tree = fetcher.tree(pin)?;
        for blob in &driver.blobs {
            // Debian's packages follow upstream's links: the name asked for may point to a versioned file.
            let file = ["usr/lib/firmware", "lib/firmware"].map(|d| tree.join(d).join(blob));
            let Some(file) = file.iter().find(|f| f.is_file()) else {
                wrong.push(format!("{}: {blob} isn't in {}", driver.module, driver.package));
                continue;
            };
            let (target, data) = (format!("lib/firmware/{blob}"), read(file)?);
            let reason = format!("{}: without it {}", driver.module, driver.reason);
            foreign.push(Foreign::new(&target, pin, &reason, data.len()));
            root.add(&target, Mode::File, Part::Base, data)?;
        }
    }
    if wrong.is_empty() { Ok(foreign) } else { Err(Error::Firmware(wrong)) }
}

/// Blobs by the module that asks for them, from `module.firmware=path` NUL ...
#[must_use]
pub fn asked(modinfo: &[u8]) -> BTreeMap<String, BTreeSet<String>> {
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in modinfo.split(|b| *b == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        if let Some((module, blob)) = entry.split_once(".firmware=") {
            asked.entry(module.to_owned()).or_default().insert(blob.to_owned());
        }
    }
    asked
}

/// Everything that doesn't fit: entries without a driver, drivers without an entry, blobs without a decision.
#[must_use]
pub fn check(
    list: &List,
    config: &BTreeMap<String, String>,
    asked: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for driver in &list.driver {
        if config.get(&driver.option).map(String::as_str) != Some("y") {
            wrong.push(format!(
                "{}: {} isn't built in; take the entry out",
                driver.module, driver.option
            ));
        }
        let known = asked.get(&driver.module);
        for blob in driver.omit.keys() {
            if !known.is_some_and(|k| k.contains(blob)) {
                wrong.push(format!(
                    "{}: omits {blob}, which the driver doesn't ask for",
                    driver.module
                ));
            }
        }
    }
    for (module, blobs) in asked {
        let Some(driver) = list.driver.iter().find(|d| d.module == *module) else {
            let some: Vec<&str> = blobs.iter().take(3).map(String::as_str).collect();
            wrong.push(format!(
                "{module}: built in, asks for {} ..., and has no entry",
                some.join(", ")
            ));
            continue;
        };
        for blob in blobs {
            if !driver.blobs.contains(blob) && !driver.omit.contains_key(blob) {
                wrong.push(format!(
                    "{module}: asks for {blob}, which is neither in `blobs` nor in `omit`"
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODINFO: &[u8] =
        b"tg3.license=GPL\0tg3.firmware=tigon/tg3.bin\0tg3.firmware=tigon/tg3_tso.bin\0";

    fn list(entry: &str) -> List {
        List::parse(&format!(
            "[[driver]]\noption='CONFIG_TIGON3'\nmodule='tg3'\npackage='p'\nreason=''\n{entry}"
        ))
        .unwrap()
    }

    #[test]
    fn each_mismatch_is_named() {
        let config = BTreeMap::from([("CONFIG_TIGON3".to_owned(), "y".to_owned())]);
        let none = BTreeMap::new();
        let both = "blobs = ['tigon/tg3.bin', 'tigon/tg3_tso.bin']";
        let asked = asked(MODINFO);
        let rows: [(List, &BTreeMap<String, String>, &[&str]); 5] = [
            (list(both), &config, &[]),
            (list("blobs = ['tigon/tg3.bin']\nomit = {'tigon/tg3_tso.bin' = 'old'}"), &config, &[]),
            (list("blobs = ['tigon/tg3.bin']"), &config, &["tg3_tso.bin, which is neither"]),
            (list(both), &none, &["CONFIG_TIGON3 isn't built in"]),
            (List { driver: vec![] }, &config, &["has no entry"]),
        ];
        for (list, config, wanted) in rows {
            let wrong = check(&list, config, &asked);
            assert_eq!(wrong.len(), wanted.len(), "{wrong:?}");
            assert!(wrong.iter().zip(wanted).all(|(w, part)| w.contains(part)), "{wrong:?}");
        }
        let wrong = check(&list(&format!("{both}\nomit = {{'x' = 'y'}}")), &config, &asked);
        assert!(wrong[0].contains("doesn't ask for"), "{wrong:?}");
    }

    proptest! {
        #[test]
        fn any_modinfo_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = asked(&bytes);
        }
    }
}
