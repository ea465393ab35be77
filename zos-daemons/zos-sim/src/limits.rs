//! What the system allows: open files and threads, of which each node has some.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// A kind of thing that a node has.
struct Kind {
    resource: Resource,
    name: &'static str,
    /// What a node has at most: eight runtimes of four files, its sockets, and a few callers at once;
    /// a thread for each daemon, and a few that wait for disks.
    per_node: u64,
    /// What the program has besides.
    besides: u64,
    /// Where a person raises it.
    raise: &'static str,
}

const FILES: Kind = Kind {
    resource: Resource::Nofile,
    name: "open files",
    per_node: 96,
    besides: 64,
    raise: "LimitNOFILE=, `nofile` in /etc/security/limits.conf",
};
const THREADS: Kind = Kind {
    resource: Resource::Nproc,
    name: "threads",
    per_node: 12,
    besides: 8,
    raise: "TasksMax=, `nproc` in /etc/security/limits.conf",
};

/// Raises the limits to what so many nodes need, as far as they may be.
pub(crate) fn allow(nodes: u16) -> Result<()> {
    FILES.allow(nodes)?;
    // Root has as many processes as it likes.
    if geteuid().is_root() { Ok(()) } else { THREADS.allow(nodes) }
}

impl Kind {
    fn allow(&self, nodes: u16) -> Result<()> {
        let limit = getrlimit(self.resource);
        let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
        let needed = self.besides + u64::from(nodes) * self.per_node;
        if needed > hard {
            let Self { name, raise, .. } = self;
            let fit = hard.saturating_sub(self.besides) / self.per_node;
            bail!(
                "{nodes} nodes need {needed} {name}, and this system allows {hard}: start at most \
                 {fit} nodes, or raise the limit ({raise})"
            );
        }
        if needed > soft {
            setrlimit(self.resource, Rlimit { current: Some(needed), maximum: limit.maximum })?;
        }
        Ok(())
    }
}
