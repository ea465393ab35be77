//! The fake's services: units with logs that tests write, and a record of what the farmer did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use zos_api::local::CallError;
use zos_api::local::init::{
    Action, Crash, Exit, LogEntries, LogEntry, Unit, UnitDetail, UnitKind, UnitState, Usage,
};

use super::FakeNode;
use crate::backend::{Answer, Counts, CrashReport, LineStream, Services};
use crate::clock;

/// A twin's program, which no farmer may look into.
const TRANSIENT: &str = "vm/yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy/web.hello";

/// PID 1 and storaged, as far as the farmer sees them.
#[derive(Debug)]
pub(super) struct FakeInit {
    state: Mutex<InitState>,
    /// Told at each change of a log.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct InitState {
    boot: u64,
    silent: bool,
    storage_silent: bool,
    units: BTreeMap<String, FakeUnit>,
    shut_down: Vec<Action>,
}

#[derive(Debug, Default)]
struct FakeUnit {
    restarts: u64,
    since_ms: u64,
    exit: Option<Exit>,
    /// Lines ever, and the last of them.
    lines: u64,
    held: Vec<LogEntry>,
}

impl Default for FakeInit {
    fn default() -> Self {
        let units = ["storaged", "apid"].map(|name| (name.to_owned(), FakeUnit::default()));
        let state = InitState {
            boot: 1,
            silent: false,
            storage_silent: false,
            units: units.into(),
            shut_down: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: watch::channel(()).0 }
    }
}

impl FakeInit {
    fn state(&self) -> MutexGuard<'_, InitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> Result<MutexGuard<'_, InitState>, CallError> {
        let state = self.state();
        if state.silent {
            return Err(CallError::busy("zos-init does not answer within 2 s"));
        }
        Ok(state)
    }

    /// The boot's word for cursors.
    pub(super) fn boot_word(&self) -> String {
        format!("{:012x}", self.state().boot)
    }

    pub(super) fn units(&self) -> Vec<Unit> {
        let state = self.state();
        let mut units: Vec<Unit> =
            state.units.iter().map(|(name, unit)| told(name, unit)).collect();
        let transient = FakeUnit::default();
        units.push(Unit { kind: UnitKind::Transient, ..told(TRANSIENT, &transient) });
        units
    }

    pub(super) fn shut_down(&self, action: Action) -> Result<(), CallError> {
        let mut state = self.asked()?;
        if action == Action::Kexec {
            let detail = "no kernel is loaded".to_owned();
            return Err(CallError::Conflict { detail, next_version: None });
        }
        state.shut_down.push(action);
        Ok(())
    }

    pub(super) fn crashes(&self) -> Result<CrashReport, CallError> {
        let found =
            Crash { name: "dmesg-ramoops-0".into(), text: "Kernel panic\n\u{1b}[2J\n".into() };
        let state = self.asked()?;
        let earlier = !state.storage_silent;
        let kept = Crash { name: "dmesg-ramoops-1".into(), text: "older\n".into() };
        let crashes = if earlier { vec![found, kept] } else { vec![found] };
        Ok(CrashReport { crashes, earlier })
    }

    pub(super) fn counts(&self) -> Counts {
        let silent = |name: &str| CallError::busy(format!("{name} does not answer within 2 s"));
        let state = self.state();
        let storaged = match state.storage_silent {
            true => Err(silent("storaged")),
            false => Ok("# TYPE zos_storaged_pools gauge\nzos_storaged_pools 1\n".to_owned()),
        };
        let details = state.units.iter().map(|(name, unit)| (name.clone(), detail(name, unit)));
        let (details, known) = (details.collect(), !state.silent);
        drop(state);
        Counts {
            boot: known.then(super::boot),
            units: known.then(|| self.units()),
            details,
            daemons: BTreeMap::from([("storaged".to_owned(), storaged)]),
        }
    }

    /// The lines of a unit after a cursor.
    fn lines(&self, name: &str, after: u64) -> Result<LogEntries, CallError> {
        let state = self.asked()?;
        let unit = state.units.get(name).ok_or_else(|| unknown(name))?;
        let entries: Vec<_> = unit.held.iter().filter(|e| e.cursor > after).cloned().collect();
        let first = entries.first().map_or(unit.lines + 1, |entry| entry.cursor);
        Ok(LogEntries { entries, missed: first.saturating_sub(after + 1) })
    }
}

impl FakeNode {
    /// Makes a service print a line.
    pub fn print(&self, service: &str, level: u8, text: &str) {
        let mut state = self.init.state();
        let unit = state.units.entry(service.to_owned()).or_default();
        unit.lines += 1;
        let (cursor, time_ms) = (unit.lines, clock::now().boot_millis);
        unit.held.push(LogEntry { cursor, time_ms, level, text: text.to_owned() });
        drop(state);
        self.init.changed.send_replace(());
    }

    /// Makes PID 1 forget all lines of a service but the last ones.
    pub fn forget_lines(&self, service: &str, keep: usize) {
        let mut state = self.init.state();
        let unit = state.units.entry(service.to_owned()).or_default();
        unit.held.drain(..unit.held.len().saturating_sub(keep));
    }

    /// Another boot: no log of the one before is there.
    pub fn reboot(&self) {
        let mut state = self.init.state();
        state.boot += 1;
        state.units.values_mut().for_each(|unit| *unit = FakeUnit::default());
    }

    /// Whether PID 1 is to be silent from now on.
    pub fn set_init_silent(&self, silent: bool) {
        self.init.state().silent = silent;
    }

    /// Whether storaged is to be silent from now on.
    pub fn set_storage_silent(&self, silent: bool) {
        self.init.state().storage_silent = silent;
    }

    /// Each end of the run that the farmer asked for.
    pub fn shut_down(&self) -> Vec<Action> {
        self.init.state().shut_down.clone()
    }
}

impl Services for FakeNode {
    fn units(&self) -> Answer<'_, Vec<Unit>> {
        Box::pin(async {
            drop(self.init.asked()?);
            Ok(self.init.units())
        })
    }

    fn describe(&self, name: String) -> Answer<'_, UnitDetail> {
        Box::pin(async move {
            let state = self.init.asked()?;
            state.units.get(&name).map(|unit| detail(&name, unit)).ok_or_else(|| unknown(&name))
        })
    }

    fn restart(&self, name: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut state = self.init.asked()?;
            let unit = state.units.get_mut(&name).ok_or_else(|| unknown(&name))?;
            unit.restarts += 1;
            unit.since_ms = clock::now().boot_millis;
            unit.exit = Some(Exit { code: None, signal: Some(15), oom: false });
            Ok(())
        })
    }

    fn read_lines(&self, name: String, after: u64, follow: bool) -> Answer<'_, LineStream> {
        Box::pin(async move {
            let (sender, stream) = mpsc::channel(1);
            let mut changed = self.init.changed.subscribe();
            let lines = self.init.lines(&name, after)?;
            let init = Arc::clone(&self.init);
            tokio::spawn(async move {
                let (mut after, mut lines) = (after, lines);
                loop {
                    let last = lines.entries.last().map(|entry| entry.cursor);
                    if (last.is_some() || lines.missed > 0) && sender.send(Ok(lines)).await.is_err()
                    {
                        return;
                    }
                    after = last.unwrap_or(after);
                    let gone = async {
                        tokio::select! {
                            changed = changed.changed() => changed.is_err(),
                            () = sender.closed() => true,
                        }
                    };
                    if !follow || gone.await {
                        return;
                    }
                    let Ok(more) = init.lines(&name, after) else { return };
                    lines = more;
                }
            });
            Ok(stream)
        })
    }
}

fn unknown(name: &str) -> CallError {
    CallError::not_found(format!("there is no unit {name}"))
}

fn told(name: &str, unit: &FakeUnit) -> Unit {
    Unit {
        name: name.into(),
        kind: UnitKind::Service,
        state: UnitState::Running,
        pid: Some(7),
        restarts: unit.restarts,
        since_ms: unit.since_ms,
        exit: unit.exit,
        detail: String::new(),
    }
}

fn detail(name: &str, unit: &FakeUnit) -> UnitDetail {
    let usage =
        Usage { memory: 5 << 20, memory_peak: 6 << 20, cpu_usec: 1_250_000, pids: 3, oom_kills: 0 };
    let log_bytes = unit.held.iter().map(|entry| entry.text.len() as u64).sum();
    UnitDetail { unit: told(name, unit), usage: Some(usage), log_bytes }
}
