//! The ordered way down: VMs, then services in reverse order.

use std::collections::BTreeSet;

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

    /// Services stand in start order, so from the last to the first each is known to be followed or not: by one that
    /// lives, or by one that is gone and is itself followed.
    fn stop_those_without_followers(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut followed: BTreeSet<String> = BTreeSet::new();
        for unit in self.units.iter_mut().rev().filter(|unit| unit.kind == Kind::Service) {
            let is_followed = followed.contains(&unit.name);
            let is_stopping = matches!(unit.state, State::Stopping { again: false, .. });
            if !unit.is_over() && !is_stopping && !is_followed {
                unit.stop(now, unit.rules.stop_timeout, false, actions);
                actions.push(Action::Changed);
            }
            if !unit.is_over() || is_followed {
                followed.extend(unit.rules.after.iter().cloned());
            }
        }
    }
}
