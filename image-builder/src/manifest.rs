//! `manifest.json`: what was built, from what, how large; and the gate that keeps it small.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::cache::hash;
use crate::error::{Error, Result};
use crate::inputs::Pin;
use crate::kernel::Facts;
use crate::progress::size;

/// Bytes of all files in the root: they stay in the node's memory.
pub const ROOT_LIMIT: u64 = 64_000_000;
/// Bytes of `zos.efi`: firmware refuses large ones, and boot media are slow.
pub const UKI_LIMIT: u64 = 80_000_000;
/// Bytes of `zos.efi` without firmware and microcode.
pub const UKI_BARE_LIMIT: u64 = 32_000_000;
/// Programs that a node can start.
pub const PROGRAMS_LIMIT: u64 = 15;

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Manifest {
    /// Version of ZOS.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// SHA-256 of the root's own `/manifest`: the node shows it as its image.
    pub image: String,
    /// What lies beside this file.
    pub files: BTreeMap<String, Output>,
    /// What was measured against a limit.
    pub sizes: BTreeMap<String, Gate>,
    /// Both kernels.
    pub kernels: Vec<Facts>,
    /// What isn't ours in the root.
    pub foreign: Vec<Foreign>,
    /// Every package that went in.
    pub inputs: Vec<Pin>,
}

/// A file that was written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Output {
    /// Bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: String,
}

/// A size and what it may be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Gate {
    /// Measured.
    pub value: u64,
    /// Allowed.
    pub limit: u64,
}

/// A foreign file in the root.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Foreign {
    /// Path on the node.
    pub path: String,
    /// Debian package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Why it is there.
    pub reason: String,
    /// Bytes.
    pub size: u64,
}

impl Foreign {
    /// From a pin.
    #[must_use]
    pub fn new(path: &str, pin: &Pin, reason: &str, size: usize) -> Self {
        Self {
            path: format!("/{path}"),
            package: pin.name.clone(),
            version: pin.version.clone(),
            reason: reason.to_owned(),
            size: size as u64,
        }
    }
}

impl Output {
    /// Of bytes.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self { size: data.len() as u64, sha256: hash(data) }
    }
}

impl Manifest {
    /// An empty one.
    #[must_use]
    pub fn new(version: &str, arch: Arch, image: String) -> Self {
        Self {
            version: version.to_owned(),
            arch: arch.name().to_owned(),
            image,
            files: BTreeMap::new(),
            sizes: BTreeMap::new(),
            kernels: Vec::new(),
            foreign: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Records a size with its limit.
    pub fn measure(&mut self, what: &str, value: u64, limit: u64) {
        self.sizes.insert(what.to_owned(), Gate { value, limit });
    }

    /// Fails when something grew beyond its limit.
    ///
    /// # Errors
    /// [`Error::Size`] with everything that did.
    pub fn gate(&self) -> Result<()> {
        let over = self.sizes.iter().filter(|(_, gate)| gate.value > gate.limit);
        let lines: Vec<String> = over
            .map(|(what, gate)| format!("{what}: {} (limit {})", gate.value, gate.limit))
            .collect();
        if lines.is_empty() { Ok(()) } else { Err(Error::Size(lines)) }
    }

    /// As it is written.
    ///
    /// # Errors
    /// Never, for values that JSON can express.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::form("manifest.json", e.to_string()))?;
        Ok(text + "\n")
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows: Vec<(String, String)> =
            self.files.iter().map(|(name, file)| (name.clone(), size(file.size))).collect();
        rows.extend(self.sizes.iter().map(|(what, g)| match g.limit {
            0..1000 => (what.clone(), format!("{} of at most {}", g.value, g.limit)),
            _ => (what.clone(), format!("{} of at most {}", size(g.value), size(g.limit))),
        }));
        rows.iter().map(|(name, text)| format!("  {name:<28}{text}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_names_what_is_too_large() {
        let mut manifest = Manifest::new("0.1.0", Arch::X86_64, String::new());
        manifest.measure("root", 64, 64);
        assert!(manifest.gate().is_ok());
        manifest.measure("zos.efi", 81, 80);
        let error = manifest.gate().unwrap_err().to_string();
        assert!(error.contains("zos.efi: 81 (limit 80)") && !error.contains("root"), "{error}");
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let mut manifest = Manifest::new("0.1.0", Arch::X86_64, "ab".into());
        manifest.files.insert("vmlinuz".into(), Output::of(b"abc"));
        manifest.measure("root", 5, ROOT_LIMIT);
        let text = manifest.text().unwrap();
        let read: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!(read.text().unwrap(), text);
        assert!(manifest.table().contains("vmlinuz                     3 B"));
    }
}
