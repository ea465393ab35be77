//! The cache: everything that was fetched or built once, under the user's cache folder.
//!
//! ```text
//! ~/.cache/zos/
//!   blobs/<sha256>              files as fetched; the name is the content
//!   trees/<sha256>/             a package, unpacked
//!   kernels/<key>/              vmlinuz, config, modinfo; the key hashes what went in
//!   debian/<key>/               a stock Debian for tests: kernel, initrd, root disk
//!   segments/<key>              compressed parts of an initramfs
//!   apt/                        apt's own lists, for the suites that inputs.toml names
//!   build/linux-<version>/      kernel source and object folders: may go at any time
//!   ccache/                     the compiler's cache: may go at any time
//! ```
//!
//! A name says what the bytes are, so nothing here goes stale; `prune` removes what is old.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result, make_dir};

/// Folders whose entries stand for themselves, and may be pruned one by one.
const SHELVES: [&str; 6] = ["blobs", "trees", "kernels", "debian", "segments", "build"];

/// The cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// One entry of the cache, for `cache list`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which shelf: "blobs", "kernels" ...
    pub shelf: &'static str,
    /// Name on the shelf.
    pub name: String,
    /// Bytes on disk.
    pub size: u64,
    /// When it was last used, as far as its time tells.
    pub used: SystemTime,
    /// Where it lies.
    pub path: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/zos`, else `~/.cache/zos`.
    ///
    /// # Errors
    /// When neither variable is set.
    pub fn of_user() -> Result<Self> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".cache")));
        let base = base.ok_or_else(|| {
            Error::form("the cache folder", "neither XDG_CACHE_HOME nor HOME is set")
        })?;
        Ok(Self::at(base.join("zos")))
    }

    /// A cache in a folder of one's own.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file with this hash lies, or would lie.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(sha256)
    }

    /// Where a package with this hash is unpacked.
    #[must_use]
    pub fn tree(&self, sha256: &str) -> PathBuf {
        self.root.join("trees").join(sha256)
    }

    /// Where a kernel with this key lies.
    #[must_use]
    pub fn kernel(&self, key: &str) -> PathBuf {
        self.root.join("kernels").join(key)
    }

    /// Where a Debian with this key lies.
    #[must_use]
    pub fn debian(&self, key: &str) -> PathBuf {
        self.root.join("debian").join(key)
    }

    /// Where a compressed part of an initramfs lies.
    #[must_use]
    pub fn segment(&self, key: &str) -> PathBuf {
        self.root.join("segments").join(key)
    }

    /// Where one kernel version is built.
    #[must_use]
    pub fn build(&self, version: &str) -> PathBuf {
        self.root.join("build").join(format!("linux-{version}"))
    }

    /// Takes a file into the blobs, if its bytes are the ones wanted.
    ///
    /// # Errors
    /// Reading or moving; the hash is returned for the caller to judge.
    pub fn adopt(&self, file: &Path) -> Result<String> {
        let hash = hash_file(file)?;
        let place = self.blob(&hash);
        make_dir(&self.root.join("blobs"))?;
        std::fs::copy(file, place.with_extension("part")).map_err(Error::io("copy", file))?;
        std::fs::rename(place.with_extension("part"), &place).map_err(Error::io("write", place))?;
        Ok(hash)
    }

    /// Marks an entry as used now, for `prune`. Failing to is harmless.
    pub fn touch(&self, path: &Path) {
        if let Ok(file) = std::fs::File::open(path) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Everything, with sizes; a little slow on a large cache.
    ///
    /// # Errors
    /// A shelf that can't be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for shelf in SHELVES {
            let dir = self.root.join(shelf);
            if !dir.exists() {
                continue;
            }
            for entry in std::fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
                let path = entry.map_err(Error::io("read", &dir))?.path();
                let used =
                    path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                entries.push(Entry { shelf, name, size: disk_size(&path), used, path });
            }
        }
        entries.sort_by(|a, b| (a.shelf, &a.name).cmp(&(b.shelf, &b.name)));
        Ok(entries)
    }

    /// Removes what wasn't used for `age`, but nothing that `keep` holds; gives what went.
    ///
    /// # Errors
    /// An entry that can't be removed.
    pub fn prune(
        &self,
        age: Duration,
        now: SystemTime,
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>> {
        let old = |e: &Entry| now.duration_since(e.used).is_ok_and(|unused| unused >= age);
        let mut gone = self.list()?;
        gone.retain(|e| old(e) && !keep(e));
        for entry in &gone {
            let removed = if entry.path.is_dir() {
                std::fs::remove_dir_all(&entry.path)
            } else {
                std::fs::remove_file(&entry.path)
            };
            removed.map_err(Error::io("remove", &entry.path))?;
        }
        Ok(gone)
    }
}

/// SHA-256 of bytes, as lower-case hex.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of several fields that can't run into each other: each is preceded by its length.
#[must_use]
pub fn hash_fields(fields: &[&[u8]]) -> String {
    let mut state = Sha256::new();
    for field in fields {
        state.update((field.len() as u64).to_le_bytes());
        state.update(field);
    }
    hex::encode(state.finalize())
}

/// SHA-256 of a file, read in pieces.
///
/// # Errors
/// Reading it.
pub fn hash_file(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut state = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(Error::io("read", path))? {
            0 => return Ok(hex::encode(state.finalize())),
            n => state.update(&piece[..n]),
        }
    }
}

fn disk_size(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.flatten().map(|e| disk_size(&e.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_under_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        let file = dir.path().join("a");
        std::fs::write(&file, "abc").unwrap();
        let hash = cache.adopt(&file).unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(cache.blob(&hash)).unwrap(), b"abc");
        assert_eq!(hash_file(&file).unwrap(), super::hash(b"abc"));
    }

    #[test]
    fn prune_takes_the_old_and_leaves_the_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().to_owned());
        for name in ["old", "kept", "new"] {
            let path = cache.blob(name);
            make_dir(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(&path).unwrap();
            if name != "new" {
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        }
        let gone = cache
            .prune(Duration::from_secs(3600), SystemTime::now(), |e| e.name == "kept")
            .unwrap();
        assert_eq!(gone.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["old"]);
        assert_eq!(cache.list().unwrap().len(), 2);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(hash_fields(&[b"ab", b"c"]), hash_fields(&[b"a", b"bc"]));
    }
}
