//! The tap's few ioctls (`linux/if_tun.h`).
//!
//! ```text
//!  a tap with one queue:   one descriptor
//!  IFF_MULTI_QUEUE:        a descriptor for each pair, all of one interface; each can be attached
//!                          and detached for a while
//! ```
#![allow(unsafe_code)]

use super::features::TUN_USO;
use super::header;
use std::ffi::{c_int, c_short, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNGETIFF: c_ulong = 0x8004_54d2;
/// These two also the seccomp filter of the network's workers lets pass.
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETQUEUE: c_ulong = 0x4004_54d9;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const IFF_TAP: c_short = 0x0002;
const IFF_NO_PI: c_short = 0x1000;
const IFF_VNET_HDR: c_short = 0x4000;
const IFF_MULTI_QUEUE: c_short = 0x0100;
const IFF_ATTACH_QUEUE: c_short = 0x0200;
const IFF_DETACH_QUEUE: c_short = 0x0400;
const NEEDED: c_short = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
const NAME_BYTES: usize = 16;
/// More frames than a tap's queue holds, unless somebody made it longer.
const MOST_STALE: usize = 4096;

/// The host's end of a network interface: a descriptor for each pair of queues.
#[derive(Debug)]
pub struct Taps(Vec<Tap>);

/// One queue of a tap, whose frames carry the 12-byte header.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    #[cfg(any(test, feature = "fuzzing"))]
    record: Option<Record>,
}

/// What a test's tap was told.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) type Record = std::sync::Arc<std::sync::Mutex<Vec<Told>>>;

#[cfg(any(test, feature = "fuzzing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Offloads(u32),
    Attached(usize, bool),
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
    #[error("attach to tap {name} (make it with `ip tuntap add {name} mode tap vnet_hdr{more}`)")]
    Attach {
        /// The interface.
        name: String,
        /// What else it needs.
        more: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// Not a tap.
    #[error("the descriptor is no tap")]
    NoTap(#[source] io::Error),
    /// A tap of another kind.
    #[error("the tap must have been made with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, but has {0:#x}")]
    Flags(c_short),
    /// Several descriptors that don't belong together.
    #[error("pairs of queues need descriptors of one tap, made with IFF_MULTI_QUEUE")]
    Pairs,
    /// Setting it up.
    #[error("set up the tap")]
    Setup(#[source] io::Error),
}

/// `struct ifreq`, the part that taps use.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: c_short,
    rest: [u8; 22],
}

impl InterfaceRequest {
    fn new(flags: c_short) -> Self {
        Self { name: [0; NAME_BYTES], flags, rest: [0; 22] }
    }
}

impl Taps {
    /// Takes descriptors that are attached to one tap, one for each pair of queues.
    ///
    /// # Errors
    /// They aren't, or not with the flags that we need.
    pub fn from_files(files: Vec<File>) -> Result<Self, TapError> {
        let several = files.len() > 1;
        let mut name = None;
        let mut taps = Vec::with_capacity(files.len());
        for file in files {
            let (tap, its) = Tap::from_file(file)?;
            if several && its.flags & IFF_MULTI_QUEUE == 0
                || name.replace(its.name).is_some_and(|name| name != its.name)
            {
                return Err(TapError::Pairs);
            }
            taps.push(tap);
        }
        if taps.is_empty() {
            return Err(TapError::Pairs);
        }
        // Until a driver uses them.
        taps.iter().skip(1).try_for_each(|tap| tap.set_attached(false)).map_err(TapError::Setup)?;
        Ok(Self(taps))
    }

    /// Attaches to a tap by its name, making it if need be (developers).
    ///
    /// # Errors
    /// No tun device, or no permission.
    pub fn open(name: &str, pairs: u16) -> Result<Self, TapError> {
        let several = if pairs > 1 { IFF_MULTI_QUEUE } else { 0 };
        let attach = |_| match attach(name, several) {
            // One that was made for many takes a single one too, by this flag.
            Err(TapError::Attach { source, .. })
                if pairs == 1 && source.kind() == io::ErrorKind::InvalidInput =>
            {
                attach(name, IFF_MULTI_QUEUE)
            }
            result => result,
        };
        Self::from_files((0..pairs).map(attach).collect::<Result<_, _>>()?)
    }

    /// Pairs of queues.
    pub(super) fn pairs(&self) -> usize {
        self.0.len()
    }

    /// Whether its kernel cuts UDP's segments.
    pub(super) fn has_uso(&self) -> bool {
        let has = self.0[0].set_offloads(TUN_USO).is_ok();
        // Nothing is agreed on yet.
        let _ = self.0[0].set_offloads(0);
        has
    }

    pub(super) fn into_inner(self) -> Vec<Tap> {
        self.0
    }

    /// Packet sockets in a tap's place, which note what they are told.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_sockets(sockets: Vec<std::os::fd::OwnedFd>) -> (Self, Record) {
        let record = Record::default();
        let tap = |fd| Tap { file: File::from(fd), record: Some(record.clone()) };
        (Self(sockets.into_iter().map(tap).collect()), record)
    }
}

fn attach(name: &str, several: c_short) -> Result<File, TapError> {
    let mut request = InterfaceRequest::new(NEEDED | several);
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(TapError::Name(name.to_owned()));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun");
    let file = file.map_err(TapError::Open)?;
    let more = if several == 0 { "" } else { " multi_queue" };
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, 40 bytes, as `InterfaceRequest` has.
    unsafe { ioctl(&file, TUNSETIFF, &raw mut request) }.map_err(|source| TapError::Attach {
        name: name.to_owned(),
        more,
        source,
    })?;
    Ok(file)
}

impl Tap {
    fn from_file(file: File) -> Result<(Self, InterfaceRequest), TapError> {
        let mut request = InterfaceRequest::new(0);
        // SAFETY: TUNGETIFF writes a `struct ifreq`, 40 bytes, as `InterfaceRequest` has.
        unsafe { ioctl(&file, TUNGETIFF, &raw mut request) }.map_err(TapError::NoTap)?;
        if request.flags & NEEDED != NEEDED {
            return Err(TapError::Flags(request.flags));
        }
        let mut bytes = c_int::try_from(header::BYTES).unwrap_or(0);
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        unsafe { ioctl(&file, TUNSETVNETHDRSZ, &raw mut bytes) }.map_err(TapError::Setup)?;
        let flags = rustix::fs::fcntl_getfl(&file)
            .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK));
        flags.map_err(|errno| TapError::Setup(errno.into()))?;
        let tap = Self {
            file,
            #[cfg(any(test, feature = "fuzzing"))]
            record: None,
        };
        Ok((tap, request))
    }

    /// Tells the tap what the guest can take (`TUN_F_*`).
    pub(super) fn set_offloads(&self, flags: u32) -> io::Result<()> {
        #[cfg(any(test, feature = "fuzzing"))]
        if let Some(record) = &self.record {
            record.lock().unwrap().push(Told::Offloads(flags));
            return Ok(());
        }
        // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
        let returned = unsafe { libc::ioctl(self.file.as_raw_fd(), request(TUNSETOFFLOAD), flags) };
        if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Attaches or detaches this queue.
    pub(super) fn set_attached(&self, attached: bool) -> io::Result<()> {
        #[cfg(any(test, feature = "fuzzing"))]
        if let Some(record) = &self.record {
            let told = Told::Attached(self.file.as_raw_fd().unsigned_abs() as usize, attached);
            record.lock().unwrap().push(told);
            return Ok(());
        }
        let flag = if attached { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
        let mut request = InterfaceRequest::new(flag);
        // SAFETY: TUNSETQUEUE reads a `struct ifreq`, 40 bytes, as `InterfaceRequest` has.
        unsafe { ioctl(&self.file, TUNSETQUEUE, &raw mut request) }
    }

    /// Throws away what waits: frames of a driver before.
    pub(super) fn drain(&self) {
        use std::io::Read;
        let mut byte = [0];
        // A frame is gone with its first byte read.
        for _ in 0..MOST_STALE {
            if (&self.file).read(&mut byte).is_err() {
                break;
            }
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
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
