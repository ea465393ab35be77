//! consoled: what a farmer sees on the machine itself.
//!
//! ```text
//!  all daemons ── View::refresh, every 3 s ──▶ screen ──▶ tty1     drawn over, on change and now and then
//!                                        └───▶ block ───▶ ttyS0 …  printed on change, at most every 10 s
//! ```
//! Absent on purpose: any input. Who can touch the machine can't give it orders here.
#![forbid(unsafe_code)]

pub mod screen;
pub mod terminal;
pub mod text;
pub mod view;

use std::time::{Duration, Instant};

use zos_daemon::{Bus, Daemon};
use zos_host::SysRoot;

use crate::terminal::{CONSOLES, Console, Kind};
use crate::text::Line;
use crate::view::View;

/// Between two looks at the node.
const LOOK: Duration = Duration::from_secs(3);
/// A screen is drawn this often even when nothing changed: the kernel may have written over it.
const REDRAW: Duration = Duration::from_secs(15);
/// How long the first block on a serial line may wait for what it tells.
const FIRST: Duration = Duration::from_secs(30);
/// Between two blocks on a serial line.
const BLOCK: Duration = Duration::from_secs(10);

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let wanted = daemon.settings.get("console").map(str::to_owned);
    let mut shown: Vec<Shown> = Vec::new();
    for (name, kind) in CONSOLES {
        if !is_wanted(wanted.as_deref(), name) {
            continue;
        }
        match Console::open(&SysRoot::host(), name, kind) {
            Ok(Some(console)) => {
                shown.push(Shown { name, console, since: Instant::now(), last: None });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("open /dev/{name}: {error}"),
        }
    }
    daemon.ready();
    tokio::select! {
        () = show(daemon.bus.clone(), shown) => {}
        stopped = Daemon::stopped() => stopped?,
    }
    Ok(())
}

/// `zos.console=none`, or the names of those that are to be used; unset: all.
fn is_wanted(setting: Option<&str>, name: &str) -> bool {
    setting.is_none_or(|setting| setting.split(',').any(|word| word.trim() == name))
}

/// A console and what stands on it.
struct Shown {
    name: &'static str,
    console: Console,
    since: Instant,
    last: Option<(String, Instant)>,
}

async fn show(bus: Bus, mut shown: Vec<Shown>) {
    let mut view = View::default();
    loop {
        view.refresh(&bus).await;
        for shown in &mut shown {
            if let Err(error) = shown.update(&view).await {
                tracing::debug!("write to {}: {error}", shown.name);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Shown {
    async fn update(&mut self, view: &View) -> std::io::Result<()> {
        let text = match self.console.kind {
            Kind::Screen => drawn(view, self.console.size()),
            Kind::Serial => printed(&screen::block(view)),
        };
        let due = match (&self.last, self.console.kind) {
            (None, Kind::Screen) => true,
            // The first block waits until it can tell how to reach the node, though not for ever.
            (None, Kind::Serial) => screen::is_complete(view) || self.since.elapsed() >= FIRST,
            (Some((last, at)), Kind::Screen) => *last != text || at.elapsed() >= REDRAW,
            (Some((last, at)), Kind::Serial) => *last != text && at.elapsed() >= BLOCK,
        };
        if due {
            let written = self.console.write(&text).await;
            self.last = Some((text, Instant::now()));
            written?;
        }
        Ok(())
    }
}

/// From the upper left corner on, each line cleared behind its text, no cursor (console_codes(4)).
fn drawn(view: &View, size: screen::Size) -> String {
    let lines = screen::screen(view, size);
    let lines = lines.iter().map(|line| line.ansi(size.columns - 1) + "\x1b[K\r\n");
    format!("\x1b[?25l\x1b[H{}\x1b[J", lines.collect::<String>())
}

fn printed(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain(78) + "\r\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farmer_chooses_consoles() {
        let check =
            |setting, name, wanted| assert_eq!(is_wanted(setting, name), wanted, "{setting:?}");
        check(None, "tty1", true);
        check(Some("none"), "tty1", false);
        check(Some("ttyS0"), "ttyS0", true);
        check(Some("tty1, ttyS0"), "ttyS0", true);
        check(Some("ttyS0"), "tty1", false);
    }
}
