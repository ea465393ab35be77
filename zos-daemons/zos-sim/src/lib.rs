//! zos-sim: whole nodes without a machine, for twins' developers, for tests, for learning.
//!
//! ```text
//!  zosd sim ─▶ fleet ─▶ node ─┬─ pid1      simulated: units, VMs' processes, the way down
//!                             ├─ storaged  real, over simulated disks: folders
//!                             ├─ identityd provisiond vmd apid      real
//!                             ├─ capacityd real, over a written machine
//!                             └─ netd      its answers and its table, over simulated wires
//! ```
//! Each daemon has a thread with a runtime of its own, and they speak over sockets in a folder, as on a
//! node: so one can be killed and comes back. Only PID 1, the guests and the ends of wires are models;
//! each is a core without clock or effects.
//! Absent on purpose: a shell into a guest, packets, consoled (there is no screen).
#![forbid(unsafe_code)]

mod care;
mod disks;
mod fault;
mod fleet;
mod guest;
mod hardware;
mod limits;
mod net;
mod node;
mod options;
mod part;
mod pid1;
mod relay;

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Parser;

pub use fault::{Fault, FaultOn};
pub use fleet::{Fleet, Up};
pub use hardware::Hardware;
pub use options::Options;

/// The life of a simulation, by its arguments without the program's name. Help and wrong usage end
/// the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let name = OsString::from("zosd sim");
    let options = Options::parse_from([name].into_iter().chain(arguments));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(fleet::run(&options))
}
