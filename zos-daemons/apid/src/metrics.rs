//! The node's metrics as one OpenMetrics text.
//!
//! ```text
//!  each daemon ── ReadMetrics ─▶ its own text, names zos_<daemon>_… ─┐
//!  PID 1 ── Describe, ListUnits, DescribeUnit ─▶ zos_init_… ─────────┼─▶ one text ─▶ # EOF
//!  apid: what it served; who did not answer (zos_scrape_ok) ─────────┘
//! ```
//!
//! A name belongs to one daemon by its prefix, so no family comes twice. A text with another name in
//! it is left out as a whole.

mod init;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use zos_daemon::Metrics;

use crate::backend::Counts;
use crate::clock::Clocks;

/// The media type of OpenMetrics 1.0.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The longest text of one daemon, bytes.
const MAX_TEXT: usize = 1 << 20;

/// Labels of a value.
type Labels = Vec<(&'static str, String)>;

/// What the API itself counts.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    own: Metrics,
    answers: Family<[(&'static str, String); 1], Counter>,
    /// Connections to the API that are open.
    pub(crate) clients: Gauge,
}

impl Served {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let answers = Family::default();
        metrics.register("answers", "Requests answered, by status", answers.clone());
        let clients = metrics.gauge("clients", "Connections to the node API that are open");
        Self { own: metrics.clone(), answers, clients }
    }

    pub(crate) fn answered(&self, status: u16) {
        self.answers.get_or_create(&[("status", status.to_string())]).inc();
    }
}

/// All that the node counts.
pub(crate) fn exposition(served: &Served, counts: &Counts, now: Clocks) -> String {
    let mut text = String::new();
    let mut scrapes: Vec<(String, bool)> = Vec::new();
    let told = counts.boot.is_some() && counts.units.is_some();
    scrapes.push(("zos-init".to_owned(), told));
    text.push_str(&init::text(counts, now));
    for (daemon, told) in &counts.daemons {
        let told = told.as_ref().map_err(ToString::to_string);
        let fit = told.and_then(|told| check(daemon, told).map(|()| told));
        match &fit {
            Ok(told) => text.push_str(told),
            Err(error) => tracing::debug!("no metrics of {daemon}: {error}"),
        }
        scrapes.push((daemon.clone(), fit.is_ok()));
    }
    text.push_str(&served.own.text());
    text.push_str(&scraped(&scrapes));
    text.push_str("# EOF\n");
    text
}

/// Whether a daemon's text may stand beside the others'.
fn check(daemon: &str, text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("{} bytes are more than {MAX_TEXT}", text.len()));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("it breaks off".to_owned());
    }
    let prefix = format!("zos_{daemon}_");
    let name = |line: &str| {
        let described = ["# HELP ", "# TYPE ", "# UNIT "];
        let described = described.iter().find_map(|word| line.strip_prefix(word));
        described.unwrap_or(line).starts_with(&prefix)
    };
    match text.lines().find(|line| !name(line)) {
        Some(line) => Err(format!("this is not named {prefix}…: {line}")),
        None => Ok(()),
    }
}

/// Who told what it counts.
fn scraped(scrapes: &[(String, bool)]) -> String {
    let ok: Family<Labels, Gauge> = Family::default();
    for (daemon, fit) in scrapes {
        ok.get_or_create(&vec![("daemon", daemon.clone())]).set(i64::from(*fit));
    }
    let mut registry = Registry::with_prefix("zos");
    registry.register("scrape_ok", "Whether a daemon told what it counts", ok);
    encoded(&registry)
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string fails only if a metric of ours does; what came before it is still true.
    if let Err(error) = encode_registry(&mut text, registry) {
        tracing::error!("write the metrics: {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_foreign_name_is_left_out() {
        let check = |text: &str, fits: bool| assert_eq!(check("vmd", text).is_ok(), fits, "{text}");
        check("", true);
        check("# HELP zos_vmd_vms VMs.\n# TYPE zos_vmd_vms gauge\nzos_vmd_vms 3\n", true);
        check("zos_vmd_vms 3", false); // broken off
        check("zos_netd_taps 3\n", false);
        check("zos_vmd_vms 3\n# EOF\n", false);
        check("zos_vmd_vms 3\n\n", false);
        check("# TYPE zos_init_unit_up gauge\n", false);
        check(&"zos_vmd_vms 3\n".repeat(100_000), false);
    }
}
