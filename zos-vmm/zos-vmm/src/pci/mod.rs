//! PCI: one bus of conventional functions behind a host bridge, configured through ECAM.
//!
//! ```text
//!  vCPU ── MMIO ──▶ PciBus ──┬─ ECAM window ─▶ Function::config_{read,write}
//!                            └─ BAR window  ─▶ Function::bar_{read,write}
//! ```
//!
//! There is no port-based configuration mechanism: ECAM costs one exit for each access, the ports
//! two, and every kernel that reads ACPI's MCFG knows ECAM.

mod bus;
mod config;
mod msix;

pub use bus::{Function, PciBus, SLOTS};
pub use config::{CONFIG_BYTES, Identity, PciConfig};
pub use msix::{CAPABILITY_BYTES as MSIX_CAPABILITY_BYTES, MsiSink, Msix, VECTOR_NONE};
