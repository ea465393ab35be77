//! What the image is made of: `inputs.toml` says what is wanted and why, `inputs.lock` which bytes.
//!
//! ```text
//!  inputs.toml  ──update (newest of the suite)──▶  inputs.lock  ──fetch (by SHA-256)──▶  cache
//!  a person writes it                              image-builder writes it; both are committed
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{Error, Result, read_text, write};

/// `inputs.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Debian suites by name.
    pub suite: BTreeMap<String, Suite>,
    /// Packages wanted.
    #[serde(default)]
    pub package: Vec<Package>,
    /// Programs taken out of packages into the image.
    #[serde(default)]
    pub tool: Vec<Tool>,
    /// A stock Debian for tests.
    pub debian: Option<Debian>,
}

/// A stock Debian, installed into a disk image as any other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Its suite; one of `suite`.
    pub suite: String,
    /// What it has beside the essential packages.
    pub packages: Vec<String>,
    /// Why it is here at all.
    pub reason: String,
}

/// Where a suite is served, relative to what the machine itself uses.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Which of the machine's two sites.
    pub site: Site,
    /// Its components: "main", "non-free-firmware" ...
    pub components: Vec<String>,
}

/// Debian's two archives.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Releases, updates, backports.
    Main,
    /// Security updates.
    Security,
}

/// What a package is for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Source of the kernels.
    Kernel,
    /// A foreign program in the image.
    Tool,
    /// A library of such a program.
    Library,
    /// Blobs of drivers.
    Firmware,
    /// CPU microcode.
    Microcode,
    /// Boot loaders and stubs.
    Boot,
    /// QEMU and its firmware; never in the image.
    Tests,
    /// Programs by others that tests and the bench hold ours against; never in the image.
    Peers,
    /// A package of the Debian that runs as a guest of tests; never in the image.
    Debian,
}

impl Purpose {
    /// Whether packages with this purpose have a part in the image.
    #[must_use]
    pub fn is_in_image(self) -> bool {
        !matches!(self, Self::Tests | Self::Peers | Self::Debian)
    }
}

/// A package wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Debian's name.
    pub name: String,
    /// Suite to take it from; one of `suite`.
    pub suite: String,
    /// What for.
    pub purpose: Purpose,
    /// Why it is here at all.
    pub reason: String,
    /// Of a peer: the paths of the programs that are run, whose libraries are wanted too.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Architectures that have it; all when absent.
    only: Option<Vec<String>>,
}

impl Package {
    /// Whether an image (or, for tests, a machine) of this architecture wants it.
    #[must_use]
    pub fn wanted_on(&self, arch: Arch) -> bool {
        self.only.as_ref().is_none_or(|list| list.iter().any(|a| a == arch.name()))
    }
}

/// A foreign program in the image.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Package that has it.
    pub package: String,
    /// Path in the package.
    pub path: String,
    /// Path in the image.
    pub to: String,
    /// Who calls it, for what.
    pub reason: String,
}

impl Inputs {
    /// Parses the text and checks what refers to what.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        let inputs: Self =
            toml::from_str(text).map_err(|e| Error::form("inputs.toml", e.to_string()))?;
        for p in &inputs.package {
            let broken =
                |why: String| Err(Error::form(format!("inputs.toml: package {}", p.name), why));
            if !inputs.suite.contains_key(&p.suite) {
                return broken(format!("suite `{}` isn't among [suite.*]", p.suite));
            }
            if (p.purpose == Purpose::Peers) == p.programs.is_empty() {
                return broken("a peer, and nothing else, names its `programs`".into());
            }
            if matches!(p.purpose, Purpose::Library | Purpose::Debian) {
                return broken(
                    "libraries, and packages of [debian], are found by themselves".into(),
                );
            }
            if let Some(bad) =
                p.only.iter().flatten().find(|a| !Arch::ALL.iter().any(|x| x.name() == *a))
            {
                return broken(format!("`{bad}` is no architecture of ours"));
            }
        }
        if let Some(debian) = &inputs.debian
            && !inputs.suite.contains_key(&debian.suite)
        {
            let why = format!("suite `{}` isn't among [suite.*]", debian.suite);
            return Err(Error::form("inputs.toml: debian", why));
        }
        for t in &inputs.tool {
            if !inputs.package.iter().any(|p| p.name == t.package && p.purpose == Purpose::Tool) {
                let what = format!("inputs.toml: tool {}", t.to);
                return Err(Error::form(
                    what,
                    format!("no package `{}` with purpose tool", t.package),
                ));
            }
        }
        Ok(inputs)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Reading, or the form.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?)
    }

    /// Why a package is here.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Package> {
        self.package.iter().find(|p| p.name == name)
    }
}

/// `inputs.lock`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Sorted by name, then architecture.
    #[serde(default)]
    pub package: Vec<Pin>,
}

/// One file of the mirror, exactly.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Debian's name.
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// Suite that served it.
    pub suite: String,
    /// Debian's word: "amd64", "arm64", "all".
    pub arch: String,
    /// What for.
    pub purpose: Purpose,
    /// Of the package file.
    pub sha256: String,
    /// Bytes of the package file.
    pub size: u64,
    /// For a library: the tool packages that need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
}

const LOCK_HEAD: &str =
    "# Written by `image-builder update`: the exact files that the image is made of.\n\n";

impl Lock {
    /// Parses and checks each field that later stands in a path or a command.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        let lock: Self =
            toml::from_str(text).map_err(|e| Error::form("inputs.lock", e.to_string()))?;
        for pin in &lock.package {
            pin.check()?;
        }
        Ok(lock)
    }

    /// Reads the file; an absent one is an empty lock.
    ///
    /// # Errors
    /// Reading, or the form.
    pub fn load(path: &Path) -> Result<Self> {
        if path.exists() { Self::parse(&read_text(path)?) } else { Ok(Self::default()) }
    }

    /// As it is written.
    ///
    /// # Errors
    /// Never, for values that TOML can express.
    pub fn text(&self) -> Result<String> {
        let mut sorted = self.clone();
        sorted.package.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
        let body =
            toml::to_string(&sorted).map_err(|e| Error::form("inputs.lock", e.to_string()))?;
        Ok(format!("{LOCK_HEAD}{body}"))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Writing.
    pub fn save(&self, path: &Path) -> Result<()> {
        write(path, self.text()?.as_bytes())
    }

    /// The pin of a package for an architecture. Debian's own of the same name are another matter ([`Lock::of`]).
    #[must_use]
    pub fn find(&self, name: &str, arch: Arch) -> Option<&Pin> {
        let named = |p: &&Pin| p.name == name && p.fits(arch) && p.purpose != Purpose::Debian;
        self.package.iter().find(named)
    }

    /// All pins for an architecture and purpose, in the lock's order.
    pub fn of(&self, purpose: Purpose, arch: Arch) -> impl Iterator<Item = &Pin> {
        self.package.iter().filter(move |p| p.purpose == purpose && p.fits(arch))
    }
}

impl Pin {
    /// Whether it serves this architecture.
    #[must_use]
    pub fn fits(&self, arch: Arch) -> bool {
        self.arch == "all" || self.arch == arch.debian()
    }

    fn check(&self) -> Result<()> {
        let plain = |text: &str, more: &str| {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good)
        };
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let rules = [
            ("name", plain(&self.name, "+-."), "Debian's form of a name"),
            (
                "version",
                plain(&self.version, "ABCDEFGHIJKLMNOPQRSTUVWXYZ+-.~:"),
                "Debian's form of a version",
            ),
            ("suite", plain(&self.suite, "-"), "a suite's name"),
            (
                "arch",
                ["all", "amd64", "arm64"].contains(&self.arch.as_str()),
                "all, amd64 or arm64",
            ),
            (
                "sha256",
                self.sha256.len() == 64 && self.sha256.chars().all(hex),
                "64 lower-case hex digits",
            ),
        ];
        match rules.iter().find(|(_, good, _)| !good) {
            None => Ok(()),
            Some((field, _, rule)) => Err(Error::form(
                format!("inputs.lock: {}: {field}", self.name),
                format!("must be {rule}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin() -> Pin {
        Pin {
            name: "nftables".into(),
            version: "1:1.1.3-1~deb12u1".into(),
            suite: "trixie".into(),
            arch: "amd64".into(),
            purpose: Purpose::Tool,
            sha256: "ab".repeat(32),
            size: 75864,
            needed_by: vec![],
        }
    }

    #[test]
    fn the_committed_files_fit_each_other() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inputs = Inputs::load(&dir.join("inputs.toml")).unwrap();
        let lock = Lock::load(&dir.join("inputs.lock")).unwrap();
        for p in inputs.package.iter().filter(|p| p.wanted_on(Arch::X86_64)) {
            assert!(lock.find(&p.name, Arch::X86_64).is_some(), "{} isn't pinned", p.name);
        }
        assert_eq!(lock.text().unwrap(), read_text(&dir.join("inputs.lock")).unwrap());
    }

    #[test]
    fn bad_fields_are_named() {
        type Spoil = fn(&mut Pin);
        let rows: [(&str, Spoil); 5] = [
            ("name", |p| p.name = "../x".into()),
            ("version", |p| p.version = "1;rm".into()),
            ("suite", |p| p.suite = String::new()),
            ("arch", |p| p.arch = "mips".into()),
            ("sha256", |p| p.sha256 = "AB".repeat(32)),
        ];
        for (field, spoil) in rows {
            let mut bad = pin();
            spoil(&mut bad);
            let text = toml::to_string(&Lock { package: vec![bad] }).unwrap();
            let error = Lock::parse(&text).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn inputs_that_refer_to_nothing_are_refused() {
        let head = "[suite.trixie]\nsite = \"main\"\ncomponents = [\"main\"]\n";
        let rows = [
            ("[[package]]\nname='a'\nsuite='sid'\npurpose='boot'\nreason=''", "suite `sid`"),
            (
                "[[package]]\nname='a'\nsuite='trixie'\npurpose='library'\nreason=''",
                "by themselves",
            ),
            (
                "[[package]]\nname='a'\nsuite='trixie'\npurpose='boot'\nreason=''\nonly=['mips']",
                "`mips`",
            ),
            ("[[tool]]\npackage='a'\npath=''\nto='bin/a'\nreason=''", "no package `a`"),
            ("[[package]]\nnames='a'", "unknown field"),
        ];
        for (text, wanted) in rows {
            let error = Inputs::parse(&format!("{head}{text}")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            let _ = Lock::parse(&text);
            let _ = Inputs::parse(&text);
        }

        #[test]
        fn a_lock_comes_back_as_it_was_written(
            name in "[a-z][a-z0-9+.-]{0,12}", version in "[0-9][A-Za-z0-9.~+-]{0,10}", size in 0..u64::MAX / 2
        ) {
            let lock = Lock { package: vec![Pin { name, version, size, ..pin() }] };
            prop_assert_eq!(Lock::parse(&lock.text().unwrap()).unwrap(), lock);
        }
    }
}
