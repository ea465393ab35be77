//! File systems that are mounted nowhere: who holds a descriptor reaches them, and nobody else.
//!
//! ```text
//!  fsopen ─ source ─ create ─ fsmount ─▶ descriptor of the root ─ passed on ─▶ its holders
//!                                          │ owned_by: what root owns there is shown as one user's
//!                                          └ with the last descriptor the mount goes
//! ```
//! Two mounts of one source are of one file system: the kernel finds it mounted already.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::error::{Context, Error, Result};
use crate::sys::{self, Plain};

/// Mounts `source` nowhere, as a file system that holds data only, and gives its root (as by `O_PATH`). `options`
/// are the file system's own.
pub fn detached(source: &str, fstype: &str, options: &[(&str, &str)]) -> Result<OwnedFd> {
    let what = format_args!("{source} ({fstype})");
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).during("mount", what)?;
    let told = |error| refusal(&context, error);
    for (key, value) in [("source", source)].iter().chain(options) {
        fsconfig_set_string(&context, *key, *value).map_err(told).during("mount", what)?;
    }
    fsconfig_create(&context).map_err(told).during("mount", what)?;
    let data_only = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, data_only).map_err(told).during("mount", what)
}

/// The kernel says in words what it refused, as the context's content.
fn refusal(context: &OwnedFd, error: rustix::io::Errno) -> io::Error {
    let mut words = [0; 512];
    match rustix::io::read(context, &mut words) {
        Ok(length) if length > 0 => {
            let words = String::from_utf8_lossy(&words[..length]);
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{}: {error}", words.trim()))
        }
        _ => error.into(),
    }
}

/// Shows what root owns in a detached mount as a user's, and what that user makes there is root's on the disk.
/// Nobody else's files can be made there. Once only, and before anything is opened in it for writing.
///
/// The caller must be single-threaded: it has a child for a moment, a copy of itself.
pub fn owned_by(mount: BorrowedFd<'_>, user: u32) -> Result<()> {
    let namespace = user_namespace(user)?;
    let mut attributes = MountAttr::zeroed();
    attributes.attr_set = MOUNT_ATTR_IDMAP;
    attributes.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    // SAFETY: mount_setattr(2) reads an empty C string and `size` bytes of a struct of that size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    let done = if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    done.during("map the owner of a mount to", user)
}

// linux/mount.h: struct mount_attr
#[repr(C)]
#[derive(Clone, Copy)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

// SAFETY: integers.
unsafe impl Plain for MountAttr {}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// A user namespace in which root is that user, and nobody else is anybody. No process is left in it.
fn user_namespace(user: u32) -> Result<OwnedFd> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child gets a copy of our memory, as with fork, and makes one system call that
    // touches none until it is killed.
    let child = match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => return Err(io::Error::last_os_error()).during("make", "user namespace"),
        0 => loop {
            // SAFETY: pause takes nothing.
            unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
        },
        pid => pid,
    };
    let made = map(child, user);
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::invalid("make", "user namespace", "odd pid"))?;
    kill_process(pid, Signal::KILL).during("end", "the maker of a user namespace")?;
    while let Err(rustix::io::Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
    made
}

fn map(child: i64, user: u32) -> Result<OwnedFd> {
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{child}/{map}");
        fs::write(&path, format!("0 {user} 1")).during("write", path)?;
    }
    let path = format!("/proc/{child}/ns/user");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", path)
}

/// Grows a mounted btrfs to the end of its device; nothing happens if it is there.
pub fn grow_btrfs(root: impl AsFd) -> Result<()> {
    // linux/btrfs.h: BTRFS_IOC_RESIZE, struct btrfs_ioctl_vol_args
    const BTRFS_IOC_RESIZE: u32 = 0x5000_9403;
    let mut arguments = VolumeArguments::zeroed();
    arguments.name[..5].copy_from_slice(b"1:max");
    // The mount itself is known by its path only.
    let root = rustix::fs::openat(root, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.during("open", "a mounted btrfs")?;
    // SAFETY: the request reads one struct of this size.
    let done = unsafe { sys::ioctl_with(root.as_fd(), BTRFS_IOC_RESIZE, &mut arguments) };
    done.map(drop).during("grow", "a mounted btrfs")
}

#[repr(C)]
#[derive(Clone, Copy)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4088],
}

// SAFETY: integers and an array of integers.
unsafe impl Plain for VolumeArguments {}
