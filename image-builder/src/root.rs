//! What lies where in the node's root, before it is an archive.
//!
//! ```text
//!  /init        zos-init            first in the archive: it runs even if the rest didn't fit
//!  /manifest    sha256  size  mode  path, a line per file: PID 1 checks it before it runs a program
//!  programs     ours: change often  ─┐ two parts, so that a changed program
//!  base         foreign, firmware   ─┘ doesn't compress all the rest again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cache;
use crate::cpio::{Archive, Mode};
use crate::error::{Error, Result};

/// How often a file changes: which part of the archive it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Our programs and settings.
    Ours,
    /// Foreign programs, blobs, the guest kernel.
    Base,
}

/// One file of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Permissions.
    pub mode: Mode,
    /// Part of the archive.
    pub part: Part,
    /// Content.
    pub data: Vec<u8>,
}

/// The root: files by path without a leading slash. Folders follow from the paths.
#[derive(Clone, Debug, Default)]
pub struct Root {
    files: BTreeMap<String, File>,
    dirs: BTreeMap<String, Mode>,
}

impl Root {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    ///
    /// # Errors
    /// A path that isn't plain, or is taken.
    pub fn add(&mut self, path: &str, mode: Mode, part: Part, data: Vec<u8>) -> Result<()> {
        let plain = !path.is_empty()
            && path.split('/').all(|p| !matches!(p, "" | "." | ".."))
            && !path.contains(|c: char| c.is_whitespace() || c.is_control());
        if !plain {
            return Err(Error::form(format!("root: {path:?}"), "isn't a plain relative path"));
        }
        let file = File { mode, part, data };
        match self.files.insert(path.to_owned(), file) {
            None => Ok(()),
            Some(_) => Err(Error::form(format!("root: {path}"), "is there twice")),
        }
    }

    /// Adds an empty folder, for mounts.
    pub fn mount_point(&mut self, path: &str, mode: Mode) {
        self.dirs.insert(path.to_owned(), mode);
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Bytes of all files: what the root takes in the node's memory, but for page rounding.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.values().map(|f| f.data.len() as u64).sum()
    }

    /// The manifest that PID 1 checks: `<sha256>  <size>  <mode>  <path>`, sorted by path.
    #[must_use]
    pub fn manifest(&self) -> String {
        self.files.iter().fold(String::new(), |mut text, (path, file)| {
            let (hash, mode) = (cache::hash(&file.data), file.mode.bits() & 0o7777);
            let _ = writeln!(text, "{hash}  {}  {mode:04o}  /{path}", file.data.len());
            text
        })
    }

    /// The two archives, `init` and `manifest` first.
    ///
    /// # Errors
    /// When there is no `init`.
    pub fn archives(&self) -> Result<[Vec<u8>; 2]> {
        let Some(init) = self.files.get("init") else {
            return Err(Error::form("root", "has no init"));
        };
        let mut ours = Archive::new();
        ours.add("init", init.mode, &init.data);
        ours.add("manifest", Mode::File, self.manifest().as_bytes());
        // Folders of both parts stand in the first, so that mount points exist whatever happens to the second.
        for (path, mode) in self.all_dirs() {
            ours.add(&path, mode, &[]);
        }
        let mut base = Archive::new();
        for (path, file) in self.files.iter().filter(|(path, _)| *path != "init") {
            let archive = if file.part == Part::Ours { &mut ours } else { &mut base };
            archive.add(path, file.mode, &file.data);
        }
        Ok([ours.finish(), base.finish()])
    }

    /// Every folder, parents before children.
    fn all_dirs(&self) -> BTreeMap<String, Mode> {
        let mut dirs = self.dirs.clone();
        let paths: BTreeSet<&String> = self.files.keys().chain(self.dirs.keys()).collect();
        for path in paths {
            for (at, _) in path.match_indices('/') {
                dirs.entry(path[..at].to_owned()).or_insert(Mode::Dir);
            }
        }
        dirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::entries;

    fn sample() -> Root {
        let mut root = Root::new();
        root.add("bin/zosd", Mode::Program, Part::Ours, b"zosd".to_vec()).unwrap();
        root.add("bin/nft", Mode::Program, Part::Base, b"nft".to_vec()).unwrap();
        root.add("init", Mode::Program, Part::Ours, b"init".to_vec()).unwrap();
        root.mount_point("tmp", Mode::Shared);
        root
    }

    #[test]
    fn init_and_manifest_come_first() {
        let [ours, base] = sample().archives().unwrap();
        let names: Vec<String> = entries(&ours).unwrap().into_iter().map(|e| e.0).collect();
        assert_eq!(names, ["init", "manifest", "bin", "tmp", "bin/zosd"]);
        let names: Vec<String> = entries(&base).unwrap().into_iter().map(|e| e.0).collect();
        assert_eq!(names, ["bin/nft"]);
    }

    #[test]
    fn the_manifest_names_every_file_but_itself() {
        let manifest = sample().manifest();
        let rows: Vec<&str> = manifest.lines().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2], format!("{}  4  0755  /init", cache::hash(b"init")));
    }

    #[test]
    fn paths_are_plain_and_unique() {
        for bad in ["", "/a", "a/../b", "a//b", "a b", "a\n"] {
            assert!(Root::new().add(bad, Mode::File, Part::Ours, vec![]).is_err(), "{bad:?}");
        }
        assert!(sample().add("init", Mode::Program, Part::Ours, vec![]).is_err());
        assert!(Root::new().archives().is_err());
    }
}
