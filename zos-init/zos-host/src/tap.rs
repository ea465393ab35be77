//! Tap devices: the node's end of a VM's network card (Documentation/networking/tuntap.rst).
//!
//! The descriptor is the link's life: when the last copy closes, the kernel removes the device.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;

use crate::error::{Context, Error, Result};
use crate::sys;

/// Bytes of the `virtio_net_hdr_v1` that precedes each frame on the descriptor.
pub const VNET_HEADER: i32 = 12;

// linux/if_tun.h; libc's constants have another type for each C library.
const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;

#[repr(C)]
#[derive(Clone, Copy)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    // The kernel's union is 24 bytes long; it copies all of them.
    rest: [u8; 22],
}

/// Makes the tap `name` (at most 15 bytes; `zt%d` lets the kernel count), or takes it over when it
/// exists and nobody holds it. Frames carry a virtio-net header of [`VNET_HEADER`] bytes; no offload is
/// on until the holder sets it. Not persistent. Needs CAP_NET_ADMIN and `/dev/net/tun`.
///
/// Returns the descriptor (non-blocking, close-on-exec) and the device's name.
pub fn open(name: &str) -> Result<(OwnedFd, String)> {
    attach(name, 0)
}

/// Makes the tap `name` with so many queues, each with a descriptor; otherwise as [`open`]. One that
/// exists gets them in addition to those that others hold.
pub fn open_queues(name: &str, queues: usize) -> Result<Vec<OwnedFd>> {
    let attach = |_| attach(name, libc::IFF_MULTI_QUEUE).map(|(fd, _)| fd);
    (0..queues).map(attach).collect()
}

fn attach(name: &str, more: i32) -> Result<(OwnedFd, String)> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0 || b == b'/')
    {
        return Err(Error::invalid("open tap", name, "a name has 1 to 15 bytes"));
    }
    let file = tun_device()?;
    let mut request = IfReq { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "the flags stand in 16 bits")]
    {
        request.flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more) as i16;
    }
    // SAFETY: TUNSETIFF works on one struct ifreq (40 bytes), which IfReq lays out.
    unsafe { sys::ioctl_with(file.as_fd(), TUNSETIFF, &mut request) }.during("create tap", name)?;
    let mut size = VNET_HEADER;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { sys::ioctl_with(file.as_fd(), TUNSETVNETHDRSZ, &mut size) }
        .during("set header size of tap", name)?;
    let end = request.name.iter().position(|b| *b == 0).unwrap_or(request.name.len());
    let name = String::from_utf8_lossy(&request.name[..end]).into_owned();
    Ok((file.into(), name))
}

/// Which offloads the frames that the kernel hands out may use (`TUN_F_*` bits of linux/if_tun.h).
pub fn set_offload(tap: &impl AsFd, features: u32) -> Result<()> {
    // SAFETY: TUNSETOFFLOAD takes the bits as an integer.
    unsafe { sys::ioctl_int(tap.as_fd(), TUNSETOFFLOAD, features.into()) }
        .during("set offload of", "tap")?;
    Ok(())
}

fn tun_device() -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .during("open", "/dev/net/tun")
}

const _: () = assert!(size_of::<IfReq>() == 40);
