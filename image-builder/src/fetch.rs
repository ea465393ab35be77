//! Packages by their pin: from the cache if the bytes are there, else from the mirror.
//!
//! ```text
//!  pin ─▶ cache/trees/<sha256> ─yes─▶ folder
//!             │ no
//!         cache/blobs/<sha256> ─yes─▶ unpack
//!             │ no                       ▲
//!         mirror (unless --offline) ─▶ check SHA-256
//! ```
//!
//! A package in the cache needs no network at all; apt isn't even asked.

use std::path::PathBuf;
use std::process::Command;

use crate::apt::Apt;
use crate::arch::Arch;
use crate::cache::{Cache, hash_fields, hash_file};
use crate::error::{Error, Result, make_dir};
use crate::inputs::{Inputs, Lock, Pin, Purpose};
use crate::progress::{say, size};
use crate::project::Project;
use crate::tool;

/// Gets packages.
#[derive(Debug)]
pub struct Fetcher {
    /// What is wanted.
    pub inputs: Inputs,
    /// What is pinned.
    pub lock: Lock,
    /// Where it is kept.
    pub cache: Cache,
    /// The mirror.
    pub apt: Apt,
    offline: bool,
}

impl Fetcher {
    /// Reads the project's inputs and their lock.
    ///
    /// # Errors
    /// Files that can't be read or have a wrong form.
    pub fn open(project: &Project, cache: Cache, offline: bool) -> Result<Self> {
        let inputs = Inputs::load(&project.inputs())?;
        let lock = Lock::load(&project.lock())?;
        let apt = Apt::new(cache.root(), &inputs.suite);
        Ok(Self { inputs, lock, cache, apt, offline })
    }

    /// Whether the network is forbidden.
    #[must_use]
    pub fn offline(&self) -> bool {
        self.offline
    }

    /// The pin of a package.
    ///
    /// # Errors
    /// It isn't in the lock.
    pub fn pin(&self, name: &str, arch: Arch) -> Result<&Pin> {
        self.lock.find(name, arch).ok_or_else(|| {
            Error::form(
                "inputs.lock",
                format!("no pin of {name} for {arch}; run: image-builder update {name}"),
            )
        })
    }

    /// A package, unpacked: the folder that holds its files.
    ///
    /// # Errors
    /// Not pinned, left the mirror, other bytes than pinned, or not in the cache and offline.
    pub fn package(&self, name: &str, arch: Arch) -> Result<PathBuf> {
        self.tree(self.pin(name, arch)?)
    }

    /// All packages of a purpose (QEMU for the tests, say) unpacked into one folder.
    ///
    /// # Errors
    /// As [`Fetcher::package`].
    pub fn merged(&self, purpose: Purpose, arch: Arch) -> Result<PathBuf> {
        let pins: Vec<&Pin> = self.lock.of(purpose, arch).collect();
        let key = hash_fields(&pins.iter().map(|p| p.sha256.as_bytes()).collect::<Vec<_>>());
        self.unpack(&pins, self.cache.tree(&key))
    }

    /// A pinned package, unpacked.
    ///
    /// # Errors
    /// As [`Fetcher::package`].
    pub fn tree(&self, pin: &Pin) -> Result<PathBuf> {
        self.unpack(&[pin], self.cache.tree(&pin.sha256))
    }

    /// A pinned package file.
    ///
    /// # Errors
    /// As [`Fetcher::package`].
    pub fn blob(&self, pin: &Pin) -> Result<PathBuf> {
        let blob = self.cache.blob(&pin.sha256);
        if blob.exists() {
            self.cache.touch(&blob);
            return Ok(blob);
        }
        if self.offline {
            return Err(Error::Offline(format!("{} {}", pin.name, pin.version)));
        }
        self.check_served(pin)?;
        say(format!("fetching {} {} ({})", pin.name, pin.version, size(pin.size)));
        let staging = self.staging()?;
        let deb = self.apt.download(&pin.name, &pin.arch, &pin.version, staging.path())?;
        let found = hash_file(&deb)?;
        if found != pin.sha256 {
            let (name, version, wanted) =
                (pin.name.clone(), pin.version.clone(), pin.sha256.clone());
            return Err(Error::Hash { name, version, found, wanted });
        }
        self.cache.adopt(&deb)?;
        Ok(blob)
    }

    fn check_served(&self, pin: &Pin) -> Result<()> {
        let arch =
            if pin.arch == "all" { Arch::host().unwrap_or(Arch::X86_64) } else { pin_arch(pin) };
        let versions = self.apt.versions(&pin.name, arch, &pin.suite)?;
        if versions.contains(&pin.version) {
            return Ok(());
        }
        Err(Error::Gone {
            name: pin.name.clone(),
            version: pin.version.clone(),
            suite: pin.suite.clone(),
            newest: versions.first().cloned(),
        })
    }

    fn unpack(&self, pins: &[&Pin], tree: PathBuf) -> Result<PathBuf> {
        if tree.exists() {
            self.cache.touch(&tree);
            return Ok(tree);
        }
        let blobs: Vec<PathBuf> = pins.iter().map(|p| self.blob(p)).collect::<Result<_>>()?;
        tool::require(tool::FETCH)?;
        let staging = self.staging()?;
        for blob in blobs {
            tool::output(Command::new("dpkg-deb").arg("-x").arg(blob).arg(staging.path()))?;
        }
        make_dir(tree.parent().unwrap_or(self.cache.root()))?;
        match std::fs::rename(staging.keep(), &tree) {
            // Another run was quicker: the same bytes.
            Err(_) if tree.exists() => Ok(tree),
            done => done.map_err(Error::io("write", &tree)).map(|()| tree),
        }
    }

    /// A temporary folder on the cache's file system.
    pub(crate) fn staging(&self) -> Result<tempfile::TempDir> {
        let dir = self.cache.root().join("tmp");
        make_dir(&dir)?;
        tempfile::tempdir_in(&dir).map_err(Error::io("make a folder in", dir))
    }
}

/// A package by name, version and suite, for callers without a lock of their own to read: the pin must agree.
///
/// # Errors
/// As [`Fetcher::package`], or the lock pins something else.
pub fn package(
    fetcher: &Fetcher,
    name: &str,
    version: &str,
    suite: &str,
    arch: Arch,
) -> Result<PathBuf> {
    let pin = fetcher.pin(name, arch)?;
    if (pin.version.as_str(), pin.suite.as_str()) != (version, suite) {
        let pinned =
            format!("pinned is {} of {}, not {version} of {suite}", pin.version, pin.suite);
        return Err(Error::form(format!("inputs.lock: {name}"), pinned));
    }
    fetcher.tree(pin)
}

fn pin_arch(pin: &Pin) -> Arch {
    pin.arch.parse().unwrap_or(Arch::X86_64)
}
