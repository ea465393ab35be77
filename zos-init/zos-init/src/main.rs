//! PID 1 of a ZOS node: boots, starts and watches services and VMs, and ends the machine in order.
//!
//! ```text
//!  kernel ─▶ boot (phases) ─▶ run: supervisor's core ◀─events─ epoll loop ─actions─▶ processes
//!                                                       ▲ org.zos.Init on /run/zos/init.sock
//!                                          end ◀─ SIGTERM, ctrl-alt-del, power button, Shutdown
//! ```
//! Absent on purpose: an async runtime, threads (but for hashing the image at boot), any knowledge of what
//! the services do.
#![forbid(unsafe_code)]

use std::path::Path;

mod boot;
mod control;
mod emergency;
mod journal;
mod log;
mod run;
mod shutdown;
mod supervise;
mod unit;

/// Unit files and templates of the image.
const UNITS: &str = "/etc/zos";

fn main() {
    if std::process::id() != 1 {
        check_units();
        return;
    }
    emergency::catch_panics();
    log::open();
    let boot = boot::Boot::run();
    let units = unit::load(Path::new(UNITS));
    match run::run(boot, units) {
        Ok(end) => shutdown::finish(end),
        Err(error) => emergency::reboot(&error.line()),
    }
}

/// Started by hand: reads the unit files of a folder and says what is wrong with them.
fn check_units() {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("zos-init is the first process of a ZOS node.");
        eprintln!(
            "usage elsewhere: zos-init DIR   checks DIR/units/*.toml and DIR/templates/*.toml"
        );
        std::process::exit(2);
    };
    let units = unit::load(Path::new(&dir));
    for problem in &units.problems {
        eprintln!("{problem}");
    }
    for service in &units.services {
        println!("{}: {}", service.name, service.exec.join(" "));
    }
    for template in units.templates.values() {
        println!("template {}: {}", template.name, template.exec.join(" "));
    }
    if !units.problems.is_empty() {
        std::process::exit(1);
    }
}
