//! Why did the machine boot, and what did the run before it leave?
//!
//! ```text
//!  zos.boot=kexec on the command line ───────────────▶ kexec
//!  a panic or oops in pstore, or PID 1's mark `died` ─▶ panic
//!  the watchdog's own status ────────────────────────▶ watchdog
//!  the mark `end reboot` or `end kexec` ─────────────▶ reboot
//!            `end poweroff` or `end halt` ───────────▶ cold      (some machines keep memory while they are off)
//!            `run` and no end ───────────────────────▶ reset
//!  no mark: the power was gone ──────────────────────▶ unknown, until storaged tells by the state disk's record:
//!                              it ended by reboot ───▶ reboot    (a firmware that clears memory)
//!                              it ended otherwise ───▶ cold
//!                              it never ended ───────▶ powerloss
//! ```
//! A mark is a line in memory that a warm start keeps (`/dev/pmsg0`): PID 1 writes `run <number>` at its start, `hung
//! <names>` when a way down gets stuck, and `end <action>` or `died <why>` as its last word. What is stronger stands
//! above: a kernel that panics on its way to a reboot is a panic.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

use serde::Serialize;
use zos_host::kmsg::Level;
use zos_host::power::End;
use zos_host::pstore::{self, Crash, Messages};
use zos_host::{Context, Result, SysRoot, entropy, watchdog};

use crate::boot::Boot;
use crate::log;

/// What was found stands here for as long as the node runs: memory of PID 1 is dearer.
const FOLDER: &str = "/run/zos/crash";
/// Crashes that are kept.
const MOST: usize = 8;
/// Bytes of each; of a larger one the newest.
const LIMIT: usize = 64 << 10;
/// Bytes of marks.
const MARKS: usize = 4 << 10;

/// Why the machine booted. The words are those of `GET /v1/node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BootReason {
    /// It was switched on, after an orderly end or for the first time.
    Cold,
    /// It was told to.
    Reboot,
    /// By the kernel that ran before, without the firmware.
    Kexec,
    /// A watchdog fired.
    Watchdog,
    /// The kernel or PID 1 died.
    Panic,
    /// It was switched on, and the run before never ended.
    PowerLoss,
    /// The memory was kept, and the run before neither ended nor died.
    Reset,
    /// Nothing tells (yet).
    #[default]
    Unknown,
}

/// PID 1's marks of the run before.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Marks {
    /// None: the memory was not kept.
    Gone,
    /// It ran.
    Ran,
    /// It went down in order, to this end.
    Ended(End),
    /// PID 1 could not go on.
    Died,
}

/// All that tells of the run before, without the state disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Evidence {
    kexec: bool,
    crashed: bool,
    fired: bool,
    marks: Marks,
}

/// The boot's reason, as far as the machine itself tells.
fn classify(evidence: &Evidence) -> BootReason {
    match evidence {
        Evidence { kexec: true, .. } => BootReason::Kexec,
        Evidence { crashed: true, .. } | Evidence { marks: Marks::Died, .. } => BootReason::Panic,
        Evidence { fired: true, .. } => BootReason::Watchdog,
        Evidence { marks: Marks::Ended(end), .. } => after(*end),
        Evidence { marks: Marks::Ran, .. } => BootReason::Reset,
        Evidence { marks: Marks::Gone, .. } => BootReason::Unknown,
    }
}

/// The same once the state disk's record is known: it adds to what is unknown, and overrules nothing.
fn sharpen(reason: BootReason, last: Option<End>) -> BootReason {
    match (reason, last) {
        (BootReason::Unknown, Some(end)) => after(end),
        (BootReason::Unknown, None) => BootReason::PowerLoss,
        (known, _) => known,
    }
}

fn after(end: End) -> BootReason {
    match end {
        // A kernel that was really started by another one says so itself.
        End::Reboot | End::Kexec => BootReason::Reboot,
        End::Poweroff | End::Halt => BootReason::Cold,
    }
}

/// The marks of one run, and what got stuck at its end.
fn read_marks(text: Option<&str>) -> (Marks, Vec<&str>) {
    let (mut marks, mut hung) = (Marks::Gone, Vec::new());
    for line in text.unwrap_or_default().lines() {
        match line.split_once(' ') {
            Some(("run", _)) => (marks, hung) = (Marks::Ran, Vec::new()),
            Some(("hung", names)) => hung.push(names),
            Some(("died", _)) => marks = Marks::Died,
            Some(("end", word)) => {
                let end = [End::Poweroff, End::Reboot, End::Halt, End::Kexec]
                    .into_iter()
                    .find(|end| name(*end) == word);
                marks = end.map_or(marks, Marks::Ended);
            }
            // Cut off by a reset in the middle of a word, or somebody else's.
            _ => {}
        }
    }
    (marks, hung)
}

/// The word for an end, in marks and in `org.zos.Init`.
pub(crate) fn name(end: End) -> &'static str {
    match end {
        End::Poweroff => "poweroff",
        End::Reboot => "reboot",
        End::Halt => "halt",
        End::Kexec => "kexec",
    }
}

static MESSAGES: OnceLock<Messages> = OnceLock::new();

/// Leaves a line for the next boot, where the machine can keep one.
pub(crate) fn mark(line: &str) {
    if let Some(messages) = MESSAGES.get() {
        // A line is one mark: a word of somebody else's can't end it.
        let _ = messages.write(&line.replace(char::is_control, " "));
    }
}

/// The phase: reads what the run before left, makes room for what this one may leave, and says why the
/// machine booted.
pub(crate) fn collect(boot: &mut Boot) -> Result<()> {
    let root = SysRoot::host();
    let kept = pstore::messages(&root, MARKS);
    let mut crashes = pstore::crashes(&root, MOST, LIMIT)?;
    let watchdogs = watchdog::list(&root);
    let (marks, hung) = read_marks(kept.as_deref());
    let evidence = Evidence {
        kexec: boot.settings.get("boot") == Some("kexec"),
        crashed: !crashes.is_empty(),
        fired: watchdogs.iter().any(|watchdog| watchdog.fired),
        marks,
    };
    boot.boot_reason = classify(&evidence);
    log::line(Level::Notice, &format!("booted by {:?}: {evidence:?}", boot.boot_reason));

    if !hung.is_empty() {
        log::line(Level::Warning, &format!("the last way down got stuck: {}", hung.join("; ")));
    }
    // Where the kernel left no last words, what the console showed is the next best.
    let silent = matches!(boot.boot_reason, BootReason::Watchdog | BootReason::Reset)
        || evidence.marks == Marks::Died
        || !hung.is_empty();
    let console = if silent { pstore::console(&root, LIMIT) } else { None };
    if let Some(console) = console {
        let text = format!("{}{console}", kept.unwrap_or_default());
        crashes.push(Crash { name: "console".to_owned(), text });
        crashes.truncate(MOST);
    }
    match Messages::open() {
        Ok(messages) => drop(MESSAGES.set(messages)),
        Err(error) => log::line(Level::Info, &error.line()),
    }
    mark(&format!("run {:016x}", entropy::number()));
    keep(Path::new(FOLDER), &crashes)?;
    // Only what is copied may go.
    pstore::clear_crashes(&root)
}

fn keep(folder: &Path, crashes: &[Crash]) -> Result<()> {
    if crashes.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(folder).during("create", folder.display())?;
    // The kernel's log is nobody's business.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .during("protect", folder.display())?;
    for crash in crashes {
        let path = folder.join(&crash.name);
        fs::write(&path, &crash.text).during("write", path.display())?;
    }
    Ok(())
}

/// What kernels that died left, as this boot found it.
pub(crate) fn crashes() -> Vec<Crash> {
    found(Path::new(FOLDER))
}

fn found(folder: &Path) -> Vec<Crash> {
    let root = SysRoot::at(folder);
    let names = root.list("/").unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| root.read(&name).ok().map(|text| Crash { name, text }))
        .collect()
}

impl Boot {
    /// storaged knows how the run before this one ended, by the state disk's record.
    pub(crate) fn set_last_end(&mut self, last: Option<End>) {
        let reason = sharpen(self.boot_reason, last);
        if reason != self.boot_reason {
            log::line(Level::Notice, &format!("booted by {reason:?}, says the state disk"));
            self.boot_reason = reason;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        use BootReason as Reason;
        use Marks::{Died, Ended, Gone, Ran};
        for (kexec, crashed, fired, marks, expect) in [
            (false, false, false, Gone, Reason::Unknown),
            (false, false, false, Ran, Reason::Reset),
            (false, false, false, Died, Reason::Panic),
            (false, false, false, Ended(End::Reboot), Reason::Reboot),
            (false, false, false, Ended(End::Kexec), Reason::Reboot),
            (false, false, false, Ended(End::Poweroff), Reason::Cold),
            (false, false, false, Ended(End::Halt), Reason::Cold),
            // A watchdog that fired is no plain reset, also when it ended a reboot that hung.
            (false, false, true, Ran, Reason::Watchdog),
            (false, false, true, Gone, Reason::Watchdog),
            (false, false, true, Ended(End::Reboot), Reason::Watchdog),
            // Last words tell why it fired.
            (false, true, true, Ran, Reason::Panic),
            (false, true, false, Ended(End::Reboot), Reason::Panic),
            // NVRAM keeps them over a loss of power.
            (false, true, false, Gone, Reason::Panic),
            (true, false, false, Ended(End::Kexec), Reason::Kexec),
            (true, true, true, Ran, Reason::Kexec),
        ] {
            let evidence = Evidence { kexec, crashed, fired, marks };
            assert_eq!(classify(&evidence), expect, "{evidence:?}");
        }
    }

    #[test]
    fn the_state_disk_adds_to_what_is_unknown_and_overrules_nothing() {
        use BootReason as Reason;
        for (before, last, expect) in [
            (Reason::Unknown, None, Reason::PowerLoss),
            (Reason::Unknown, Some(End::Poweroff), Reason::Cold),
            (Reason::Unknown, Some(End::Halt), Reason::Cold),
            (Reason::Unknown, Some(End::Reboot), Reason::Reboot),
            (Reason::Panic, None, Reason::Panic),
            (Reason::Reset, None, Reason::Reset),
            (Reason::Watchdog, Some(End::Reboot), Reason::Watchdog),
            (Reason::Cold, None, Reason::Cold),
        ] {
            assert_eq!(sharpen(before, last), expect, "{before:?} {last:?}");
        }
    }

    #[test]
    fn marks() {
        for (text, expect, stuck) in [
            (None, Marks::Gone, &[][..]),
            (Some(""), Marks::Gone, &[]),
            (Some("noise\n"), Marks::Gone, &[]),
            (Some("run 12\n"), Marks::Ran, &[]),
            (Some("run 12\nend poweroff\n"), Marks::Ended(End::Poweroff), &[]),
            (Some("run 12\nend reb"), Marks::Ran, &[]),
            (Some("run 12\nhung vmd\nend kexec\n"), Marks::Ended(End::Kexec), &["vmd"]),
            (Some("run 12\ndied panic at x\n"), Marks::Died, &[]),
            // Only the last run counts.
            (Some("run 1\nhung vmd\nend reboot\nrun 2\n"), Marks::Ran, &[]),
        ] {
            assert_eq!(read_marks(text), (expect, stuck.to_vec()), "{text:?}");
        }
    }

    #[test]
    fn what_was_found_is_kept_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crash");
        assert!(found(&folder).is_empty());
        let crash = |name: &str| Crash { name: name.to_owned(), text: "last words\n".to_owned() };
        let crashes = [crash("console"), crash("dmesg-ramoops-0")];
        keep(&folder, &crashes).unwrap();
        assert_eq!(found(&folder), crashes);
    }
}
