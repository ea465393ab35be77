//! Open files: each node has sockets, and their number has a limit.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a node opens at most: eight runtimes of four, its sockets, and a few callers at once.
const PER_NODE: u64 = 96;
/// What the program opens besides.
const BESIDES: u64 = 64;

/// Raises the limit to what so many nodes need, as far as it may be.
pub(crate) fn allow(nodes: u16) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let needed = needed(nodes);
    if needed > hard {
        bail!(
            "{nodes} nodes need {needed} open files, and this system allows {hard}: start at most {} \
             nodes, or raise the limit (LimitNOFILE=, /etc/security/limits.conf)",
            hard.saturating_sub(BESIDES) / PER_NODE
        );
    }
    if needed > soft {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })?;
    }
    Ok(())
}

fn needed(nodes: u16) -> u64 {
    BESIDES + u64::from(nodes) * PER_NODE
}
