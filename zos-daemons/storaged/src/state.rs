//! The place of the node's state: `/state`, on a pool or in memory, with a folder for each daemon.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use zos_api::local::User;
use zos_host::{Context, Result, mount};

use crate::Places;
use crate::pool::Pool;

/// The daemons that keep something, with their folders.
const FOLDERS: [(&str, User); 6] = [
    ("storage", User::Storage),
    ("identity", User::Identity),
    ("net", User::Net),
    ("vm", User::Vm),
    ("provision", User::Provision),
    ("api", User::Api),
];

/// State in memory is bounded: it is kilobytes, and memory is the twins'.
const IN_MEMORY: &str = "size=64m,mode=755";

/// Shows the state of a pool (none: memory) at its place. Done already is done.
pub fn prepare(pool: Option<&Pool>, places: &Places) -> Result<()> {
    if mount::at(&places.root, &places.state)?.is_none() {
        let flags = mount::data_only() | mount::MountFlags::NOATIME;
        match pool {
            Some(pool) => {
                let mounted = mount::at(&places.root, &pool.root)?;
                let source = mounted.map_or_else(String::new, |mounted| mounted.source);
                mount::mount(&source, &places.state, "btrfs", flags, "subvol=@state")?;
            }
            None => mount::mount("state", &places.state, "tmpfs", flags, IN_MEMORY)?,
        }
    }
    FOLDERS.iter().try_for_each(|(name, user)| folder(&places.state.join(name), *user))
}

fn folder(path: &Path, user: User) -> Result<()> {
    if !path.is_dir() {
        fs::create_dir(path).during("create", path.display())?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).during("protect", path.display())?;
    chown(path, Some(user.id()), Some(user.id())).during("give away", path.display())
}
