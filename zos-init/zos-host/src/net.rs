//! The two things about the network that every process needs before a network: a name and loopback.

use std::os::fd::AsFd;

use nix::libc;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Context, Result};
use crate::sys;

const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;

#[repr(C)]
#[derive(Clone, Copy)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    // The kernel's union is 24 bytes long; it copies all of them.
    rest: [u8; 22],
}

/// Brings `lo` up; the kernel gives it its addresses.
pub fn loopback_up() -> Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .during("open", "socket")?;
    let mut request = IfReq { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: SIOCGIFFLAGS works on one struct ifreq (40 bytes), which IfReq lays out.
    unsafe { sys::ioctl_with(socket.as_fd(), SIOCGIFFLAGS, &mut request) }
        .during("read flags of", "lo")?;
    request.flags |= 1; // IFF_UP
    // SAFETY: as above, SIOCSIFFLAGS reads it.
    unsafe { sys::ioctl_with(socket.as_fd(), SIOCSIFFLAGS, &mut request) }
        .during("bring up", "lo")?;
    Ok(())
}

/// Names the machine.
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).during("set host name", name)
}

const _: () = assert!(size_of::<IfReq>() == 40);
