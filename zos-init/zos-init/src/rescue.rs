//! When no service runs: PID 1 itself shows why, and boots again after a while.
//!
//! ```text
//!            no service serves        for 60 s, or there is none at all
//!    Fine ────────────────▶ Waiting ───────────────▶ Shown ── zos.rescue (5 min) ─▶ down: kexec if a kernel
//!      ▲                       │                       │ every 10 s: the screen         is loaded, else reboot
//!      └─────── one serves ────┴───────────────────────┘ again, if it changed
//! ```
//! The decision is pure; the screen goes to every console that the kernel has.

use zos_host::console;
use zos_host::kmsg::Level;
use zos_host::power::End;
use zos_host::{SysRoot, kexec};

use crate::boot::Boot;
use crate::log;
use crate::supervise::{Kind, Millis, Services, Status};

/// Without a service for so long: rescue.
const HELPLESS: Millis = 60_000;
/// How often the screen is looked at.
const LOOK: Millis = 10_000;
/// Until the machine boots again, unless `zos.rescue` says otherwise.
pub(crate) const STAY: Millis = 5 * 60_000;
/// What fits on every screen.
const COLUMNS: usize = 80;
const UNITS: usize = 11;
const FAULTS: usize = 5;

/// What `zos.rescue` says: milliseconds until the machine boots again; none: it stays.
pub(crate) fn setting(text: Option<&str>) -> Result<Option<Millis>, String> {
    let Some(text) = text else { return Ok(Some(STAY)) };
    if text == "stay" {
        return Ok(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => Some(1000),
        "min" => Some(60_000),
        _ => None,
    };
    let millis = digits.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    millis.map(Some).ok_or_else(|| {
        format!("zos.rescue={text} is neither `stay` nor a time like 90s or 5min; it is 5min")
    })
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Show the screen, if it says something new.
    Show,
    /// It is over: a service runs.
    Over,
    /// Boot again.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    Waiting { until: Millis },
    Shown { look: Millis, leave: Option<Millis> },
    Left,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rescue {
    state: State,
    stay: Option<Millis>,
    /// What stands on the consoles.
    screen: Vec<String>,
}

impl Rescue {
    /// `stay`: milliseconds until the machine boots again.
    pub(crate) fn new(stay: Option<Millis>) -> Self {
        Self { state: State::Fine, stay, screen: Vec::new() }
    }

    /// Looks at the services.
    pub(crate) fn look(&mut self, now: Millis, services: Services) -> Step {
        match (self.state, services) {
            (State::Left, _) | (State::Fine, Services::Serve | Services::Leave) => Step::Nothing,
            (State::Waiting { .. }, Services::Serve | Services::Leave) => {
                self.state = State::Fine;
                Step::Nothing
            }
            (State::Shown { .. }, Services::Leave) => {
                self.state = State::Left;
                Step::Nothing
            }
            (State::Shown { .. }, Services::Serve) => {
                *self = Self::new(self.stay);
                Step::Over
            }
            (State::Fine, Services::Fail) => {
                self.state = State::Waiting { until: now + HELPLESS };
                Step::Nothing
            }
            (State::Waiting { until }, Services::Fail) if now < until => Step::Nothing,
            (State::Fine | State::Waiting { .. }, Services::Fail | Services::Absent) => {
                let leave = self.stay.map(|stay| now + stay);
                self.state = State::Shown { look: now + LOOK, leave };
                Step::Show
            }
            (State::Shown { leave: Some(leave), .. }, _) if now >= leave => {
                self.state = State::Left;
                Step::Leave
            }
            (State::Shown { look, leave }, _) if now >= look => {
                self.state = State::Shown { look: now + LOOK, leave };
                Step::Show
            }
            (State::Shown { .. }, _) => Step::Nothing,
        }
    }

    /// When to look although nothing happens.
    pub(crate) fn next_time(&self) -> Option<Millis> {
        match self.state {
            State::Fine | State::Left => None,
            State::Waiting { until } => Some(until),
            State::Shown { look, leave } => Some(leave.map_or(look, |leave| leave.min(look))),
        }
    }

    /// Shows why, on every console, if that changed.
    pub(crate) fn show(&mut self, boot: &Boot, units: &[Status]) {
        let leave = match self.state {
            State::Shown { leave, .. } => leave,
            _ => None,
        };
        let lines = screen(boot, units, leave, kexec::loaded(&SysRoot::host()));
        if lines == self.screen {
            return;
        }
        if self.screen.is_empty() {
            log::line(Level::Critical, "no service runs: rescue");
        }
        let text = format!("\n{}\n", lines.join("\n"));
        self.screen = lines;
        for name in console::names(&SysRoot::host()) {
            if let Err(error) = console::write(&name, &text) {
                log::line(Level::Warning, &error.line());
            }
        }
    }
}

/// How the machine goes on when nobody helps it.
pub(crate) fn way_out() -> End {
    if kexec::loaded(&SysRoot::host()) { End::Kexec } else { End::Reboot }
}

/// The screen: at most 24 lines of 80 columns.
fn screen(boot: &Boot, units: &[Status], leave: Option<Millis>, kexec: bool) -> Vec<String> {
    let mut lines = vec![
        format!("=== ZOS {} RESCUE: no service of this node runs", env!("CARGO_PKG_VERSION")),
        format!("image {}", if boot.image.is_empty() { "without a manifest" } else { &boot.image }),
        format!("booted by {:?}", boot.boot_reason),
    ];
    let services: Vec<&Status> = units.iter().filter(|unit| unit.kind == Kind::Service).collect();
    if services.is_empty() {
        lines.push("there is no service that could be started".to_owned());
    }
    let row = |unit: &&Status| format!("{:<12} {:<8} {}", unit.name, unit.state, unit.detail);
    lines.extend(services.iter().take(UNITS).map(row));
    if services.len() > UNITS {
        lines.push(format!("and {} more", services.len() - UNITS));
    }
    let faults = boot.faults.iter().take(FAULTS);
    lines.extend(faults.map(|fault| format!("fault {}: {}", fault.id, fault.detail)));
    if boot.faults.len() > FAULTS {
        lines.push(format!("and {} faults more", boot.faults.len() - FAULTS));
    }
    let next = if kexec { "the kernel that is loaded is started" } else { "the node boots again" };
    lines.push(match leave {
        Some(at) => format!("{} min {} s after its start {next}", at / 60_000, at / 1000 % 60),
        None => "it stays so (zos.rescue=stay)".to_owned(),
    });
    lines.push("power button: off. ctrl-alt-del: boot again.".to_owned());
    lines.iter().map(|line| plain(line)).collect()
}

/// A line that fits, and that can't move the cursor.
fn plain(line: &str) -> String {
    let clean = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text: String = clean.clone().take(COLUMNS).collect();
    if clean.count() > COLUMNS {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        for (text, expect) in [
            (None, Ok(Some(300_000))),
            (Some("stay"), Ok(None)),
            (Some("90s"), Ok(Some(90_000))),
            (Some("2min"), Ok(Some(120_000))),
            (Some("7"), Ok(Some(7000))),
            (Some("soon"), Err(())),
            (Some("5h"), Err(())),
        ] {
            assert_eq!(setting(text).map_err(|_| ()), expect, "{text:?}");
        }
    }

    fn check(stay: Option<Millis>, story: &[(Millis, Services, Step, Option<Millis>)]) {
        let mut rescue = Rescue::new(stay);
        for (now, services, expect, next) in story {
            assert_eq!(rescue.look(*now, *services), *expect, "at {now}");
            assert_eq!(rescue.next_time(), *next, "after {now}");
        }
    }

    #[test]
    fn when_no_service_runs_the_node_shows_it_and_boots_again() {
        use Services::{Absent, Fail, Leave, Serve};
        // One that heals in time.
        check(
            Some(100_000),
            &[
                (0, Fail, Step::Nothing, Some(60_000)),
                (59_000, Fail, Step::Nothing, Some(60_000)),
                (59_500, Serve, Step::Nothing, None),
                (70_000, Fail, Step::Nothing, Some(130_000)),
            ],
        );
        // One that heals late, and one that doesn't.
        check(
            Some(100_000),
            &[
                (0, Fail, Step::Nothing, Some(60_000)),
                (60_000, Fail, Step::Show, Some(70_000)),
                (65_000, Fail, Step::Nothing, Some(70_000)),
                (70_000, Fail, Step::Show, Some(80_000)),
                (75_000, Serve, Step::Over, None),
                (80_000, Fail, Step::Nothing, Some(140_000)),
                (140_000, Fail, Step::Show, Some(150_000)),
                (235_000, Fail, Step::Show, Some(240_000)),
                (240_000, Fail, Step::Leave, None),
                (250_000, Fail, Step::Nothing, None),
            ],
        );
        // Somebody comes, and switches it off.
        check(
            Some(100_000),
            &[
                (0, Absent, Step::Show, Some(10_000)),
                (5000, Leave, Step::Nothing, None),
                (200_000, Leave, Step::Nothing, None),
            ],
        );
        // Nothing to wait for, and nobody who wants a reboot.
        check(
            None,
            &[
                (5000, Absent, Step::Show, Some(15_000)),
                (15_000, Absent, Step::Show, Some(25_000)),
                (900_000, Absent, Step::Show, Some(910_000)),
            ],
        );
    }

    fn unit(name: &str, detail: &str) -> Status {
        Status {
            name: name.to_owned(),
            kind: Kind::Service,
            state: "failed",
            pid: None,
            restarts: 0,
            since_ms: 0,
            exit: None,
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn the_screen_fits_and_says_what_matters() {
        let mut boot = Boot::default();
        boot.image.push_str(&"a".repeat(64));
        let found = screen(&boot, &[], Some(372_000), true).join("\n");
        for words in
            ["no service that could", "6 min 12 s after its start the kernel that is loaded"]
        {
            assert!(found.contains(words), "{words}: {found}");
        }

        boot.fault("image-corrupt", "/bin/zosd is corrupt");
        let units = [unit("storaged", "exit code 1\u{1b}[2J"), unit("vmd", "requires storaged")];
        let found = screen(&boot, &units, None, false).join("\n");
        for words in [
            "storaged     failed   exit code 1 [2J",
            "requires storaged",
            "fault image-corrupt",
            "stays",
        ] {
            assert!(found.contains(words), "{words}: {found}");
        }

        for number in 0..30 {
            boot.fault("unit", &format!("{number}: {}", "ü".repeat(100)));
        }
        let units: Vec<Status> = (0..30).map(|n| unit(&format!("u{n}"), &"x".repeat(99))).collect();
        let found = screen(&boot, &units, Some(1), false);
        assert!(found.len() <= 24, "{found:#?}");
        assert!(found.iter().all(|line| line.chars().count() <= 80), "{found:#?}");
        assert!(found.iter().any(|line| line == "and 19 more"));
    }
}
