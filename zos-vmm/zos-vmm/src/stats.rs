//! What happened in the life of a VM, counted: printed once at its end.

use serde::Serialize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a vCPU came back from the guest. Exit counts are the same on each boot of the same guest,
/// where times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Read of an I/O port.
    PortRead,
    /// Write of an I/O port other than the serial port's.
    PortWrite,
    /// Read or write of the serial port.
    Serial,
    /// Read or write of PCI configuration space.
    PciConfig,
    /// Read or write of a device's registers.
    Registers,
    /// Anything else, like a signal.
    Other,
}

const EXITS: [(Exit, &str); 6] = [
    (Exit::PortRead, "port-read"),
    (Exit::PortWrite, "port-write"),
    (Exit::Serial, "serial"),
    (Exit::PciConfig, "pci-config"),
    (Exit::Registers, "registers"),
    (Exit::Other, "other"),
];

/// The counters, shared by all threads.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    first_run: OnceLock<Duration>,
    guest_init: OnceLock<Duration>,
    exits: [AtomicU64; EXITS.len()],
}

/// The counters at the end, as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How it ended: `poweroff`, `reboot` or `failed`.
    pub ending: &'static str,
    /// Whole life in microseconds.
    pub total_us: u64,
    /// From the program's start to the first entry into the guest, in microseconds.
    pub first_run_us: Option<u64>,
    /// From the program's start to the guest's word that its init runs, in microseconds.
    pub guest_init_us: Option<u64>,
    /// Exits by kind.
    pub exits: std::collections::BTreeMap<&'static str, u64>,
    /// Sum of all kinds.
    pub exits_total: u64,
}

impl Stats {
    /// Counts from this moment on.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            first_run: OnceLock::new(),
            guest_init: OnceLock::new(),
            exits: Default::default(),
        }
    }

    /// A vCPU is about to enter the guest.
    pub fn first_run(&self) {
        self.first_run.get_or_init(|| self.start.elapsed());
    }

    /// The guest said that its init runs; only the first time counts.
    pub fn guest_init(&self) {
        self.guest_init.get_or_init(|| self.start.elapsed());
    }

    /// A vCPU came back.
    pub fn count(&self, exit: Exit) {
        self.exits[exit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters as they are now.
    #[must_use]
    pub fn report(&self, ending: &'static str) -> Report {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let load = |exit: Exit| self.exits[exit as usize].load(Ordering::Relaxed);
        Report {
            ending,
            total_us: micros(self.start.elapsed()),
            first_run_us: self.first_run.get().copied().map(micros),
            guest_init_us: self.guest_init.get().copied().map(micros),
            exits: EXITS.iter().map(|(exit, name)| (*name, load(*exit))).collect(),
            exits_total: EXITS.iter().map(|(exit, _)| load(*exit)).sum(),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |us: Option<u64>| {
            us.map_or_else(|| "-".to_owned(), |us| format!("{}.{:03} ms", us / 1000, us % 1000))
        };
        write!(
            f,
            "{} after {}, first run {}, guest init {}, {} exits:",
            self.ending,
            millis(Some(self.total_us)),
            millis(self.first_run_us),
            millis(self.guest_init_us),
            self.exits_total
        )?;
        self.exits.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_the_json_tell_the_same() {
        let stats = Stats::new(Instant::now());
        stats.first_run();
        stats.count(Exit::Serial);
        stats.count(Exit::Serial);
        stats.count(Exit::PciConfig);
        let report = stats.report("poweroff");
        assert_eq!(report.exits_total, 3);
        let line = report.to_string();
        assert!(line.contains("3 exits:") && line.contains("serial 2"), "{line}");
        assert!(line.contains("guest init -,"), "{line}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["exits"]["serial"], 2);
        assert_eq!(json["guest_init_us"], serde_json::Value::Null);
    }
}
