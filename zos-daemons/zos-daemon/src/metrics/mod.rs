//! What a daemon counts, as OpenMetrics text; each name begins with `zos_<daemon>_`.
//!
//! ```text
//!  the chassis: build, start, faults, calls, loops, log lines, process ─┐
//!  the daemon:  gauge, counter, measure ────────────────────────────────┴─▶ registry ─▶ ReadMetrics
//! ```
//! A registry belongs to one daemon, not to the process: a simulated node has many in one process.

mod loops;
mod process;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

pub(crate) use self::loops::Loops;
use crate::FaultBoard;

/// Calls end within a millisecond, or wait for a disk, a guest or another daemon.
const SECONDS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// Labels of a value: their names, and what they are.
pub type Labels = Vec<(&'static str, String)>;

/// A daemon's metrics. Clones share the same registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub(crate) calls: Calls,
    pub(crate) loops: Loops,
    pub(crate) log_lines: LogLines,
}

impl Metrics {
    /// The metrics that every daemon has. A daemon has its own already ([`crate::Daemon::metrics`]); tests make some.
    pub fn new(daemon: &str, faults: FaultBoard) -> Self {
        let registry = Registry::with_prefix(format!("zos_{daemon}"));
        let metrics = Self {
            registry: Arc::new(Mutex::new(registry)),
            calls: Calls::default(),
            loops: Loops::default(),
            log_lines: LogLines::default(),
        };
        metrics.with(|registry| metrics.loops.register(registry));
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        metrics.register("build", "What was built", Info::new(version));
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let started = started.unwrap_or_default().as_secs_f64();
        metrics.measure("start_time_seconds", "When it started, since 1970", move || {
            vec![(Labels::new(), started)]
        });
        metrics.measure("faults", "Faults that stand, by kind", move || by_kind(&faults));
        metrics.register("calls", "Local calls answered", metrics.calls.ended.clone());
        let help = "Time from a local call to its answer; streams don't count";
        metrics.register("call_seconds", help, metrics.calls.seconds.clone());
        let lines = metrics.log_lines.clone();
        metrics.count("log_lines", "Lines logged", move || lines.read());
        metrics.add(process::Process);
        metrics
    }

    /// Adds a metric of the daemon's own.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.with(|registry| registry.register(name, help, metric));
    }

    /// A new gauge: a number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// A new counter: a number that only grows. Its name gets `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// A gauge that is looked at when somebody asks, with the labels that it has then.
    pub fn measure(
        &self,
        name: &'static str,
        help: &'static str,
        look: impl Fn() -> Vec<(Labels, f64)> + Send + Sync + 'static,
    ) {
        self.add(Looked { name, help, grows: false, look });
    }

    /// A counter that is looked at when somebody asks. Its name gets `_total`.
    pub fn count(
        &self,
        name: &'static str,
        help: &'static str,
        look: impl Fn() -> Vec<(Labels, f64)> + Send + Sync + 'static,
    ) {
        self.add(Looked { name, help, grows: true, look });
    }

    /// All of them as OpenMetrics text, without its `# EOF`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string fails only if a metric of ours does; what came before it is still true.
        if let Err(error) = self.with(|registry| text::encode_registry(&mut out, registry)) {
            tracing::error!("write the metrics: {error}");
        }
        out
    }

    fn add(&self, collector: impl Collector) {
        self.with(|registry| registry.register_collector(Box::new(collector)));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Local calls, by method and by how they ended.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    ended: Family<[(&'static str, &'static str); 2], Counter>,
    seconds: Histogram,
}

impl Default for Calls {
    fn default() -> Self {
        Self { ended: Family::default(), seconds: Histogram::new(SECONDS) }
    }
}

impl Calls {
    /// Counts a call; `method` is one of the interface's, never what a caller wrote.
    pub(crate) fn ended(
        &self,
        method: &'static str,
        outcome: &'static str,
        took: Option<Duration>,
    ) {
        self.ended.get_or_create(&[("method", method), ("outcome", outcome)]).inc();
        if let Some(took) = took {
            self.seconds.observe(took.as_secs_f64());
        }
    }
}

/// Lines logged, by level.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLines(Arc<[AtomicU64; 5]>);

/// In the order of [`LogLines`].
const LEVELS: [(tracing::Level, &str); 5] = [
    (tracing::Level::ERROR, "error"),
    (tracing::Level::WARN, "warning"),
    (tracing::Level::INFO, "info"),
    (tracing::Level::DEBUG, "debug"),
    (tracing::Level::TRACE, "trace"),
];

impl LogLines {
    pub(crate) fn count(&self, level: tracing::Level) {
        let place = LEVELS.iter().position(|(known, _)| *known == level);
        if let Some(lines) = place.and_then(|place| self.0.get(place)) {
            lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|lines| lines.load(Ordering::Relaxed)).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 lines")]
    fn read(&self) -> Vec<(Labels, f64)> {
        let lines = self.0.iter().map(|lines| lines.load(Ordering::Relaxed) as f64);
        LEVELS
            .iter()
            .zip(lines)
            .map(|((_, n), count)| (vec![("level", (*n).to_owned())], count))
            .collect()
    }
}

/// Faults by the part of their id before the colon, so that a bad disk does not make a new metric.
fn by_kind(faults: &FaultBoard) -> Vec<(Labels, f64)> {
    let mut kinds: Vec<(Labels, f64)> = Vec::new();
    for fault in faults.list() {
        let kind = fault.id.split(':').next().unwrap_or_default().to_owned();
        let labels = vec![("kind", kind)];
        match kinds.last_mut() {
            Some((last, count)) if *last == labels => *count += 1.0,
            _ => kinds.push((labels, 1.0)),
        }
    }
    kinds
}

/// Values that are looked at when somebody asks.
struct Looked<F> {
    name: &'static str,
    help: &'static str,
    grows: bool,
    look: F,
}

impl<F> fmt::Debug for Looked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Looked").field(&self.name).finish()
    }
}

impl<F: Fn() -> Vec<(Labels, f64)> + Send + Sync + 'static> Collector for Looked<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = if self.grows { MetricType::Counter } else { MetricType::Gauge };
        let mut encoder = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in (self.look)() {
            if labels.is_empty() {
                self.value(&mut encoder, value)?;
            } else {
                self.value(&mut encoder.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

impl<F> Looked<F> {
    fn value(&self, encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.grows {
            true => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
            false => encoder.encode_gauge(&value),
        }
    }
}

#[cfg(test)]
mod tests {
    use zos_types::Fault;

    use super::*;

    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }

    #[test]
    fn what_was_counted_is_told_under_the_daemons_name() {
        let faults = FaultBoard::default();
        let metrics = Metrics::new("testd", faults.clone());
        for id in ["test.disk:a", "test.disk:b", "test.other"] {
            faults.raise(Fault::new(id, "wrong"));
        }
        metrics.calls.ended("org.zos.Test.Do", "ok", Some(Duration::from_millis(5)));
        metrics.calls.ended("org.zos.Test.Do", "busy", None);
        metrics.log_lines.count(tracing::Level::WARN);
        metrics.gauge("things", "Things").set(7);
        metrics.counter("deeds", "Deeds").inc_by(3);
        metrics.measure("size_bytes", "Sizes", || vec![(vec![("of", "a\"b".to_owned())], 1.5)]);
        let text = metrics.text();
        check(
            &text,
            &format!("zos_testd_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        );
        check(&text, "zos_testd_faults{kind=\"test.disk\"} 2.0");
        check(&text, "zos_testd_faults{kind=\"test.other\"} 1.0");
        check(&text, "zos_testd_calls_total{method=\"org.zos.Test.Do\",outcome=\"ok\"} 1");
        check(&text, "zos_testd_call_seconds_bucket{le=\"0.01\"} 1");
        check(&text, "zos_testd_call_seconds_count 1");
        check(&text, "zos_testd_log_lines_total{level=\"warning\"} 1.0");
        check(&text, "zos_testd_things 7");
        check(&text, "zos_testd_deeds_total 3");
        check(&text, "zos_testd_size_bytes{of=\"a\\\"b\"} 1.5");
        for name in ["start_time_seconds", "process_cpu_seconds_total", "process_open_fds"] {
            assert!(text.contains(&format!("\nzos_testd_{name} ")), "{text}");
        }
        let foreign = text.lines().find(|l| !l.starts_with('#') && !l.starts_with("zos_testd_"));
        assert_eq!(foreign, None);
    }

    #[test]
    fn two_daemons_in_a_process_count_apart() {
        let of = |name| Metrics::new(name, FaultBoard::default());
        let (one, other) = (of("oned"), of("otherd"));
        one.counter("deeds", "Deeds").inc();
        assert!(!other.text().contains("deeds"));
    }
}
