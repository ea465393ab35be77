//! The calls: what a host may want of a guest's PID 1, and what it hears.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a host wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who are you? Answered with a [`Description`].
    Describe,
    /// How are you? Answered with [`Stats`].
    Stats,
    /// Mount a file system.
    Mount(Mount),
    /// Take a file system out of the tree.
    Unmount {
        /// Where it is mounted.
        target: String,
    },
    /// Set an interface up.
    Network(Interface),
    /// Run a process: after the answer `Done` its frames follow.
    Exec(Exec),
    /// Set the clock.
    SetClock {
        /// Nanoseconds since 1970.
        unix_ns: u64,
    },
    /// End the machine: processes are asked to end, file systems are written.
    Power(Power),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It was done; or the process runs.
    Done,
    /// To `describe`.
    Description(Description),
    /// To `stats`.
    Stats(Stats),
    /// It was not done.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// For people: what, and why.
    pub reason: String,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of its PID 1.
    pub version: String,
    /// Its kernel's release.
    pub kernel: String,
    /// Milliseconds since its kernel started.
    pub uptime_ms: u64,
}

/// How a guest fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that could be given to programs.
    pub memory_available: u64,
    /// Milliseconds that its CPUs worked, summed.
    pub cpu_ms: u64,
    /// Processes.
    pub processes: u32,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// A device such as `/dev/vda`, a share's tag, a folder.
    pub source: String,
    /// An absolute path; made if it isn't there.
    pub target: String,
    /// File system: `ext4`, `erofs`, `virtiofs`, `overlay`, `tmpfs`, `bind` ...
    pub kind: String,
    /// `ro`, `nosuid`, `nodev`, `noexec`, `noatime`, `bind`, `rec`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// The file system's own options, comma-separated.
    #[serde(default)]
    pub options: String,
}

/// A network interface with what it shall have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name: `eth0`, `lo`.
    pub name: String,
    /// Addresses with the lengths of their prefixes.
    #[serde(default)]
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routes.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Name servers for `/etc/resolv.conf`.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
    /// Bytes of a packet.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Program, by a path or a name that PATH leads to, and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`; nothing else is in its environment.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Working folder; `/` if not told.
    #[serde(default)]
    pub folder: Option<String>,
    /// As whom; root if not told.
    #[serde(default)]
    pub user: Option<User>,
    /// A folder that is its root.
    #[serde(default)]
    pub root: Option<String>,
    /// On a terminal of its own; its output is then all `Stdout`.
    #[serde(default)]
    pub terminal: Option<Terminal>,
}

/// As whom a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// The dimensions of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Exit {
    /// By itself, with a code.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    /// The code that a shell would show: 128 + signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// How the machine is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Power {
    /// Off.
    Off,
    /// Off and on again.
    Reboot,
}
