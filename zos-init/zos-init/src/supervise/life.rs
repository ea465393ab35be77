//! One unit's life: what each event does to it.

use zos_host::kmsg::Level;
use zos_host::process::Exit;

use super::budget::{Crashes, delay};
use super::state::{Look, Run, State, Then};
use super::watch::Watch;
use super::{Action, Ended, Kind, Millis, UnitId, words};
use crate::unit::{Ready, Restart, Rules};

/// A unit that ran so long gets the first delay again.
pub(super) const STEADY: Millis = 60_000;
/// First delay between two looks at a socket; it doubles each time.
const FIRST_LOOK: Millis = 5;

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
    /// Ends that its budget still counts.
    pub(super) crashes: Crashes,
    pub(super) last: Option<Ended>,
}

impl Unit {
    pub(super) fn enter(&mut self, now: Millis, state: State, actions: &mut Vec<Action>) {
        self.turn(now, state, false, actions);
    }

    /// Its process has ended just now.
    fn enter_ended(&mut self, now: Millis, how: Ended, state: State, actions: &mut Vec<Action>) {
        self.last = Some(how);
        actions.push(Action::Tidy(self.id));
        self.turn(now, state, true, actions);
    }

    fn turn(&mut self, now: Millis, state: State, ended: bool, actions: &mut Vec<Action>) {
        let told = self.word() != state.word();
        self.state = state;
        self.since = now;
        actions.push(Action::Changed);
        if told || ended {
            actions.push(Action::Happened(self.happened(ended)));
        }
    }

    /// Its process is gone and won't come back by itself; one that hangs is not over.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.state,
            State::Done
                | State::Exited { .. }
                | State::Failed { .. }
                | State::Broken { .. }
                | State::Gone
        )
    }

    /// Those that require it may start.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Done)
    }

    /// Its file was gone.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(
            self.state,
            State::Stopping { then: Then::Gone, .. }
                | State::Hung { then: Then::Gone, .. }
                | State::Launching { stop: Some(Then::Gone) }
        )
    }

    /// Its past doesn't count any more.
    pub(super) fn absolve(&mut self) {
        self.streak = 0;
        self.crashes.clear();
    }

    pub(super) fn launched(
        &mut self,
        now: Millis,
        pid: Result<i32, String>,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        let State::Launching { stop } = &mut self.state else { return };
        let stop = stop.take();
        match pid {
            Ok(pid) => {
                let run = Run { pid, since: now };
                match (stop, self.rules.ready) {
                    (Some(then), _) => {
                        let (grace, signal) = (self.rules.stop_timeout, self.rules.stop_signal);
                        self.end_run(now, run, grace, signal, then, actions);
                    }
                    (None, Ready::Started) => self.run_on(now, run, actions),
                    (None, ready) => {
                        let until = now + self.rules.ready_timeout;
                        let look = Look { at: now + FIRST_LOOK, delay: FIRST_LOOK * 2 };
                        let look = (ready == Ready::Socket).then_some(look);
                        self.enter(now, State::Starting { run, until, look }, actions);
                    }
                }
            }
            Err(why) => {
                let how = Ended { exit: Exit::Code(127), oom: false, why: Some(why) };
                match stop {
                    Some(then) => self.stopped(now, now, how, then, jitter, actions),
                    None => self.over(now, now, how, jitter, actions),
                }
            }
        }
    }

    /// It is ready, or (when it was) says that it lives.
    pub(super) fn told(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match &mut self.state {
            // What ends to be ready has nothing to tell.
            State::Starting { run, .. } if self.rules.ready != Ready::Ended => {
                let run = *run;
                let took = now.saturating_sub(run.since);
                let text = format!("{} is ready after {took} ms", self.name);
                actions.push(Action::Note(Level::Info, text));
                self.run_on(now, run, actions);
            }
            State::Running { watch, .. } => watch.pinged(now),
            _ => {}
        }
    }

    fn run_on(&mut self, now: Millis, run: Run, actions: &mut Vec<Action>) {
        let watch = Watch::new(now, &self.rules);
        self.enter(now, State::Running { run, watch }, actions);
    }

    /// A check has ended; `failed`: why it has failed, if so.
    pub(super) fn checked(
        &mut self,
        now: Millis,
        failed: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        if let State::Running { watch, .. } = &mut self.state
            && let Some(cause) = watch.checked(now, failed)
        {
            self.stop_for(now, self.rules.stop_signal, cause, actions);
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Millis,
        how: Ended,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        match &self.state {
            State::Starting { run, .. } | State::Running { run, .. } => {
                self.over(now, run.since, how, jitter, actions);
            }
            State::Stopping { run, then, .. } | State::Hung { run, then } => {
                let (since, then) = (run.since, then.clone());
                self.stopped(now, since, how, then, jitter, actions);
            }
            _ => {}
        }
    }

    /// Its process has ended after it was told to.
    fn stopped(
        &mut self,
        now: Millis,
        since: Millis,
        how: Ended,
        then: Then,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        let state = match then {
            Then::Again(cause) => {
                return self.over(now, since, how.because(&cause), jitter, actions);
            }
            Then::Anew => State::Waiting,
            Then::Rest { by_hand } => State::Exited { by_hand },
            Then::Gone => State::Gone,
        };
        let level = if how.failed() { Level::Notice } else { Level::Info };
        actions.push(Action::Note(level, format!("{} stopped: {how}", self.name)));
        if state == State::Waiting {
            self.restarts += 1;
            self.absolve();
        }
        self.enter_ended(now, how, state, actions);
    }

    /// Its process has ended, or never began, and nobody wanted that.
    fn over(
        &mut self,
        now: Millis,
        since: Millis,
        how: Ended,
        jitter: u16,
        actions: &mut Vec<Action>,
    ) {
        let failed = how.failed();
        let again = match self.rules.restart {
            _ if !failed && self.rules.ready == Ready::Ended => false,
            Restart::Always => true,
            Restart::OnFailure => failed,
            Restart::Never => false,
        };
        let name = &self.name;
        let (level, text, state) = if again {
            let quick = now.saturating_sub(since) < STEADY;
            self.streak = if quick { self.streak.saturating_add(1) } else { 1 };
            let budget = self.rules.budget;
            if self.crashes.add(now, budget) {
                let (count, within) = (budget.crashes, words::span(budget.within));
                let cause = format!("ended {count} times in {within}, the last time: {how}");
                let retry = self.rules.retry.map(|after| now + after);
                let next = match self.rules.retry {
                    Some(after) => format!("tried anew in {}", words::span(after)),
                    None => "given up for good".to_owned(),
                };
                let text = format!("{name} has failed: {cause}; {next}");
                (Level::Error, text, State::Failed { cause, retry })
            } else {
                let delay = delay(self.rules.backoff, self.streak, jitter);
                let text = format!("{name} ended: {how}; starting it again in {delay} ms");
                (Level::Warning, text, State::Backoff { until: now + delay })
            }
        } else if failed {
            let state = match self.kind {
                Kind::Service => State::Failed { cause: how.to_string(), retry: None },
                Kind::Transient => State::Exited { by_hand: false },
            };
            (Level::Warning, format!("{name} ended: {how}"), state)
        } else if self.rules.ready == Ready::Ended {
            (Level::Info, format!("{name} is done"), State::Done)
        } else {
            (Level::Info, format!("{name} ended: {how}"), State::Exited { by_hand: false })
        };
        actions.push(Action::Note(level, text));
        self.enter_ended(now, how, state, actions);
    }
}
