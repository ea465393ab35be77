//! Mounting, and reading what is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{self as sys, MountPropagationFlags};
pub use rustix::mount::{MountFlags, UnmountFlags};

use crate::SysRoot;
use crate::error::{Context, Error, Result};

mod detached;

pub use detached::{detached, grow_btrfs, owned_by};

/// Flags of a file system that holds data only: no programs, devices or set-uid bits.
#[must_use]
pub fn data_only() -> MountFlags {
    MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC
}

/// Mounts `source` (a device, or any word for a virtual file system) of type `fstype` on `target`,
/// which is created when it is missing. `options` are the file system's own, comma separated.
pub fn mount(
    source: &str,
    target: impl AsRef<Path>,
    fstype: &str,
    flags: MountFlags,
    options: &str,
) -> Result<()> {
    let target = target.as_ref();
    fs::create_dir_all(target).during("create", target.display())?;
    let options = std::ffi::CString::new(options)
        .map_err(|_| Error::invalid("mount", target.display(), "NUL in options"))?;
    sys::mount(source, target, fstype, flags, options.as_c_str())
        .during("mount", format_args!("{source} ({fstype}) on {}", target.display()))
}

/// Shows `source` at `target` too (with what is mounted below it, when `recursive`).
pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>, recursive: bool) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let done = if recursive {
        sys::mount_bind_recursive(source, target)
    } else {
        sys::mount_bind(source, target)
    };
    done.during("bind", format_args!("{} on {}", source.display(), target.display()))
}

/// Changes the flags of what is mounted on `target` (for instance to `RDONLY`).
pub fn remount(target: impl AsRef<Path>, flags: MountFlags, options: &str) -> Result<()> {
    let target = target.as_ref();
    sys::mount_remount(target, flags, options).during("remount", target.display())
}

/// Moves a whole mount to another place.
pub fn move_to(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    sys::mount_move(source, target)
        .during("move", format_args!("{} to {}", source.display(), target.display()))
}

/// Makes `target` and all below it private: later mounts don't spread to other namespaces.
pub fn make_private(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    sys::mount_change(target, flags).during("make private", target.display())
}

/// Makes `target` and all below it shared: later mounts spread to the namespaces that are slaves of this one.
pub fn make_shared(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    sys::mount_change(target, flags).during("make shared", target.display())
}

/// Unmounts what is on top at `target`.
pub fn unmount(target: impl AsRef<Path>, flags: UnmountFlags) -> Result<()> {
    let target = target.as_ref();
    sys::unmount(target, flags).during("unmount", target.display())
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique id of the mount, as long as it lives.
    pub id: u64,
    /// Id of the mount it stands on.
    pub parent: u64,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Folder of the file system that is shown (a btrfs subvolume, a bind mount's source).
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of this mount: `rw,nosuid`.
    pub options: String,
    /// Type: `btrfs`.
    pub fstype: String,
    /// Source: `/dev/vda1`.
    pub source: String,
    /// Options of the file system: `rw,subvol=/@state`.
    pub super_options: String,
}

/// All mounts of this process's namespace, in the kernel's order (a mount comes after its parent).
pub fn list(root: &SysRoot) -> Result<Vec<Mount>> {
    let text = root.read("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// What is mounted on `target`: the topmost, or nothing.
pub fn at(root: &SysRoot, target: impl AsRef<Path>) -> Result<Option<Mount>> {
    Ok(list(root)?.into_iter().rev().find(|mount| mount.target == target.as_ref()))
}

fn parse_line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let parent = left.next()?.parse().ok()?;
    let (major, minor) = left.next()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(left.next()?).into();
    let target = unescape(left.next()?).into();
    let options = left.next()?.to_owned();
    let mut right = right.splitn(3, ' ');
    Some(Mount {
        id,
        parent,
        device,
        root,
        target,
        options,
        fstype: right.next()?.to_owned(),
        source: unescape(right.next()?),
        super_options: right.next().unwrap_or_default().to_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let check = |line: &str, target: &str, fstype: &str, source: &str| {
            let mount = parse_line(line).unwrap();
            assert_eq!(
                (mount.target.to_str().unwrap(), &*mount.fstype, &*mount.source),
                (target, fstype, source)
            );
        };
        check("1 1 0:2 / / rw - rootfs none rw", "/", "rootfs", "none");
        check(
            "36 35 98:0 /@state /state rw,noatime shared:1 master:2 - btrfs /dev/vda1 rw,subvol=/@state",
            "/state",
            "btrfs",
            "/dev/vda1",
        );
        check("40 1 0:40 / /a\\040b rw - tmpfs tmp\\134fs rw", "/a b", "tmpfs", "tmp\\fs");
        assert_eq!(parse_line("nonsense"), None);
        assert_eq!(unescape("tail\\"), "tail\\");
    }

    #[test]
    fn the_host_has_a_root() {
        let mounts = list(&SysRoot::host()).unwrap();
        assert!(mounts.iter().any(|mount| mount.target == Path::new("/")));
    }
}
