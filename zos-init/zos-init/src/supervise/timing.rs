//! What time alone does to a unit.

use zos_host::kmsg::Level;

use super::state::{Look, State};
use super::stopping::KILLED;
use super::watch::Verdict;
use super::{Action, Millis, Unit, words};

/// Longest delay between two looks at a socket.
const LONGEST_LOOK: Millis = 1_000;
/// Asks a silent process for its last words.
const SIGABRT: i32 = 6;

impl Unit {
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
