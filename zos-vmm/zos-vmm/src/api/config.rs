//! Cloud Hypervisor's `VmConfig`: the fields that mean something here.
//!
//! Each object keeps the fields that it doesn't know in `others`: `translate` takes those whose value
//! changes nothing, and refuses the rest by name.

use serde::{Deserialize, Serialize};
use serde_json::Map;
use std::path::PathBuf;

/// Fields without a meaning here.
pub(super) type Others = Map<String, serde_json::Value>;

/// A VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct VmConfig {
    /// Default: one.
    #[serde(default)]
    pub cpus: Cpus,
    /// Default: 512 MiB.
    #[serde(default)]
    pub memory: Memory,
    /// What is booted.
    pub payload: Option<Payload>,
    /// Disks in the order in which the guest sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<Disk>>,
    /// Network interfaces in the order in which the guest sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Vec<Net>>,
    /// Always there.
    #[serde(default)]
    pub rng: Rng,
    /// The serial port. Default: `Null`.
    #[serde(default = "Console::null")]
    pub serial: Console,
    /// The virtio console. Default: `Tty`.
    #[serde(default = "Console::tty")]
    pub console: Console,
    /// Memory that the guest gives back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// Folders, each served by a virtiofsd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<Vec<Fs>>,
    /// Sockets between host and guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// Virtual CPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = CpusConfig))]
pub struct Cpus {
    /// How many.
    pub boot_vcpus: u16,
    /// As many: none can be added later.
    pub max_vcpus: u16,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

impl Default for Cpus {
    fn default() -> Self {
        Self { boot_vcpus: 1, max_vcpus: 1, others: Others::new() }
    }
}

/// Memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = MemoryConfig))]
pub struct Memory {
    /// Bytes.
    pub size: u64,
    /// Memory is a shared file, whatever is said here.
    #[serde(default)]
    pub shared: bool,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

impl Default for Memory {
    fn default() -> Self {
        Self { size: 512 << 20, shared: true, others: Others::new() }
    }
}

/// What is booted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = PayloadConfig))]
pub struct Payload {
    /// The kernel's file.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub kernel: Option<PathBuf>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// The initramfs' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub initramfs: Option<PathBuf>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// A raw disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = DiskConfig))]
pub struct Disk {
    /// Its file or block device.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub path: Option<PathBuf>,
    /// Refuse writes.
    #[serde(default)]
    pub readonly: bool,
    /// Queues, each with a thread.
    #[serde(default = "one")]
    pub num_queues: u16,
    /// What the guest reads as serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Name. Default: `_disk` and its index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How much may go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter_config: Option<RateLimiter>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = NetConfig))]
pub struct Net {
    /// A tap that is there.
    pub tap: Option<String>,
    /// The guest's address. Default: the guest draws one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Queues: two for each pair.
    #[serde(default = "two")]
    pub num_queues: u16,
    /// Name. Default: `_net` and its index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// IP addresses that the guest may send from; its MAC is held to `mac` then. Without them it
    /// may send what it likes. Not Cloud Hypervisor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<Vec<String>>))]
    pub addresses: Option<Vec<std::net::IpAddr>>,
    /// How much may be received, and how much sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter_config: Option<RateLimiter>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// Two token buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = RateLimiterConfig))]
pub struct RateLimiter {
    /// Of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Of requests or frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct TokenBucket {
    /// What it holds.
    pub size: u64,
    /// What is there once beside it: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// Milliseconds from empty to full.
    pub refill_time: u64,
}

/// The random number device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = RngConfig))]
pub struct Rng {
    /// The kernel's own: `/dev/urandom`.
    pub src: String,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

impl Default for Rng {
    fn default() -> Self {
        Self { src: "/dev/urandom".to_owned(), others: Others::new() }
    }
}

/// The serial port or the virtio console.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = ConsoleConfig))]
pub struct Console {
    /// Where it goes.
    pub mode: ConsoleMode,
    /// With `Socket`: where it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub socket: Option<PathBuf>,
    /// With `File`: what is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub file: Option<PathBuf>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

impl Console {
    /// With nothing but its mode.
    #[must_use]
    pub fn of(mode: ConsoleMode) -> Self {
        Self { mode, socket: None, file: None, others: Others::new() }
    }

    fn null() -> Self {
        Self::of(ConsoleMode::Null)
    }

    fn tty() -> Self {
        Self::of(ConsoleMode::Tty)
    }
}

/// Where a console goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum ConsoleMode {
    /// No such device; the serial port is there all the same.
    Off,
    /// Refused.
    Pty,
    /// The VMM's own terminal; one of both.
    Tty,
    /// A file that is appended to.
    File,
    /// A Unix socket: one client at a time sees and types.
    Socket,
    /// Nowhere.
    Null,
}

/// The balloon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = BalloonConfig))]
pub struct Balloon {
    /// Bytes that the guest shall give back at its start.
    pub size: u64,
    /// Take it back rather than let the guest run out of memory.
    #[serde(default)]
    pub deflate_on_oom: bool,
    /// Free pages go back to the host.
    #[serde(default)]
    pub free_page_reporting: bool,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// A folder of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = FsConfig))]
pub struct Fs {
    /// What the guest mounts it by.
    pub tag: String,
    /// Where its virtiofsd listens.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub socket: Option<PathBuf>,
    /// Request queues.
    #[serde(default = "one")]
    pub num_queues: u16,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

/// Sockets between host and guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = VsockConfig))]
pub struct Vsock {
    /// The guest's context id, from 3 on.
    pub cid: u64,
    /// Where the host's side listens.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub socket: Option<PathBuf>,
    /// Anything else.
    #[serde(flatten)]
    #[cfg_attr(test, schema(ignore))]
    pub others: Others,
}

fn one() -> u16 {
    1
}

fn two() -> u16 {
    2
}
