//! The folder of the sources: where each thing that the builder reads lies in it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A checkout of ZOS.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that a folder is in.
    ///
    /// # Errors
    /// When it is in none.
    pub fn around(start: &Path) -> Result<Self> {
        let root = start.ancestors().find(|d| d.join("image-builder/inputs.toml").is_file());
        match root {
            Some(root) => Ok(Self { root: root.to_owned() }),
            None => Err(Error::form(
                format!("{}", start.display()),
                "not inside a checkout of ZOS (no image-builder/inputs.toml above it)",
            )),
        }
    }

    /// The checkout that the current folder is in.
    ///
    /// # Errors
    /// When it is in none.
    pub fn here() -> Result<Self> {
        Self::around(&std::env::current_dir().map_err(Error::io("find", "."))?)
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the image is made of.
    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.root.join("image-builder/inputs.toml")
    }

    /// Exactly which bytes.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("image-builder/inputs.lock")
    }

    /// Fragments of kernel configuration.
    #[must_use]
    pub fn kernel_config(&self) -> PathBuf {
        self.root.join("kernel-config")
    }

    /// Patches of the kernel.
    #[must_use]
    pub fn kernel_patches(&self) -> PathBuf {
        self.root.join("kernel-config/patches")
    }

    /// Service units of PID 1.
    #[must_use]
    pub fn units(&self) -> PathBuf {
        self.root.join("zos-init/units")
    }

    /// Templates of transient units.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.root.join("zos-init/templates")
    }

    /// Where results go when nobody says otherwise.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.root.join("out")
    }
}
