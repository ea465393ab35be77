//! Where things lie on a node; tests have other places.

use std::path::{Path, PathBuf};

use zos_host::SysRoot;

/// The paths that storaged works with.
#[derive(Clone, Debug)]
pub struct Places {
    /// The machine.
    pub root: SysRoot,
    /// Pools are mounted in folders of their id here.
    pub pools: PathBuf,
    /// The node's state.
    pub state: PathBuf,
    /// Its copy on another disk.
    pub mirror: PathBuf,
    /// What a restarted storaged must know of this boot.
    pub memory: PathBuf,
    /// `mkfs.btrfs`.
    pub mkfs: PathBuf,
    /// `btrfs`.
    pub btrfs: PathBuf,
    /// `smartctl`.
    pub smartctl: PathBuf,
}

impl Places {
    /// Those of a node.
    pub fn node() -> Self {
        Self {
            root: SysRoot::host(),
            pools: "/run/zos/pools".into(),
            state: "/state".into(),
            mirror: "/mirror".into(),
            memory: "/run/zos/storage".into(),
            mkfs: "/bin/mkfs.btrfs".into(),
            btrfs: "/bin/btrfs".into(),
            smartctl: "/bin/smartctl".into(),
        }
    }

    /// Those of a node that stands in a folder of this computer, with its tools.
    pub fn below(folder: &Path) -> Self {
        Self {
            root: SysRoot::host(),
            pools: folder.join("pools"),
            state: folder.join("state"),
            mirror: folder.join("mirror"),
            memory: folder.join("memory"),
            mkfs: Self::tool("mkfs.btrfs"),
            btrfs: Self::tool("btrfs"),
            smartctl: Self::tool("smartctl"),
        }
    }

    /// Where this computer has a program, by the usual folders.
    pub fn tool(name: &str) -> PathBuf {
        let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let mut found = folders.iter().map(|folder| Path::new(folder).join(name));
        found.find(|path| path.exists()).unwrap_or_else(|| name.into())
    }
}
