//! How a unit's process is told to stop, and by hand to start.

use zos_host::kmsg::Level;

use super::state::{Run, State, Then};
use super::{Action, Millis, Unit};

/// After its cgroup was killed, a process has so long to go; then it hangs in the kernel.
pub(super) const KILLED: Millis = 5_000;

impl Unit {
    /// Begins to stop a process: a signal and `grace` until its cgroup is killed; 0 kills at once.
    pub(super) fn end_run(
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
    pub(super) fn stop_for(
        &mut self,
        now: Millis,
        signal: i32,
        cause: String,
        actions: &mut Vec<Action>,
    ) {
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
                self.begin_anew(now, actions);
            }
            State::Waiting
            | State::Starting { .. }
            | State::Running { .. }
            | State::Broken { .. }
            | State::Gone => {}
        }
    }

    pub(super) fn begin_anew(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.state != State::Waiting {
            self.restarts += 1;
            self.absolve();
            self.enter(now, State::Waiting, actions);
        }
    }
}
