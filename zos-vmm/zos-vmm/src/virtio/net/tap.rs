//! The tap's few ioctls (`linux/if_tun.h`).
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_short, c_uint, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNGETIFF: c_ulong = 0x8004_54d2;
/// Also what the seccomp filter of the network's worker lets pass.
pub(crate) const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const IFF_TAP: c_short = 0x0002;
const IFF_NO_PI: c_short = 0x1000;
const IFF_VNET_HDR: c_short = 0x4000;
const TUN_F_CSUM: c_uint = 1;
const TUN_F_TSO4: c_uint = 2;
const TUN_F_TSO6: c_uint = 4;
const NAME_BYTES: usize = 16;
/// `virtio_net_hdr` with `num_buffers`.
const HEADER_BYTES: c_int = 12;

/// A tap whose frames carry the 12-byte header.
#[derive(Debug)]
pub struct Tap(File);

/// What the guest can take from the tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offloads {
    pub(super) checksum: bool,
    pub(super) tso4: bool,
    pub(super) tso6: bool,
}

/// Why a descriptor isn't a tap for us.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No such device.
    #[error("open /dev/net/tun (is CONFIG_TUN in the kernel, and may this user open it?)")]
    Open(#[source] io::Error),
    /// Its name.
    #[error("`{0}` is no name of an interface: 1 to 15 bytes")]
    Name(String),
    /// Attaching to it.
    #[error("attach to tap {name} (make it with `ip tuntap add {name} mode tap vnet_hdr`)")]
    Attach {
        /// The interface.
        name: String,
        /// Cause.
        source: io::Error,
    },
    /// Not a tap.
    #[error("the descriptor is no tap")]
    NoTap(#[source] io::Error),
    /// A tap of another kind.
    #[error("the tap must have been made with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, but has {0:#x}")]
    Flags(c_short),
    /// Setting it up.
    #[error("set up the tap")]
    Setup(#[source] io::Error),
}

/// `struct ifreq`, the part that taps use.
#[repr(C)]
struct InterfaceRequest {
    name: [c_char; NAME_BYTES],
    flags: c_short,
    rest: [u8; 22],
}

impl InterfaceRequest {
    fn empty() -> Self {
        Self { name: [0; NAME_BYTES], flags: 0, rest: [0; 22] }
    }
}

impl Tap {
    /// Takes a descriptor that is attached to a tap.
    ///
    /// # Errors
    /// It isn't one with the flags that we need.
    pub fn from_file(file: File) -> Result<Self, TapError> {
        let mut request = InterfaceRequest::empty();
        // SAFETY: TUNGETIFF writes a `struct ifreq`, 40 bytes, as `InterfaceRequest` has.
        unsafe { ioctl(&file, TUNGETIFF, &raw mut request) }.map_err(TapError::NoTap)?;
        let needed = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        if request.flags & needed != needed {
            return Err(TapError::Flags(request.flags));
        }
        let mut header: c_int = HEADER_BYTES;
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        unsafe { ioctl(&file, TUNSETVNETHDRSZ, &raw mut header) }.map_err(TapError::Setup)?;
        let flags = rustix::fs::fcntl_getfl(&file)
            .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK));
        flags.map_err(|errno| TapError::Setup(errno.into()))?;
        Ok(Self(file))
    }

    /// Attaches to a tap by its name, making it if need be (developers).
    ///
    /// # Errors
    /// No tun device, or no permission.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let mut request = InterfaceRequest::empty();
        if name.is_empty() || name.len() >= NAME_BYTES {
            return Err(TapError::Name(name.to_owned()));
        }
        for (target, byte) in request.name.iter_mut().zip(name.bytes()) {
            *target = byte as libc::c_char;
        }
        request.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let file = File::options().read(true).write(true).open("/dev/net/tun");
        let file = file.map_err(TapError::Open)?;
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, 40 bytes, as `InterfaceRequest` has.
        unsafe { ioctl(&file, TUNSETIFF, &raw mut request) }
            .map_err(|source| TapError::Attach { name: name.to_owned(), source })?;
        Self::from_file(file)
    }

    /// Tells the tap what the guest can take.
    pub(super) fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let bit = |on: bool, bit: c_uint| if on { bit } else { 0 };
        let mut flags = bit(offloads.checksum, TUN_F_CSUM);
        // The tap takes segments only with checksums left out.
        if offloads.checksum {
            flags |= bit(offloads.tso4, TUN_F_TSO4) | bit(offloads.tso6, TUN_F_TSO6);
        }
        // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
        let returned = unsafe { libc::ioctl(self.0.as_raw_fd(), request(TUNSETOFFLOAD), flags) };
        if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An ioctl with a pointer.
///
/// # Safety
/// `argument` must be what this request reads and writes.
unsafe fn ioctl<T>(file: &File, code: c_ulong, argument: *mut T) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let returned = unsafe { libc::ioctl(file.as_raw_fd(), request(code), argument) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The request's type: unsigned long for glibc, int for musl; the bits are the same.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::unnecessary_cast)]
fn request(code: c_ulong) -> libc::Ioctl {
    code as libc::Ioctl
}
