//! CPUs, memory, kernel: read from /proc.

use serde::Serialize;
use std::fs;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// What the kernel manages.
    pub(crate) total: u64,
    /// What could be had without swapping.
    pub(crate) available: u64,
}

/// How many CPUs run.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Memory now.
pub(crate) fn memory() -> Memory {
    parse_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse_memory(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Memory { total: field("MemTotal"), available: field("MemAvailable") }
}

/// The kernel's version.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Milliseconds since the kernel's start.
pub(crate) fn uptime_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_among_the_fields() {
        let text = "MemTotal:         241412 kB\nMemFree: 1 kB\nMemAvailable:  100 kB\n";
        assert_eq!(parse_memory(text), Memory { total: 241_412 << 10, available: 100 << 10 });
        assert_eq!(parse_memory("MemTotalX: 5 kB"), Memory::default());
    }
}
