//! The places of the node's state: `/state`, on a pool or in memory, and `/mirror` on another pool; with a folder for
//! each daemon.

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

/// Shows the state of a pool (none: memory) at its place, and nothing at the other. Done already is done; what is there
/// of another disk was chosen by a storaged that died before it told anybody, or whose choice came to nothing.
pub fn prepare(pool: Option<&Pool>, places: &Places) -> Result<()> {
    hide(1, places)?;
    let shown = mount::at(&places.root, &places.state)?;
    let done = match (&shown, pool) {
        (None, _) => false,
        (Some(shown), None) => shown.fstype == "tmpfs",
        (Some(shown), Some(pool)) => shown.source == source(pool, places)?,
    };
    if !done {
        hide(0, places)?;
        match pool {
            Some(pool) => mount_copy(pool, &places.state, places)?,
            None => mount::mount("state", &places.state, "tmpfs", flags(), IN_MEMORY)?,
        }
    }
    folders(&places.state)
}

/// Shows another copy of the state at one of the two places. What is there is a disk's that is gone, or an earlier
/// coming of this one.
pub fn show(pool: &Pool, place: usize, places: &Places) -> Result<()> {
    hide(place, places)?;
    let target = at(place, places);
    mount_copy(pool, target, places)?;
    folders(target)
}

/// Shows nothing at a place any more. Who has files open there keeps them until he closes them.
pub fn hide(place: usize, places: &Places) -> Result<()> {
    let target = at(place, places);
    while mount::at(&places.root, target)?.is_some() {
        mount::unmount(target, mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}

fn at(place: usize, places: &Places) -> &Path {
    if place == 0 { &places.state } else { &places.mirror }
}

fn flags() -> mount::MountFlags {
    mount::data_only() | mount::MountFlags::NOATIME
}

fn mount_copy(pool: &Pool, target: &Path, places: &Places) -> Result<()> {
    mount::mount(&source(pool, places)?, target, "btrfs", flags(), "subvol=@state")
}

/// The device that an open pool is mounted from.
fn source(pool: &Pool, places: &Places) -> Result<String> {
    let mounted = mount::at(&places.root, &pool.root)?;
    Ok(mounted.map_or_else(String::new, |mounted| mounted.source))
}

fn folders(place: &Path) -> Result<()> {
    FOLDERS.iter().try_for_each(|(name, user)| folder(&place.join(name), *user))
}

fn folder(path: &Path, user: User) -> Result<()> {
    if !path.is_dir() {
        fs::create_dir(path).during("create", path.display())?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).during("protect", path.display())?;
    chown(path, Some(user.id()), Some(user.id())).during("give away", path.display())
}
