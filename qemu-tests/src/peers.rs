//! Programs by others for a node under test: pinned packages, packed with their libraries into a folder of their own.
//!
//! ```text
//!  inputs.lock, purpose `peers` ─▶ usr/bin/varlinkctl + ELF closure ─▶ /peers/varlinkctl, /peers/libc.so.6, ..
//!                                  run as: /peers/ld-linux-x86-64.so.2 --library-path /peers /peers/varlinkctl
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use image_builder::arch::Arch;
use image_builder::cache::Cache;
use image_builder::cpio::Mode;
use image_builder::elf;
use image_builder::fetch::Fetcher;
use image_builder::inputs::Purpose;
use image_builder::project::Project;

use crate::slots::{PATIENCE, Slot};

/// The folder in the node.
const DIR: &str = "peers";

/// Programs with their libraries, to be added to an initramfs.
#[derive(Debug, Default)]
pub struct Peers {
    files: BTreeMap<String, PathBuf>,
    loader: String,
}

impl Peers {
    /// These programs, by their names, of the pinned packages.
    pub fn pinned(programs: &[&str]) -> Result<Self> {
        let tree = tree()?;
        let mut peers = Self::default();
        for name in programs {
            let places = ["usr/bin", "usr/sbin"].map(|place| tree.join(place).join(name));
            let program = places.iter().find(|path| path.exists());
            peers.add(program.with_context(|| format!("no package has {name}"))?, &tree)?;
        }
        Ok(peers)
    }

    /// Adds a program of an unpacked tree and its libraries.
    pub fn add(&mut self, program: &Path, tree: &Path) -> Result<()> {
        let closure = elf::closure(&[program.to_owned()], &[tree.to_owned()], Arch::X86_64);
        let libraries = closure.with_context(|| format!("libraries of {}", program.display()))?;
        for file in libraries.into_iter().map(|library| library.source).chain([program.to_owned()])
        {
            self.file(&file)?;
        }
        Ok(())
    }

    /// Adds a file beside the programs; gives its place in the node.
    pub fn file(&mut self, path: &Path) -> Result<String> {
        let name = path.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
        let place = format!("{DIR}/{name}");
        if name.starts_with("ld-linux") {
            self.loader = format!("/{place}");
        }
        self.files.insert(place.clone(), path.to_owned());
        Ok(format!("/{place}"))
    }

    /// The words that start a program in the node, before its arguments.
    #[must_use]
    pub fn command(&self, program: &str) -> Vec<String> {
        let dir = format!("/{DIR}");
        let program = format!("{dir}/{program}");
        vec![self.loader.clone(), "--library-path".into(), dir, program]
    }

    /// The files as an archive takes them.
    pub fn files(&self) -> Result<Vec<(String, Mode, Vec<u8>)>> {
        let mut files = vec![(DIR.to_owned(), Mode::Dir, Vec::new())];
        for (place, path) in &self.files {
            let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            files.push((place.clone(), Mode::Program, bytes));
        }
        Ok(files)
    }
}

/// The unpacked packages.
pub fn tree() -> Result<PathBuf> {
    let project = Project::around(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    // Two at once would fetch the same, and apt lets only one ask.
    let _one = Slot::one_of(&[project.root().join("target/qemu-tests/qemu.lock")], PATIENCE)?;
    let fetcher = Fetcher::open(&project, Cache::of_user()?, false)?;
    fetcher.merged(Purpose::Peers, Arch::X86_64).context("unpack the peers")
}
