//! The ordered way down: VMs, then services in reverse order, with a deadline for all of it.
//!
//! ```text
//!  Drain ── answered, too late, or nobody can ─▶ Transients ── all over ─▶ Services ── all over ─▶ Finished
//!  a unit stops the VMs   30 s                   signal, grace, kill       in reverse order          ▲
//!    └──────────────────── 120 s in all ──────────────┴───────────────────────┴─▶ Forced ── 10 s ────┘
//!                                                                              all killed
//! ```

use std::collections::BTreeSet;

use zos_host::kmsg::Level;
use zos_host::power::End;

use super::state::Then;
use super::{Action, Kind, Millis, State, Supervisor, Unit};

/// So long a unit has to stop the transient ones orderly.
pub(super) const DRAIN: Millis = 30_000;
/// So long the whole way may take; then what is left is killed.
pub(super) const WAY: Millis = 120_000;
/// So long what was killed then has; then the machine ends without it.
pub(super) const FORCED: Millis = 10_000;

/// The node goes down.
#[derive(Debug)]
pub(super) struct Down {
    end: End,
    stage: Stage,
    /// The whole way's deadline.
    by: Millis,
    /// Who was left when its time was over, or hangs.
    hung: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Stage {
    /// A unit was asked to stop the transient ones.
    Drain { until: Millis },
    /// Transient units were told to stop.
    Transients,
    /// Services stop, each when nobody is left that starts after it.
    Services,
    /// Everything that was left was killed.
    Forced { until: Millis },
    /// `Action::Finish` was given.
    Finished,
}

impl Down {
    pub(super) fn end(&self) -> End {
        self.end
    }

    pub(super) fn due(&self) -> Option<Millis> {
        match self.stage {
            Stage::Drain { until } => Some(until.min(self.by)),
            Stage::Transients | Stage::Services => Some(self.by),
            Stage::Forced { until } => Some(until),
            Stage::Finished => None,
        }
    }
}

impl Unit {
    /// Nothing of it holds up the way down (any longer): what hangs in the kernel can't be waited for.
    fn is_down(&self) -> bool {
        self.is_over() || matches!(self.state, State::Hung { .. })
    }
}

impl Supervisor {
    /// Starts the way down. A second wish changes how it ends, and nothing else.
    pub(super) fn go_down(&mut self, now: Millis, end: End, why: &str, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Level::Notice, format!("going down for {end:?}: {why}")));
        if let Some(down) = &mut self.down {
            down.end = end;
            return;
        }
        let mut down = Down { end, stage: Stage::Transients, by: now + WAY, hung: BTreeSet::new() };
        match self.drainer().filter(|_| self.lives(Kind::Transient)) {
            Some(unit) => {
                down.stage = Stage::Drain { until: now + DRAIN };
                actions.push(Action::Drain { unit: unit.id, deadline_ms: DRAIN });
            }
            None => self.stop_transients(now, actions),
        }
        self.down = Some(down);
        actions.push(Action::Changed);
    }

    /// The unit that was asked to stop the transient ones has answered.
    pub(super) fn drained(
        &mut self,
        now: Millis,
        problem: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(Down { stage: Stage::Drain { .. }, .. }) = &self.down {
            if let Some(why) = problem {
                actions.push(Action::Note(Level::Warning, format!("not drained: {why}")));
            }
            self.after_drain(now, actions);
        }
    }

    /// Takes the next steps that are due.
    pub(super) fn further_down(&mut self, now: Millis, actions: &mut Vec<Action>) {
        // Nobody starts (again) on the way down, also not one that fell just now.
        for unit in &mut self.units {
            unit.rest_on_the_way(now, actions);
        }
        let hung = self.units.iter().filter(|unit| matches!(unit.state, State::Hung { .. }));
        let Some(down) = &mut self.down else { return };
        down.hung.extend(hung.map(|unit| unit.name.clone()));
        let (stage, by) = (down.stage, down.by);
        match stage {
            Stage::Finished => return,
            Stage::Forced { .. } => {}
            _ if by <= now => self.force(now, actions),
            Stage::Drain { until } if until <= now => {
                actions.push(Action::Note(Level::Warning, "not drained in time".to_owned()));
                self.after_drain(now, actions);
            }
            Stage::Drain { .. } if self.drainer().is_none() => self.after_drain(now, actions),
            _ => {}
        }
        if self.stage() == Some(Stage::Transients) && !self.lives(Kind::Transient) {
            self.enter_stage(Stage::Services);
        }
        if self.stage() == Some(Stage::Services) {
            self.stop_those_without_followers(now, actions);
        }
        let everything_is_down = self.units.iter().all(Unit::is_down);
        let finish = match self.stage() {
            Some(Stage::Services) => everything_is_down,
            Some(Stage::Forced { until }) => everything_is_down || until <= now,
            _ => false,
        };
        if let Some(down) = self.down.as_mut().filter(|_| finish) {
            down.stage = Stage::Finished;
            let hung = down.hung.iter().cloned().collect();
            actions.push(Action::Finish { end: down.end, hung });
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.down.as_ref().map(|down| down.stage)
    }

    fn enter_stage(&mut self, stage: Stage) {
        if let Some(down) = &mut self.down {
            down.stage = stage;
        }
    }

    /// Who can stop the transient units, and is there to do so.
    fn drainer(&self) -> Option<&Unit> {
        let can = |unit: &&Unit| unit.rules.drains && matches!(unit.state, State::Running { .. });
        self.units.iter().find(can)
    }

    fn lives(&self, kind: Kind) -> bool {
        self.units.iter().any(|unit| unit.kind == kind && !unit.is_down())
    }

    fn after_drain(&mut self, now: Millis, actions: &mut Vec<Action>) {
        self.enter_stage(Stage::Transients);
        self.stop_transients(now, actions);
    }

    fn stop_transients(&mut self, now: Millis, actions: &mut Vec<Action>) {
        for unit in self.units.iter_mut().filter(|unit| unit.kind == Kind::Transient) {
            unit.stop(now, unit.rules.stop_timeout, Then::Rest { by_hand: false }, actions);
        }
    }

    /// The time for the whole way is over: kills what is left.
    fn force(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut left = Vec::new();
        for unit in self.units.iter_mut().filter(|unit| !unit.is_down()) {
            left.push(unit.name.clone());
            unit.stop(now, 0, Then::Rest { by_hand: false }, actions);
        }
        let text = format!("the way down takes too long; killing {}", left.join(", "));
        actions.push(Action::Note(Level::Error, text));
        self.enter_stage(Stage::Forced { until: now + FORCED });
        if let Some(down) = &mut self.down {
            down.hung.extend(left);
        }
    }

    /// Services stand in start order, so from the last to the first each is known to be followed or not: by one that
    /// lives, or by one that is gone and is itself followed.
    fn stop_those_without_followers(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut followed = vec![false; self.units.len()];
        for at in (0..self.units.len()).rev() {
            let unit = &mut self.units[at];
            if !unit.is_down() && !followed[at] && !unit.is_told_to_rest() {
                unit.stop(now, unit.rules.stop_timeout, Then::Rest { by_hand: false }, actions);
            }
            if !unit.is_down() || followed[at] {
                for before in self.order.after(at) {
                    followed[*before] = true;
                }
            }
        }
    }
}

impl Unit {
    fn is_told_to_rest(&self) -> bool {
        matches!(&self.state,
            State::Stopping { then, .. } | State::Launching { stop: Some(then) }
                if matches!(then, Then::Rest { .. } | Then::Gone))
    }

    fn rest_on_the_way(&mut self, now: Millis, actions: &mut Vec<Action>) {
        match &mut self.state {
            State::Waiting | State::Backoff { .. } => {
                self.enter(now, State::Exited { by_hand: false }, actions);
            }
            State::Failed { retry, .. } => *retry = None,
            State::Hung { then, .. } if *then != Then::Gone => {
                *then = Then::Rest { by_hand: false };
            }
            _ => {}
        }
    }
}
