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

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use zos_daemon::{Backoff, Bus, Config, Daemon, Outcome, Pace, Reader, Reconciler, Wake};
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

/// How often the node is looked at. What does not answer stands on the screen; nothing here fails.
const PACE: Pace =
    Pace { every: LOOK, soon: LOOK, backoff: Backoff { first: LOOK, longest: REDRAW } };

/// The farmer's words, parsed once.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Settings {
    /// `zos.console`: where the node's state is shown; none: everywhere.
    consoles: Option<Vec<&'static str>>,
}

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let known = CONSOLES.map(|(name, _)| name);
        let rule =
            format!("write `none`, or some of these with commas between: {}", known.join(", "));
        let parse = |text: &str| match text.trim() {
            "none" => Some(Vec::new()),
            words => words.split(',').map(|w| known.into_iter().find(|k| *k == w.trim())).collect(),
        };
        Self { consoles: reader.with("console", &rule, parse) }
    }
}

/// The daemon's life.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let wanted = daemon.config::<Settings>().consoles;
    let mut shown: Vec<Shown> = Vec::new();
    for (name, kind) in CONSOLES {
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&name)) {
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
    let (looking, bus) = (Reconciler::new(&daemon, "screen", PACE), daemon.bus.clone());
    let screens = Arc::new(Mutex::new((View::default(), shown)));
    let step = move || {
        let (bus, screens) = (bus.clone(), Arc::clone(&screens));
        async move {
            let (view, shown) = &mut *screens.lock().await;
            show(&bus, view, shown).await;
            Ok::<_, Infallible>(Outcome::Settled)
        }
    };
    daemon.serve_nothing(looking.run(Wake::default(), step)).await;
    Ok(())
}

/// A console and what stands on it.
struct Shown {
    name: &'static str,
    console: Console,
    since: Instant,
    last: Option<(String, Instant)>,
}

async fn show(bus: &Bus, view: &mut View, shown: &mut [Shown]) {
    view.refresh(bus).await;
    for shown in shown {
        if let Err(error) = shown.update(view).await {
            tracing::debug!("write to {}: {error}", shown.name);
        }
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
        let check = |text: &str, consoles: Option<&[&str]>, refused: usize| {
            let said = [("console".to_owned(), text.to_owned())].into_iter().collect();
            let (settings, faults) = Reader::config::<Settings>(&said);
            assert_eq!(settings.consoles.as_deref(), consoles, "{text}");
            assert_eq!(faults.len(), refused, "{text}");
        };
        check("none", Some(&[]), 0);
        check("ttyS0", Some(&["ttyS0"]), 0);
        check("tty1, ttyS0", Some(&["tty1", "ttyS0"]), 0);
        check("tty1,ttyS9", None, 1);
        let (unset, _) = Reader::config::<Settings>(&zos_daemon::Settings::default());
        assert_eq!(unset.consoles, None);
    }
}
