//! `consoled`: the first screen, on the machine's own monitor and on its serial port.
//!
//! ```text
//!  every 2 s: ask the other daemons ──▶ View ──▶ screen(&View) ──▶ tty1    drawn anew each time
//!                                                            └──▶ ttyS0   printed when it changed
//! ```
//!
//! It reads and shows; it can change nothing. A daemon that doesn't answer within a second leaves a
//! gap on the screen, and a fault.
#![forbid(unsafe_code)]

mod gather;
mod screen;
mod terminal;
mod view;

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval};
use zos_daemon::{Daemon, DaemonError};

use crate::terminal::Terminal;

/// How often the others are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How often the serial port gets a new block, at the most.
const SERIAL_PERIOD: Duration = Duration::from_secs(5);

/// The life of the daemon.
pub async fn run(daemon: Daemon) -> Result<()> {
    let monitor = Terminal::at("/dev/tty1");
    let serial = Terminal::at("/dev/ttyS0");
    daemon.ready();
    tokio::select! {
        () = draw(&daemon, &monitor, &serial) => Ok(()),
        result = stopped() => Ok(result?),
    }
}

async fn stopped() -> Result<(), DaemonError> {
    Daemon::stopped().await
}

async fn draw(daemon: &Daemon, monitor: &Terminal, serial: &Terminal) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut printed = String::new();
    let mut next_print = Instant::now();
    loop {
        ticks.tick().await;
        let view = gather::view(&daemon.bus, &daemon.settings).await;
        monitor.draw(&screen::screen(&view));
        let block = screen::block(&view);
        if block != printed && Instant::now() >= next_print {
            serial.print(&block);
            printed = block;
            next_print = Instant::now() + SERIAL_PERIOD;
        }
    }
}
