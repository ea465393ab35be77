//! Loops: how often each ran, how long it took, when it last went well.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Name = [(&'static str, &'static str); 1];

/// A daemon's loops, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loops {
    runs: Family<[(&'static str, &'static str); 2], Counter>,
    seconds: Family<Name, Counter<f64, AtomicU64>>,
    last_success: Family<Name, Gauge<f64, AtomicU64>>,
}

impl Loops {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("loop_runs", "Steps of a loop, by outcome", self.runs.clone());
        registry.register("loop_seconds", "Time in a loop's steps", self.seconds.clone());
        let help = "When a loop's step last went well, since 1970";
        registry.register("loop_last_success_seconds", help, self.last_success.clone());
    }

    /// Counts a step.
    pub(crate) fn ended(&self, name: &'static str, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "failed" };
        self.runs.get_or_create(&[("loop", name), ("outcome", outcome)]).inc();
        self.seconds.get_or_create(&[("loop", name)]).inc_by(took.as_secs_f64());
        if ok {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_success.get_or_create(&[("loop", name)]).set(now.as_secs_f64());
        }
    }
}
