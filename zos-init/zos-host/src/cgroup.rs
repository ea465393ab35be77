//! cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).
//!
//! ```text
//!  /sys/fs/cgroup ─ node (memory.min) ─ init, storaged, netd ...
//!                 └ tenants ─ <twin> (weight) ─ <deployment>.<workload> (limits)
//! ```
//! A group with children enables controllers for them; only leaves hold processes.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Result};
use crate::mount::{self, MountFlags};

mod inside;

pub use inside::Usage;

/// Where the hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A group that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// Mounts the hierarchy at [`ROOT`].
pub fn mount() -> Result<Cgroup> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount::mount("cgroup2", ROOT, "cgroup2", flags, "nsdelegate,memory_recursiveprot")?;
    Ok(Cgroup { path: ROOT.into() })
}

impl Cgroup {
    /// The folder as a group.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A group below this one, made when it is missing.
    pub fn child(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).during("create cgroup", path.display())
            }
            _ => Ok(Self { path }),
        }
    }

    /// Lets children be limited by these controllers; those that the kernel lacks are returned.
    #[must_use]
    pub fn enable<'a>(&self, controllers: &[&'a str]) -> Vec<&'a str> {
        let enable = |name: &str| self.set("cgroup.subtree_control", &format!("+{name}"));
        controllers.iter().copied().filter(|name| enable(name).is_err()).collect()
    }

    /// Writes a control file: `set("memory.max", "1073741824")`.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        // The file is the kernel's: never created here.
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).open(&path).during("open", path.display())?;
        std::io::Write::write_all(&mut file, value.as_bytes())
            .during("write", format_args!("{value} to {}", path.display()))
    }

    /// Moves a process into it; 0: the caller.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it and below it.
    pub fn kill(&self) -> Result<()> {
        self.set("cgroup.kill", "1")
    }

    /// How many processes of it were killed for want of memory, since it was made.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.event("memory.events", "oom_kill").unwrap_or(0)
    }

    /// Whether a process is in it or below it.
    #[must_use]
    pub fn populated(&self) -> bool {
        self.event("cgroup.events", "populated") == Some(1)
    }

    /// Removes it; fails while it has processes or children. A missing one is as well.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).during("remove cgroup", self.path.display())
            }
            _ => Ok(()),
        }
    }

    /// A descriptor of its folder, to start a process in it ([`crate::process::Spawn::cgroup`]).
    pub fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).during("open", self.path.display())
    }

    fn event(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }
}
