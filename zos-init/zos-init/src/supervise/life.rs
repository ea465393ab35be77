//! One unit's life: its states, and what each event does to it.

use zos_host::kmsg::Level;
use zos_host::process::Exit;

use super::budget::{Crashes, delay};
use super::watch::{Verdict, Watch};
use super::{Action, Ended, Kind, Millis, UnitId, words};
use crate::unit::{Ready, Restart, Rules};

/// A unit that ran so long gets the first delay again.
pub(super) const STEADY: Millis = 60_000;
/// After its cgroup was killed, a process has so long to go; then it hangs in the kernel.
pub(super) const KILLED: Millis = 5_000;
/// First delay between two looks at a socket; it doubles up to [`LONGEST_LOOK`].
const FIRST_LOOK: Millis = 5;
/// Longest delay between two looks at a socket.
const LONGEST_LOOK: Millis = 1_000;
/// Asks a silent process for its last words.
const SIGABRT: i32 = 6;

/// A process that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) pid: i32,
    pub(super) since: Millis,
}

/// The next look at a socket that is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    at: Millis,
    delay: Millis,
}

/// What follows the end of a process that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// It was stopped for this fault, and goes the way of one that fell.
    Again(String),
    /// Somebody wants it started anew.
    Anew,
    /// It stays down.
    Rest { by_hand: bool },
    /// Its file is gone, and so is the unit.
    Gone,
}

/// Where a unit is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// For others.
    Waiting,
    /// `Action::Spawn` was given; its answer comes at once. A wish to stop it waits for that.
    Launching { stop: Option<Then> },
    /// Runs, and has until `until` to be ready.
    Starting { run: Run, until: Millis, look: Option<Look> },
    /// Ready.
    Running { run: Run, watch: Watch },
    /// Told to stop, or killed; at `until` more is done about it.
    Stopping { run: Run, until: Millis, killed: bool, then: Then },
    /// Killed, and doesn't end: it hangs in the kernel. Nothing is started in its place.
    Hung { run: Run, then: Then },
    /// Ended; starts again at `until`.
    Backoff { until: Millis },
    /// Did its one work.
    Done,
    /// Ended (or was stopped before it began), and stays so.
    Exited { by_hand: bool },
    /// Given up, at least until `retry`.
    Failed { cause: String, retry: Option<Millis> },
    /// Must never run.
    Broken { cause: String },
    /// To be forgotten, at the end of this event.
    Gone,
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
    fn absolve(&mut self) {
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

    /// Begins to stop a process: a signal and `grace` until its cgroup is killed; 0 kills at once.
    fn end_run(
        &mut self,
        now: Millis,
        run: Run,
        grace: Millis,
        signal: i32,
        then: Then,
        actions: &mut Vec<Action>,
    ) {
        let killed = grace == 0;
        let (action, until) = match killed {
            true => (Action::Kill(self.id), now + KILLED),
            false => (Action::Signal(self.id, signal), now + grace),
        };
        actions.push(action);
        self.enter(now, State::Stopping { run, until, killed, then }, actions);
    }

    /// Stops it for a fault; it is started again as if it had fallen.
    fn stop_for(&mut self, now: Millis, signal: i32, cause: String, actions: &mut Vec<Action>) {
        let (State::Starting { run, .. } | State::Running { run, .. }) = self.state else { return };
        actions.push(Action::Note(Level::Warning, format!("{}: {cause}; stopping it", self.name)));
        self.end_run(now, run, self.rules.stop_timeout, signal, Then::Again(cause), actions);
    }

    /// Asks it to stop, because somebody wants that; `then` says what comes after.
    pub(super) fn stop(
        &mut self,
        now: Millis,
        grace: Millis,
        then: Then,
        actions: &mut Vec<Action>,
    ) {
        match &mut self.state {
            State::Starting { run, .. } | State::Running { run, .. } => {
                let run = *run;
                self.end_run(now, run, grace, self.rules.stop_signal, then, actions);
            }
            State::Launching { stop } => *stop = Some(then),
            // The newest wish says what comes after, but time may only become shorter.
            State::Stopping { until, killed, then: known, .. } => {
                *known = then;
                if !*killed && grace == 0 {
                    actions.push(Action::Kill(self.id));
                    (*killed, *until) = (true, now + KILLED);
                } else if !*killed {
                    *until = (*until).min(now + grace);
                }
            }
            State::Hung { then: known, .. } => *known = then,
            State::Gone => {}
            State::Broken { .. } if then != Then::Gone => {}
            _ => match then {
                Then::Again(_) => {}
                Then::Anew => self.begin_anew(now, actions),
                Then::Gone => self.enter(now, State::Gone, actions),
                // What rests already keeps its story, unless somebody wants it to stay so.
                Then::Rest { by_hand } if by_hand || !self.is_over() => {
                    self.enter(now, State::Exited { by_hand }, actions);
                }
                Then::Rest { .. } => {}
            },
        }
    }

    /// Lets it start, with a new budget; does nothing to one that runs or must not.
    pub(super) fn start(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Stopping { then, .. } | State::Hung { then, .. } => *then = Then::Anew,
            State::Launching { stop } => *stop = None,
            State::Backoff { .. } | State::Done | State::Exited { .. } | State::Failed { .. } => {
                self.begin_anew(now, actions)
            }
            State::Waiting
            | State::Starting { .. }
            | State::Running { .. }
            | State::Broken { .. }
            | State::Gone => {}
        }
    }

    fn begin_anew(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.state != State::Waiting {
            self.restarts += 1;
            self.absolve();
            self.enter(now, State::Waiting, actions);
        }
    }

    /// When [`Unit::on_time`] has something to do.
    pub(super) fn due(&self) -> Option<Millis> {
        match &self.state {
            State::Starting { until, look: Some(look), .. } => Some(look.at.min(*until)),
            State::Starting { until, .. }
            | State::Stopping { until, .. }
            | State::Backoff { until } => Some(*until),
            State::Running { watch, .. } => watch.due(),
            State::Failed { retry, .. } => *retry,
            _ => None,
        }
    }

    pub(super) fn on_time(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Backoff { until } if *until <= now => {
                self.restarts += 1;
                self.enter(now, State::Waiting, actions);
            }
            State::Failed { retry: Some(retry), .. } if *retry <= now => {
                let text = format!("{} is tried anew", self.name);
                actions.push(Action::Note(Level::Notice, text));
                self.begin_anew(now, actions);
            }
            State::Starting { until, .. } if *until <= now => {
                let cause = format!("not ready in {}", words::span(self.rules.ready_timeout));
                self.stop_for(now, self.rules.stop_signal, cause, actions);
            }
            State::Starting { look: Some(look), .. } if look.at <= now => {
                let delay = look.delay.min(LONGEST_LOOK);
                *look = Look { at: now + delay, delay: delay * 2 };
                actions.push(Action::Look(self.id));
            }
            State::Running { watch, .. } => match watch.on_time(now) {
                Some(Verdict::Check) => actions.push(Action::Check(self.id)),
                Some(Verdict::EndCheck) => actions.push(Action::EndCheck(self.id)),
                Some(Verdict::Silent(cause)) => self.stop_for(now, SIGABRT, cause, actions),
                Some(Verdict::Sick(cause)) => {
                    self.stop_for(now, self.rules.stop_signal, cause, actions);
                }
                None => {}
            },
            State::Stopping { until, killed, .. } if *until <= now && !*killed => {
                (*killed, *until) = (true, now + KILLED);
                let text = format!("{} didn't stop in time; killing it", self.name);
                actions.extend([Action::Note(Level::Warning, text), Action::Kill(self.id)]);
            }
            State::Stopping { run, until, then, .. } if *until <= now => {
                let state = State::Hung { run: *run, then: then.clone() };
                let text = format!("{}: {}", self.name, words::HUNG);
                actions.push(Action::Note(Level::Error, text));
                self.enter(now, state, actions);
            }
            _ => {}
        }
    }
}
