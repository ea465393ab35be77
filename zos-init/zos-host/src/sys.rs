//! The two places where raw memory meets the kernel: ioctl and zeroed C structs.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// C structs for which all bits zero is a value: integers and arrays of integers only.
///
/// # Safety
/// Only for `#[repr(C)]` types in which each field is an integer or an array of such.
pub(crate) unsafe trait Plain: Copy {
    /// A value with each bit zero.
    fn zeroed() -> Self {
        // SAFETY: by the trait's promise all bits zero is a valid value.
        unsafe { std::mem::zeroed() }
    }
}

/// ioctl with a pointer to a value that the kernel reads or writes.
///
/// # Safety
/// `request` must be one whose argument is a `T` and nothing larger.
pub(crate) unsafe fn ioctl_with<T>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: &mut T,
) -> io::Result<libc::c_int> {
    // SAFETY: the caller promises that the request works on a `T`; the reference is live and exclusive.
    unsafe { ioctl_ptr(fd, request, &raw mut *argument) }
}

/// ioctl with a pointer to the begin of a structure of variable length.
///
/// # Safety
/// What the kernel reads and writes behind `argument` must be memory of the caller alone.
pub(crate) unsafe fn ioctl_ptr<T>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: *mut T,
) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise about the memory behind the pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) })
}

/// ioctl with an integer argument, or none (0).
///
/// # Safety
/// `request` must be one whose argument is an integer, not a pointer.
pub(crate) unsafe fn ioctl_int(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: libc::c_ulong,
) -> io::Result<libc::c_int> {
    // SAFETY: the caller promises that the kernel doesn't follow the argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) })
}

/// A system call's -1 as the error it stands for.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
