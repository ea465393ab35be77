//! The devices of a VM.

use crate::{Bytes, Limits, Mac, Source};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A raw disk; the format is never probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Name within the spec, in the form of a workload's name.
    pub id: String,
    /// A regular file or block device.
    pub source: Source,
    /// Refuse writes; the guest is told so.
    #[serde(default)]
    pub readonly: bool,
    /// What the guest reads as serial number, at most 20 printable ASCII bytes. Default: the id,
    /// cut to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Queues, each with a thread of its own: 1 to 16.
    #[serde(default = "one")]
    pub queues: u16,
    /// How much may go through, both directions and all queues together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Name within the spec, in the form of a workload's name.
    pub id: String,
    /// A tap: `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, with more than one pair of queues also
    /// `IFF_MULTI_QUEUE`. The descriptor of pair n > 0 is named like this one with `.n` behind.
    pub source: Source,
    /// The guest's address: unicast. Default: the guest draws one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Pairs of queues, each with a thread of its own: 1 to 16.
    #[serde(default = "one")]
    pub queues: u16,
    /// IP addresses that the guest may send from, IPv4 and IPv6 (ARP and neighbour discovery
    /// included), beside the link-local one that follows from its MAC; its MAC is then held to
    /// `mac`. Without them it may send what it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpAddr>>,
    /// How much the guest may receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_rate: Option<Rate>,
    /// How much the guest may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_rate: Option<Rate>,
}

/// Two token buckets: bytes and operations. What isn't named is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bucket>,
    /// Requests or frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Bucket>,
}

/// A token bucket, refilled exactly: n tokens are there n / `per_second` after it was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Tokens that come in a second, at least 1.
    pub per_second: u64,
    /// Tokens that it holds: the longest burst, at least 1.
    pub burst: u64,
}

/// Where what the guest writes on a console goes, and where its input comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// A console ring's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Source>,
    /// A listening Unix socket for the interactive console: whoever connects sees the output from
    /// then on, and types. One at a time; a new one takes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Source>,
    /// A file that output is appended to (developers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Source>,
    /// The process's own terminal (developers): raw, restored at the end.
    #[serde(default)]
    pub terminal: bool,
    /// How much the guest may write: bytes count. What is above is dropped, and told in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// Sockets between host and guest (virtio 1.2, 5.10), over Unix sockets as Firecracker does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's context id, 3 to 2^32 - 2.
    pub cid: u64,
    /// A listening Unix socket: a client says `CONNECT <port>\n` and hears `OK <port>\n`.
    /// A path (developers) is bound; a guest's own connections go to `<path>_<port>`. In the jail
    /// the guest's own connections are refused.
    pub socket: Source,
}

/// Memory that the guest gives back (virtio 1.2, 5.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// What the guest shall give back at its start: below its memory.
    #[serde(default)]
    pub size: Bytes,
    /// Take it back rather than let the guest run out of memory.
    #[serde(default)]
    pub deflate_on_oom: bool,
    /// The guest tells which pages are free, and they go back to the host.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// A folder of the host (virtio 1.2, 5.11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// What the guest mounts it by: 1 to 36 bytes of UTF-8, unique.
    pub tag: String,
    /// A Unix socket connected to a vhost-user back-end (virtiofsd); a path is connected to.
    pub source: Source,
    /// Request queues, 1 to 16.
    #[serde(default = "one")]
    pub queues: u16,
}

/// How a disk's file is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoEngine {
    /// io_uring where the host has it, else one request after another.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// One request after another, by preadv and pwritev.
    Sync,
}

impl Disk {
    /// The serial number that the guest reads: zero-padded, as virtio-blk's `GET_ID` wants it.
    #[must_use]
    pub fn serial_bytes(&self) -> [u8; Limits::SERIAL_BYTES] {
        let mut bytes = [0; Limits::SERIAL_BYTES];
        let serial = self.serial.as_deref().unwrap_or(&self.id).as_bytes();
        let length = serial.len().min(bytes.len());
        bytes[..length].copy_from_slice(&serial[..length]);
        bytes
    }
}

fn one() -> u16 {
    1
}
