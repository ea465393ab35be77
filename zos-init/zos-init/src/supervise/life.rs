//! One unit's life: its states, and what each event does to it.

use zos_host::kmsg::Level;

use super::{Action, Ended, Kind, Millis, UnitId};
use crate::unit::{Ready, Restart, Rules};

/// First delay before a unit is started again; it doubles up to [`LONGEST_DELAY`].
const FIRST_DELAY: Millis = 200;
/// Longest delay before a unit is started again.
const LONGEST_DELAY: Millis = 30_000;
/// A unit that ran so long gets the first delay again.
pub(super) const STEADY: Millis = 60_000;
/// After its cgroup was killed, a process has so long to go; then it hangs in the kernel.
pub(super) const KILLED: Millis = 5_000;

/// Where a unit is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// For others.
    Waiting,
    /// `Action::Spawn` was given; its answer comes at once.
    Launching,
    /// Runs, and has until `until` to say that it is ready.
    Starting { pid: i32, until: Millis },
    /// Ready.
    Running { pid: i32 },
    /// Told to stop, or killed; at `until` more is done about it.
    Stopping { pid: i32, until: Millis, killed: bool, again: bool },
    /// Ended; starts again at `until`.
    Backoff { until: Millis },
    /// Ended (or was stopped before it began), for good.
    Exited,
    /// Given up.
    Failed { cause: String },
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) id: UnitId,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) rules: Rules,
    pub(super) state: State,
    pub(super) since: Millis,
    pub(super) restarts: u64,
    /// Quick ends in a row: what the next delay goes by.
    pub(super) streak: u32,
    pub(super) last: Option<Ended>,
}

impl Unit {
    pub(super) fn enter(&mut self, now: Millis, state: State) {
        self.state = state;
        self.since = now;
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Its process is gone and won't come back.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Exited | State::Failed { .. })
    }

    pub(super) fn launched(
        &mut self,
        now: Millis,
        pid: Result<i32, String>,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        if self.state != State::Launching {
            return;
        }
        match (pid, self.rules.ready) {
            (Ok(pid), Ready::Started) => self.enter(now, State::Running { pid }),
            (Ok(pid), Ready::Told) => {
                let until = now + self.rules.ready_timeout;
                self.enter(now, State::Starting { pid, until });
            }
            (Err(why), _) => {
                let exit = zos_host::process::Exit::Code(127);
                self.over(now, Ended { exit, oom: false, unreached: Some(why) }, jitter, actions);
            }
        }
        actions.push(Action::Changed);
    }

    pub(super) fn ready(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if let State::Starting { pid, .. } = self.state {
            let took = now.saturating_sub(self.since);
            self.enter(now, State::Running { pid });
            let text = format!("{} is ready after {took} ms", self.name);
            actions.extend([Action::Note(Level::Info, text), Action::Changed]);
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Millis,
        how: Ended,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        match self.state {
            State::Starting { .. } | State::Running { .. } => self.over(now, how, jitter, actions),
            State::Stopping { again: true, .. } => self.over(now, how, jitter, actions),
            State::Stopping { again: false, .. } => {
                let level = if how.failed() { Level::Notice } else { Level::Info };
                actions.push(Action::Note(level, format!("{} stopped: {how}", self.name)));
                self.last = Some(how);
                self.enter(now, State::Exited);
                actions.push(Action::Tidy(self.id));
            }
            _ => return,
        }
        actions.push(Action::Changed);
    }

    /// Its process has ended without being told to.
    pub(super) fn over(&mut self, now: Millis, how: Ended, jitter: u16, actions: &mut Vec<Action>) {
        let ran = now.saturating_sub(self.since);
        let again = match self.rules.restart {
            Restart::Always => true,
            Restart::OnFailure => how.failed(),
            Restart::Never => false,
        };
        let name = &self.name;
        if again {
            self.streak = if ran >= STEADY { 0 } else { self.streak.saturating_add(1) };
            let delay = delay(self.streak, jitter);
            let text = format!("{name} ended: {how}; starting it again in {delay} ms");
            actions.push(Action::Note(Level::Warning, text));
            self.enter(now, State::Backoff { until: now + delay });
        } else {
            let level = if how.failed() { Level::Warning } else { Level::Info };
            actions.push(Action::Note(level, format!("{name} ended: {how}")));
            self.enter(now, State::Exited);
        }
        self.last = Some(how);
        actions.push(Action::Tidy(self.id));
    }

    /// Asks it to stop; `again`: it is to be started again afterwards.
    pub(super) fn stop(
        &mut self,
        now: Millis,
        grace: Millis,
        again: bool,
        actions: &mut Vec<Action>,
    ) {
        match self.state {
            State::Starting { pid, .. } | State::Running { pid } if grace > 0 => {
                actions.push(Action::Signal(self.id, self.rules.stop_signal));
                let until = now + grace;
                self.enter(now, State::Stopping { pid, until, killed: false, again });
            }
            State::Starting { pid, .. } | State::Running { pid } => {
                actions.push(Action::Kill(self.id));
                let until = now + KILLED;
                self.enter(now, State::Stopping { pid, until, killed: true, again });
            }
            // A second wish may only shorten the first.
            State::Stopping { pid, until, killed: false, .. }
                if grace == 0 || now + grace < until =>
            {
                if grace == 0 {
                    actions.push(Action::Kill(self.id));
                }
                let until = if grace == 0 { now + KILLED } else { now + grace };
                self.state = State::Stopping { pid, until, killed: grace == 0, again };
            }
            State::Stopping { pid, until, killed, .. } => {
                self.state = State::Stopping { pid, until, killed, again };
            }
            State::Waiting | State::Backoff { .. } | State::Launching => {
                self.enter(now, State::Exited);
            }
            State::Exited | State::Failed { .. } => {}
        }
    }

    pub(super) fn on_time(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match self.state {
            State::Backoff { until } if until <= now => {
                self.restarts += 1;
                self.enter(now, State::Waiting);
                actions.push(Action::Changed);
            }
            State::Starting { until, .. } if until <= now => {
                let text = format!("{} didn't become ready in time; stopping it", self.name);
                actions.push(Action::Note(Level::Warning, text));
                self.stop(now, self.rules.stop_timeout, true, actions);
                actions.push(Action::Changed);
            }
            State::Stopping { pid, until, killed: false, again } if until <= now => {
                let text = format!("{} didn't stop in time; killing it", self.name);
                actions.extend([Action::Note(Level::Warning, text), Action::Kill(self.id)]);
                self.state = State::Stopping { pid, until: now + KILLED, killed: true, again };
            }
            State::Stopping { until, killed: true, .. } if until <= now => {
                let cause = "its process was killed and doesn't end".to_owned();
                actions.push(Action::Note(Level::Error, format!("{}: {cause}", self.name)));
                self.enter(now, State::Failed { cause });
                actions.push(Action::Changed);
            }
            _ => {}
        }
    }
}

/// Delay before the next start after `streak` quick ends (1 for the first): doubled each time, up to a
/// quarter longer by chance, so that units that fell together don't rise together.
pub(super) fn delay(streak: u32, jitter: u16) -> Millis {
    let doubled = FIRST_DELAY << streak.saturating_sub(1).min(16);
    let delay = doubled.min(LONGEST_DELAY);
    delay + delay / 4 * u64::from(jitter.min(999)) / 1000
}
