//! `org.zos.Service`: what every daemon answers on its own socket.

use serde::{Deserialize, Serialize};
use zos_types::Fault;

use super::interface;

interface! {
    /// Every daemon's socket serves it beside the daemon's own interface, so it names none.
    "Service" on "";
    /// What is wrong, as this daemon sees it.
    ListFaults [Storage Identity Net Capacity Vm Provision Api Console] -> Faults;
    /// What this daemon counts, as Prometheus and OpenMetrics have it; each name begins with `zos_<daemon>_`.
    ReadMetrics [Api] -> Metrics;
}

/// The faults that stand now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Faults {
    /// By id.
    pub faults: Vec<Fault>,
}

/// What a daemon counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// OpenMetrics text, without its `# EOF`.
    pub text: String,
}
