//! News of devices from the kernel: netlink KOBJECT_UEVENT, multicast group 1 (lib/kobject_uevent.c).
//!
//! A message is `action@devpath` and `KEY=value` lines, each ended by NUL. Only the kernel (port 0)
//! is listened to; messages that were lost for want of room are told as [`Uevent::lost`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt,
};

use crate::error::{Context, Result};

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `move`, `online`, `offline`, `bind`, `unbind`; `lost` when messages
    /// were dropped: look at everything again.
    pub action: String,
    /// Path below `/sys`.
    pub devpath: String,
    /// All properties, with `SUBSYSTEM`, `DEVNAME`, `DEVTYPE`, `MAJOR`, `MINOR` ...
    pub properties: BTreeMap<String, String>,
}

impl Uevent {
    /// A property, such as `SUBSYSTEM`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(String::as_str)
    }

    /// Whether it is about a block device (or stands for lost messages).
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.lost() || self.get("SUBSYSTEM") == Some("block")
    }

    /// Messages were dropped before this point.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.action == "lost"
    }

    /// Reads a message's bytes; anything that isn't one gives `None`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split_terminator('\0');
        let (action, devpath) = parts.next()?.split_once('@')?;
        let properties = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self { action: action.to_owned(), devpath: devpath.to_owned(), properties })
    }
}

/// The socket; readable (poll it by `as_fd`) when there is news.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Listens from now on: open it first, then list devices, and nothing falls between.
    pub fn open() -> Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )
        .during("open", "uevent socket")?;
        // A machine with many disks sends hundreds of messages at once while the reader is busy.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 20);
        bind(&socket, &SocketAddrNetlink::new(0, 1)).during("bind", "uevent socket")?;
        Ok(Self { socket })
    }

    /// The next message, or `None` when there is none now.
    pub fn event(&self) -> Result<Option<Uevent>> {
        let mut buffer = [0; 8192];
        loop {
            match recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length, from)) => {
                    let from_kernel = from
                        .and_then(|from| SocketAddrNetlink::try_from(from).ok())
                        .is_some_and(|from| from.pid() == 0);
                    if !from_kernel {
                        continue;
                    }
                    if let Some(event) = Uevent::parse(&buffer[..length.min(buffer.len())]) {
                        return Ok(Some(event));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => {
                    return Ok(Some(Uevent { action: "lost".to_owned(), ..Uevent::default() }));
                }
                Err(error) => return Err(error).during("read", "uevent socket"),
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
