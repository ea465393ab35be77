//! Whole nodes in QEMU: started from plain data, watched by serial port and QMP, spoken to as a twin does.
//!
//! ```text
//!  scene("name", |scene| ..)     a test: its folder target/qemu-tests/<name>/, one of two places, what to show on failure
//!    │ scene.disk("a", 4 * GIB)
//!    ▼
//!  Node { disks, nics, firmware, boot, .. }     plain data ──arguments──▶ QEMU
//!    │ scene.start(&node)?
//!    ▼
//!  Machine ── serial.log, wait_for_serial       what the console says
//!    ├── qmp       power button, plugged disks, screenshots, the end
//!    ├── api       the node's API, as its owner sees it
//!    ├── zos       the command line, as a twin uses it
//!    └── probe     a hand inside the node (only where a test asks for it)
//! ```
//!
//! Every wait has an end, and every QEMU dies with its `Machine`. What is absent: a mock. The files under test are those
//! in `out/x86_64/` that `image-builder` made.
#![forbid(unsafe_code)]

pub mod accel;
pub mod api;
pub mod arguments;
pub mod cuts;
pub mod disk;
pub mod image;
pub mod machine;
pub mod nested;
pub mod nic;
pub mod node;
pub mod peers;
pub mod probe;
pub mod programs;
pub mod qemu;
pub mod qmp;
pub mod scene;
pub mod serial;
pub mod slots;
pub mod swtpm;
pub mod twin;
pub mod web;

pub use disk::{Disk, Interface};
pub use machine::Machine;
pub use nic::Nic;
pub use node::{Boot, Firmware, Node};
pub use scene::{Scene, scene};

/// Bytes of a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes of a GiB.
pub const GIB: u64 = 1 << 30;
