//! Capabilities by name (capabilities(7), linux/capability.h).

use std::fmt;

/// Names in the kernel's order, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set with this one too; `None` when the kernel knows no such name (`NET_ADMIN`, `CAP_NET_ADMIN`).
    #[must_use]
    pub fn with(self, name: &str) -> Option<Self> {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        let number = NAMES.iter().position(|known| *known == name)?;
        Some(Self(self.0 | 1 << number))
    }

    /// All names, for messages that suggest one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }

    /// Bit N is capability N.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Capability N is in the set.
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            (0..).zip(NAMES).filter(|(n, _)| self.has(*n)).map(|(_, name)| name).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for (name, number) in
            [("CHOWN", 0), ("NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("SYSLOG", 34), ("BPF", 39)]
        {
            let set = Capabilities::NONE.with(name).unwrap();
            assert_eq!(set.bits(), 1 << number, "{name}");
            assert!(set.has(number));
        }
        assert_eq!(Capabilities::NONE.with("NET_ADMON"), None);
        let two = Capabilities::NONE.with("NET_RAW").unwrap().with("KILL").unwrap();
        assert_eq!(two.to_string(), "KILL NET_RAW");
    }
}
