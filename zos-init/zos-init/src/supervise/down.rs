//! The ordered way down: VMs, then services in reverse order.

use zos_host::kmsg::Level;
use zos_host::power::End;

use super::{Action, Kind, Millis, State, Supervisor};

/// The node goes down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    end: End,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Stage {
    /// Transient units were told to stop.
    Transients,
    /// Services stop, each when nobody is left that starts after it.
    Services,
    /// `Action::Finish` was given.
    Finished,
}

impl Supervisor {
    /// Starts the way down. A second wish changes how it ends, and nothing else.
    pub(super) fn go_down(&mut self, now: Millis, end: End, why: &str, actions: &mut Vec<Action>) {
        if let Some(down) = &mut self.down {
            down.end = end;
            return;
        }
        actions.push(Action::Note(Level::Notice, format!("going down for {end:?}: {why}")));
        self.down = Some(Down { end, stage: Stage::Transients });
        for unit in self.units.iter_mut().filter(|unit| unit.kind == Kind::Transient) {
            unit.stop(now, unit.rules.stop_timeout, false, actions);
        }
        actions.push(Action::Changed);
    }

    /// Takes the next steps that are due.
    pub(super) fn further_down(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let Some(Down { end, stage }) = self.down else { return };
        // Nobody starts (again) on the way down, also not one that fell just now.
        for unit in &mut self.units {
            if matches!(unit.state, State::Waiting | State::Backoff { .. }) {
                unit.enter(now, State::Exited);
                actions.push(Action::Changed);
            }
        }
        let live = |supervisor: &Self, kind: Kind| {
            supervisor.units.iter().any(|unit| unit.kind == kind && !unit.is_over())
        };
        let mut stage = stage;
        if stage == Stage::Transients && !live(self, Kind::Transient) {
            stage = Stage::Services;
        }
        if stage == Stage::Services {
            self.stop_those_without_followers(now, actions);
            if !live(self, Kind::Service) {
                stage = Stage::Finished;
                actions.push(Action::Finish(end));
            }
        }
        self.down = Some(Down { end, stage });
    }

    fn stop_those_without_followers(&mut self, now: Millis, actions: &mut Vec<Action>) {
        for at in 0..self.units.len() {
            let unit = &self.units[at];
            let stopping = matches!(unit.state, State::Stopping { again: false, .. });
            if unit.kind != Kind::Service || unit.is_over() || stopping || self.followed(&unit.name)
            {
                continue;
            }
            let grace = unit.rules.stop_timeout;
            self.units[at].stop(now, grace, false, actions);
            actions.push(Action::Changed);
        }
    }

    /// Somebody lives who starts after it, be it through others that are gone. (No cycles: unit files with one were
    /// left out.)
    fn followed(&self, name: &str) -> bool {
        self.units
            .iter()
            .filter(|other| other.rules.after.iter().any(|before| before == name))
            .any(|other| !other.is_over() || self.followed(&other.name))
    }
}
