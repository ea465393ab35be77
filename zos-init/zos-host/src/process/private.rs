//! A process's own view of the file tree: what is read-only, empty or not there for it.
//!
//! ```text
//!  /                ◀── read_only: no write anywhere ...
//!  ├ run/zos/net    ◀── writable: ... but here; and what others mount here later
//!  ├ tmp            ◀── private: an empty tmpfs of its own, gone with it
//!  ├ sys/firmware   ◀── hidden: an empty folder, or /dev/null for a file
//!  └ state          ◀── (mounted later by storaged: arrives with its own flags)
//! ```
//! The namespace is a *slave* of its parent's: mounts that are made there later arrive here too (under what
//! covers their place), and none that is made here is seen there. For that the parent's tree must be shared
//! ([`crate::mount::make_shared`]). A writable folder that somebody has mounted on already stays that mount: a copy
//! over it would hide what is mounted there in its place later, and keep alive what is unmounted.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use nix::libc;

use super::c_string;
use crate::error::Result;

/// What the child mounts for itself. Paths that are not there when it is made are left out.
#[derive(Debug)]
pub struct Mounts {
    pub(super) read_only: Vec<CString>,
    /// With room for a descriptor each: their mounts as they were before the tree became read-only. None for
    /// what is a mount itself.
    pub(super) writable: Vec<(CString, RawFd)>,
    pub(super) private: Vec<CString>,
    pub(super) hidden: Vec<(CString, bool)>,
}

/// An empty folder of its own is this large at most: memory is the twins'.
const PRIVATE: &CStr = c"size=16m,nr_inodes=4k,mode=1777";
const HIDDEN: &CStr = c"size=4k,nr_inodes=2,mode=555";
const TMPFS: &CStr = c"tmpfs";

impl Mounts {
    /// Of absolute paths; see the picture above.
    pub fn new(
        read_only: &[String],
        writable: &[String],
        private: &[String],
        hidden: &[String],
    ) -> Result<Self> {
        let there = |paths: &[String]| -> Result<Vec<CString>> {
            let there = paths.iter().filter(|path| fs::symlink_metadata(path).is_ok());
            there.map(c_string).collect()
        };
        let folder = |path: CString| {
            let found = fs::metadata(std::path::Path::new(&*path.to_string_lossy()));
            (path, found.is_ok_and(|found| found.is_dir()))
        };
        Ok(Self {
            read_only: there(read_only)?,
            writable: there(writable)?.into_iter().map(|path| (path, -1)).collect(),
            private: there(private)?,
            hidden: there(hidden)?.into_iter().map(folder).collect(),
        })
    }

    /// In the child, in a mount namespace of its own, as root.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        const DATA: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
        for (path, kept) in &mut self.writable {
            *kept = clone_tree(path)?;
            // Asked after that: it may be mounted at any time.
            if is_writable_mount(path)? {
                // SAFETY: the descriptor is ours, and used by nobody else.
                unsafe { libc::close(*kept) };
                *kept = -1;
            }
        }
        for path in &self.read_only {
            // Only a mount has flags; a folder becomes one first.
            match set_read_only(path, true) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    mount(Some(path), path, None, libc::MS_BIND | libc::MS_REC, None)?;
                    set_read_only(path, true)?;
                }
                other => other?,
            }
        }
        for (path, kept) in &self.writable {
            if *kept == -1 {
                set_read_only(path, false)?;
            } else {
                put_tree(*kept, path)?;
            }
        }
        for path in &self.private {
            mount(Some(TMPFS), path, Some(TMPFS), DATA, Some(PRIVATE))?;
        }
        for (path, folder) in &self.hidden {
            if *folder {
                mount(Some(TMPFS), path, Some(TMPFS), DATA | libc::MS_RDONLY, Some(HIDDEN))?;
            } else {
                mount(Some(c"/dev/null"), path, None, libc::MS_BIND, None)?;
            }
        }
        Ok(())
    }
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is a live C string, or null where mount(2) allows it.
    let done = unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast())
    };
    crate::sys::check(done).map(|_| ())
}

/// A copy of what is mounted at a path and below, not yet anywhere.
fn clone_tree(path: &CStr) -> io::Result<RawFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let recursive = libc::AT_RECURSIVE.cast_unsigned();
    let flags = OPEN_TREE_CLONE | recursive | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: a live C string and integers.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd == -1 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(fd).unwrap_or(-1)) }
}

fn put_tree(tree: RawFd, path: &CStr) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    // SAFETY: live C strings and integers; the descriptor is ours.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if moved == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a folder is a mount that takes writes, so that it need be no copy.
fn is_writable_mount(path: &CStr) -> io::Result<bool> {
    // linux/stat.h
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: a live C string, and a structure of the kernel's size that it fills.
    let done = unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), flags, 0, found.as_mut_ptr())
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeros are a valid one, and the kernel has filled it.
    let found = unsafe { found.assume_init() };
    if found.stx_attributes & STATX_ATTR_MOUNT_ROOT == 0 {
        return Ok(false);
    }
    let mut system = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a live C string, and a structure that is filled.
    crate::sys::check(unsafe { libc::statvfs(path.as_ptr(), system.as_mut_ptr()) })?;
    // SAFETY: as above.
    let system = unsafe { system.assume_init() };
    Ok(system.f_flag & libc::ST_RDONLY == 0)
}

/// Makes a mount and all below it read-only, or that mount alone writable.
fn set_read_only(path: &CStr, on: bool) -> io::Result<()> {
    // linux/mount.h: struct mount_attr
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let (set, clear) = if on { (MOUNT_ATTR_RDONLY, 0) } else { (0, MOUNT_ATTR_RDONLY) };
    let attributes = Attributes { set, clear, propagation: 0, user_namespace: 0 };
    // SAFETY: a live C string, and a structure of the size that is passed beside it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            if on { libc::AT_RECURSIVE } else { 0 },
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
