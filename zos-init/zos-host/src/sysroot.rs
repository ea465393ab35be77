//! Readers over a root path, so that a directory of fixtures is a machine.
//!
//! `SysRoot::host()` reads `/`; in tests `SysRoot::at("tests/machines/dell-r620")` reads a recorded one.
//! Kernel attributes end with a newline, which is cut.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Context, Error, Result};

/// A root under which `/proc`, `/sys` and the rest are read.
#[derive(Debug, Clone)]
pub struct SysRoot {
    root: PathBuf,
}

impl SysRoot {
    /// The running machine.
    #[must_use]
    pub fn host() -> Self {
        Self::at("/")
    }

    /// A recorded machine.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where `path` (absolute or relative, both from the root) lies.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The whole file as text; bytes that aren't UTF-8 are replaced.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = self.path(path);
        let bytes = fs::read(&path).during("read", path.display())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// An attribute without the white space around it; `None` when the file is absent, can't be
    /// read (many sysfs attributes answer so while a device goes away) or is empty.
    pub fn attribute(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.read(path).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// An attribute as a number or another type that parses; an unreadable one is an error.
    pub fn parse<T: FromStr>(&self, path: impl AsRef<Path>) -> Result<T> {
        let path = path.as_ref();
        let text = self.read(path)?;
        text.trim().parse().map_err(|_| {
            Error::invalid("parse", path.display(), format!("unexpected {:?}", text.trim()))
        })
    }

    /// Names in a directory, sorted; none when it doesn't exist.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<String>> {
        let path = self.path(path);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::new("list", path.display(), error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.during("list", path.display())?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Target of a symbolic link, as written.
    pub fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::read_link(self.path(path)).ok()
    }

    /// Whether something is there.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stay_under_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/block/vda")).unwrap();
        fs::write(dir.path().join("sys/block/vda/size"), "2048\n").unwrap();
        fs::write(dir.path().join("sys/block/vda/serial"), "  \n").unwrap();
        let root = SysRoot::at(dir.path());
        assert_eq!(root.parse::<u64>("/sys/block/vda/size").unwrap(), 2048);
        assert_eq!(root.attribute("sys/block/vda/size").as_deref(), Some("2048"));
        assert_eq!(root.attribute("/sys/block/vda/serial"), None);
        assert_eq!(root.list("/sys/block").unwrap(), ["vda"]);
        assert!(root.list("/sys/nothing").unwrap().is_empty());
        assert!(root.parse::<u64>("/sys/block/vda/serial").is_err());
    }
}
