//! The file system and its daemon, both of the crate `virtiofsd` and its kin.

use crate::give_up;
use crate::passed::Passed;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, getegid, geteuid, getrlimit};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use vhost::vhost_user::{Error as TalkError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use virtiofsd::passthrough::{CachePolicy, Config, PassthroughFs};
use virtiofsd::soft_idmap::cmdline::IdMap;
use virtiofsd::vhost_user::VhostUserFsBackendBuilder;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Descriptors that the program needs besides the guest's files.
const OWN_FDS: u64 = 256;
/// How long a guest may take names and attributes for true. Others may change the folder.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Who owns what isn't the owner's, as the guest sees it: nobody.
const NOBODY: u32 = 65_534;

/// Serves until the VMM is gone.
pub(crate) fn run(Passed { socket, folder }: Passed) -> Result<()> {
    let path_only = OFlags::PATH | OFlags::CLOEXEC;
    // Opened while there are paths: descriptors are opened anew through it.
    let own_fds = open("/proc/self/fd", path_only, Mode::empty())
        .context("open /proc/self/fd: the template needs `proc = true`")?;
    rustix::process::fchdir(&folder).context("enter the folder")?;
    // Where the capability is there. In the jail the root is empty anyhow.
    let is_root = rustix::process::chroot(".").is_ok();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let config = Config {
        entry_timeout: TIMEOUT,
        attr_timeout: TIMEOUT,
        cache_policy: CachePolicy::Auto,
        root_dir: if is_root { "/" } else { "." }.to_owned(),
        proc_sfd_rawfd: Some(File::from(own_fds)),
        uid_map: Some(only(geteuid().as_raw())),
        gid_map: Some(only(getegid().as_raw())),
        guest_fd_limit: files.saturating_sub(OWN_FDS),
        ..Config::default()
    };
    give_up::everything(folder.as_fd())?;
    let fs = PassthroughFs::new(config).context("make the file system")?;
    let fs = VhostUserFsBackendBuilder::default().build(fs);
    let fs = Arc::new(fs.map_err(|error| anyhow!("make the back-end: {error}"))?);
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new("zos-virtiofsd".to_owned(), fs, memory);
    let mut daemon = daemon.map_err(|error| anyhow!("make the daemon: {error}"))?;
    let mut listener = Listener::from(socket);
    daemon.start(&mut listener).map_err(|error| anyhow!("accept the VMM: {error}"))?;
    match daemon.wait() {
        Ok(()) | Err(DaemonError::HandleRequest(TalkError::Disconnected)) => {}
        Err(error) => bail!("serve: {error}"),
    }
    // Its threads have nobody left to work for, and wait for no word of an end.
    std::process::exit(0);
}

/// The guest's root is the owner (the last number is nobody's: it means "unchanged"), and so is everybody else in the guest; what belongs to others on
/// the host is nobody's there.
fn only(owner: u32) -> Vec<IdMap> {
    let mut map = vec![
        IdMap::Bidirectional { guest: 0, host: owner, count: 1 },
        IdMap::SquashGuest { from_guest: 1, to_host: owner, count: u32::MAX - 1 },
    ];
    let above = owner.saturating_add(1);
    for (from_host, count) in [(0, owner), (above, u32::MAX - above)] {
        if count > 0 {
            map.push(IdMap::SquashHost { from_host, to_guest: NOBODY, count });
        }
    }
    map
}
