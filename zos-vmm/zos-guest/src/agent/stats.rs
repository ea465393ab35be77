//! Who and how this machine is, from /proc (proc(5)).

use std::fs;
use zos_agent::{Description, Stats};

/// `USER_HZ`: what /proc/stat counts in, on every architecture of ours.
const TICKS_PER_SECOND: u64 = 100;

pub(super) fn describe() -> Result<Description, String> {
    let uptime = read("/proc/uptime")?;
    let seconds = uptime.split_once('.').and_then(|(whole, rest)| {
        let hundredths: u64 = rest.get(..2)?.parse().ok()?;
        Some(whole.parse::<u64>().ok()? * 1000 + hundredths * 10)
    });
    Ok(Description {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        uptime_ms: seconds.ok_or("/proc/uptime makes no sense")?,
    })
}

pub(super) fn stats() -> Result<Stats, String> {
    let memory = read("/proc/meminfo")?;
    let processes = fs::read_dir("/proc").map_err(|error| format!("list /proc: {error}"))?;
    let processes = processes
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    Ok(Stats {
        memory: kibibytes(&memory, "MemTotal:").ok_or("no MemTotal")?,
        memory_available: kibibytes(&memory, "MemAvailable:").ok_or("no MemAvailable")?,
        cpu_ms: worked(&read("/proc/stat")?).ok_or("/proc/stat makes no sense")?,
        processes: u32::try_from(processes.count()).unwrap_or(u32::MAX),
    })
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))
}

/// Bytes of a line `NAME   n kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Milliseconds of the first line but idle and waiting: `cpu user nice system idle iowait irq softirq steal`.
fn worked(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let columns = line.split_whitespace().take(8).enumerate();
    let ticks = columns.filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks = ticks.map(|(_, column)| column.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        assert_eq!(kibibytes("MemTotal:  2048 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(2 << 20));
        assert_eq!(kibibytes("MemFree: 1 kB\n", "MemTotal:"), None);
        assert_eq!(worked("cpu  1 2 3 400 500 6 7 8 9 9\ncpu0 1\n"), Some(270));
        assert_eq!(worked("cpu  1 x\n"), None);
        // This machine has them all.
        let (description, stats) = (describe().unwrap(), super::stats().unwrap());
        assert!(description.uptime_ms > 0 && stats.processes > 0);
        assert!(stats.memory > stats.memory_available);
    }
}
