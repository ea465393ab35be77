//! What PID 1 tells, as metrics: it has no runtime and writes none itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit as Measure};
use zos_api::local::init::{Boot, Exit, Unit, UnitDetail, UnitKind, UnitState};

use super::{Labels, encoded};
use crate::backend::Counts;
use crate::clock::Clocks;

/// A number with a fraction.
type Real = Gauge<f64, AtomicU64>;
/// A sum with a fraction.
type Sum = Counter<f64, AtomicU64>;

/// Every state, for one family with a value each.
const STATES: [UnitState; 8] = [
    UnitState::Waiting,
    UnitState::Starting,
    UnitState::Running,
    UnitState::Done,
    UnitState::Stopping,
    UnitState::Exited,
    UnitState::Backoff,
    UnitState::Failed,
];

pub(super) fn text(counts: &Counts, now: Clocks) -> String {
    let mut registry = Registry::with_prefix("zos_init");
    if let Some(boot) = &counts.boot {
        add_boot(&mut registry, boot, now);
    }
    if let Some(units) = &counts.units {
        add_units(&mut registry, units, now);
        add_usage(&mut registry, counts.details.values());
    }
    encoded(&registry)
}

fn add_boot(registry: &mut Registry, boot: &Boot, now: Clocks) {
    let Boot { version, image, boot_reason, watchdog, phases, faults, .. } = boot;
    let reason = crate::routes::word(boot_reason);
    let told =
        vec![("version", version.clone()), ("image", image.clone()), ("boot_reason", reason)];
    registry.register("boot", "The image, and why it was booted", Info::new(told));
    let uptime = Real::default();
    uptime.set(seconds(now.boot_millis));
    registry.register_with_unit("uptime", "Since the kernel's start", Measure::Seconds, uptime);
    let ended: Family<Labels, Real> = Family::default();
    for phase in phases {
        ended.get_or_create(&vec![("phase", phase.name.clone())]).set(seconds(phase.millis));
    }
    let help = "From the kernel's start to the end of each phase of the boot";
    registry.register_with_unit("boot_phase", help, Measure::Seconds, ended);
    let standing = Gauge::<i64>::default();
    standing.set(i64::try_from(faults.len()).unwrap_or(i64::MAX));
    registry.register("faults", "Faults of the boot that stand", standing);
    let fed = Gauge::<i64>::default();
    fed.set(i64::from(watchdog.as_ref().is_some_and(|w| w.hardware)));
    registry.register("watchdog_hardware", "Whether the machine has a watchdog of its own", fed);
}

fn add_units(registry: &mut Registry, units: &[Unit], now: Clocks) {
    let (up, state): (Family<Labels, Gauge>, Family<Labels, Gauge>) = Default::default();
    let restarts: Family<Labels, Counter> = Family::default();
    let since: Family<Labels, Real> = Family::default();
    let exits: Family<Labels, Gauge> = Family::default();
    let (services, transient): (Vec<_>, Vec<_>) =
        units.iter().partition(|unit| unit.kind == UnitKind::Service);
    for unit in services {
        let of = || vec![("unit", unit.name.clone())];
        let is_up = matches!(unit.state, UnitState::Running | UnitState::Done);
        up.get_or_create(&of()).set(i64::from(is_up));
        for each in STATES {
            let mut labels = of();
            labels.push(("state", crate::routes::word(&each)));
            state.get_or_create(&labels).set(i64::from(unit.state == each));
        }
        restarts.get_or_create(&of()).inc_by(unit.restarts);
        since.get_or_create(&of()).set(seconds(now.boot_millis.saturating_sub(unit.since_ms)));
        if let Some(Exit { code, signal, oom }) = unit.exit {
            let number = |n: Option<i32>| n.map(|n| n.to_string()).unwrap_or_default();
            let mut labels = of();
            labels.extend([("code", number(code)), ("signal", number(signal))]);
            labels.push(("oom", oom.to_string()));
            exits.get_or_create(&labels).set(1);
        }
    }
    registry.register("unit_up", "Whether a service runs, or is done as it should be", up);
    registry.register("unit_state", "1 for the state that a service is in", state);
    registry.register("unit_restarts", "How often a service was started again", restarts);
    let help = "How long a service has been in its state";
    registry.register_with_unit("unit_state", help, Measure::Seconds, since);
    registry.register("unit_last_exit", "How a service ended the last time", exits);
    let running = Gauge::<i64>::default();
    running.set(i64::try_from(transient.len()).unwrap_or(i64::MAX));
    registry.register("transient_units", "Programs that run for twins", running);
}

fn add_usage<'a>(registry: &mut Registry, details: impl Iterator<Item = &'a UnitDetail>) {
    let (memory, peak): (Family<Labels, Gauge>, Family<Labels, Gauge>) = Default::default();
    let (pids, log): (Family<Labels, Gauge>, Family<Labels, Gauge>) = Default::default();
    let cpu: Family<Labels, Sum> = Family::default();
    let oom: Family<Labels, Counter> = Family::default();
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for UnitDetail { unit, usage, log_bytes } in details {
        let of = vec![("unit", unit.name.clone())];
        log.get_or_create(&of).set(whole(*log_bytes));
        if let Some(usage) = usage {
            memory.get_or_create(&of).set(whole(usage.memory));
            peak.get_or_create(&of).set(whole(usage.memory_peak));
            pids.get_or_create(&of).set(whole(usage.pids));
            cpu.get_or_create(&of).inc_by(seconds(usage.cpu_usec) / 1000.0);
            oom.get_or_create(&of).inc_by(usage.oom_kills);
        }
    }
    let bytes = || Measure::Bytes;
    registry.register_with_unit("unit_memory", "Memory of a service now", bytes(), memory);
    registry.register_with_unit("unit_memory_peak", "The most it ever had", bytes(), peak);
    registry.register_with_unit("unit_log", "Its log that is held", bytes(), log);
    registry.register("unit_pids", "Processes and threads of a service", pids);
    registry.register_with_unit("unit_cpu", "CPU time of a service", Measure::Seconds, cpu);
    registry.register("unit_oom_kills", "Its processes killed for want of memory", oom);
}

/// Seconds of milliseconds.
#[expect(clippy::cast_precision_loss, reason = "exact for 285 thousand years")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
