//! PID 1 of a ZOS node: boots, starts and watches services and VMs, and ends the machine in order.
//!
//! ```text
//!  kernel ─▶ boot (phases) ─▶ run: supervisor's core ◀─events─ epoll loop ─actions─▶ processes
//!                                                       ▲ org.zos.Init on /run/zos/init.sock
//!                                          end ◀─ SIGTERM, ctrl-alt-del, power button, Shutdown
//! ```
//! Absent on purpose: an async runtime, threads (but for hashing the image at boot, and for the
//! last steps, which may hang), any knowledge of what the services do.
#![forbid(unsafe_code)]

use std::path::Path;

mod boot;
mod by_hand;
mod control;
mod emergency;
mod evidence;
mod journal;
mod log;
mod rescue;
mod run;
mod shutdown;
mod supervise;
mod unit;
mod watchdog;

/// Unit files and templates of the image.
const UNITS: &str = "/etc/zos";

fn main() -> std::process::ExitCode {
    if std::process::id() != 1 {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        return by_hand::run(&arguments);
    }
    emergency::catch_panics();
    log::open();
    let boot = boot::Boot::run();
    let units = unit::load(Path::new(UNITS));
    match run::run(boot, units) {
        Ok(ending) => shutdown::finish(ending),
        Err(error) => emergency::reboot(&error.line()),
    }
}
