//! What is served and to whom: passed descriptors in the jail, paths for developers.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

const FIRST_FD: RawFd = 3;
const USAGE: &str = "zos-virtiofsd --socket-path PATH --shared-dir FOLDER, or the descriptors \
                     `socket` and `folder` passed by LISTEN_FDS and LISTEN_FDNAMES";

/// What the program works on.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Where the VMM connects.
    pub(crate) socket: UnixListener,
    /// The folder.
    pub(crate) folder: OwnedFd,
}

/// Takes what was passed, or opens what was named.
pub(crate) fn take() -> Result<Passed> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if std::env::var_os("LISTEN_FDS").is_some() {
        ensure!(arguments.is_empty(), "with passed descriptors there are no arguments");
        return descriptors();
    }
    let words: Vec<&str> =
        arguments.iter().flat_map(|argument| argument.splitn(2, '=').collect::<Vec<_>>()).collect();
    let (mut socket, mut folder) = (None, None);
    for pair in words.chunks(2) {
        match pair {
            ["--socket-path", path] => socket = Some(Path::new(path)),
            ["--shared-dir", path] => folder = Some(Path::new(path)),
            _ => bail!("{USAGE}"),
        }
    }
    let (Some(socket), Some(folder)) = (socket, folder) else { bail!("{USAGE}") };
    paths(socket, folder)
}

fn descriptors() -> Result<Passed> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let (mut socket, mut folder) = (None, None);
    let count: usize = std::env::var("LISTEN_FDS")?.parse().context("LISTEN_FDS")?;
    let names: Vec<&str> = names.split(':').collect();
    ensure!(count == names.len(), "LISTEN_FDNAMES has another count than LISTEN_FDS");
    for (number, name) in (FIRST_FD..).zip(names) {
        // SAFETY: the first thing that this process does with descriptors; each number once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl_setfd(&fd, FdFlags::CLOEXEC).context("a passed descriptor isn't open")?;
        match name {
            "socket" => socket = Some(fd),
            "folder" => folder = Some(fd),
            _ => bail!("a descriptor named `{name}` was passed: {USAGE}"),
        }
    }
    let (Some(socket), Some(folder)) = (socket, folder) else { bail!("{USAGE}") };
    let fenced = FsFlags::ST_NODEV | FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC;
    let flags = fstatvfs(&folder).context("look at the folder's mount")?.flags();
    ensure!(flags.contains(fenced), "the folder's mount lacks nodev, nosuid or noexec");
    Ok(Passed { socket: UnixListener::from(socket), folder })
}

/// For developers.
fn paths(socket: &Path, folder: &Path) -> Result<Passed> {
    // One that was killed left its socket behind.
    if UnixListener::bind(socket).is_err() {
        std::fs::remove_file(socket).with_context(|| format!("remove {}", socket.display()))?;
    } else {
        let _ = std::fs::remove_file(socket);
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
    let name = folder.display();
    if rustix::process::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).context("keep our mounts to ourselves")?;
        mount_bind(folder, folder).with_context(|| format!("mount {name} on itself"))?;
        let fence = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let again = MountFlags::BIND | fence;
        mount_remount(folder, again, "").with_context(|| format!("fence {name}"))?;
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let folder = open(folder, flags, Mode::empty()).with_context(|| format!("open {name}"))?;
    Ok(Passed { socket: listener, folder })
}
