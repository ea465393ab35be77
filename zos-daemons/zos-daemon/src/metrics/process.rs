//! The process itself: memory, CPU time, descriptors.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::time::{ClockId, clock_gettime};

/// Looked at when somebody asks. What `/proc` does not tell is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident() {
            gauge(&mut encoder, "process_resident_memory_bytes", "Memory in use", bytes)?;
        }
        if let Some(open) = open_descriptors() {
            gauge(&mut encoder, "process_open_fds", "Open descriptors", open)?;
        }
        let spent = ConstCounter::new(cpu_seconds());
        let (name, help) = ("process_cpu_seconds", "CPU time spent");
        spent.encode(encoder.encode_descriptor(name, help, None, spent.metric_type())?)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// `VmRSS` of proc_pid_status(5), in KiB there.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Without the one that counts them.
fn open_descriptors() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok()?.checked_sub(1)
}

#[expect(clippy::cast_precision_loss, reason = "exact for 285 million years")]
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        assert!(resident().unwrap() > 100 * 1024);
        let before = open_descriptors().unwrap();
        let _file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(open_descriptors().unwrap() > before.saturating_sub(8));
        assert!(cpu_seconds() > 0.0);
    }
}
