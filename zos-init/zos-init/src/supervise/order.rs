//! Who may start: each unit after those that it starts after, once those that it requires are ready.

use std::collections::HashMap;

use super::{Action, Millis, State, Supervisor, Unit};

/// Where in `Supervisor::units` the units stand that each waits for, looked up once.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By the place of the unit that waits.
    links: Vec<Links>,
}

#[derive(Debug, Default, Clone)]
struct Links {
    requires: Vec<usize>,
    after: Vec<usize>,
}

impl Order {
    /// Names that no unit has are left out.
    pub(super) fn of(units: &[Unit]) -> Self {
        let places: HashMap<&str, usize> =
            units.iter().enumerate().map(|(at, unit)| (unit.name.as_str(), at)).collect();
        let found = |names: &[String]| {
            names.iter().filter_map(|name| places.get(name.as_str()).copied()).collect()
        };
        let links = units.iter().map(|unit| Links {
            requires: found(&unit.rules.requires),
            after: found(&unit.rules.after),
        });
        Self { links: links.collect() }
    }

    fn of_unit(&self, at: usize) -> (&[usize], &[usize]) {
        // Transient units may have come since; they wait for nobody.
        self.links.get(at).map_or((&[], &[]), |links| (&links.requires, &links.after))
    }

    /// The places of those that this one starts after.
    pub(super) fn after(&self, at: usize) -> &[usize] {
        self.of_unit(at).1
    }
}

impl Supervisor {
    pub(super) fn start_those_that_can(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if !self.units.iter().any(|unit| unit.state == State::Waiting) {
            return;
        }
        let ways = self.ways();
        for at in 0..self.units.len() {
            if self.units[at].state == State::Waiting && self.waits_for(at, &ways).is_none() {
                let unit = &mut self.units[at];
                unit.enter(now, State::Launching { stop: None }, actions);
                actions.push(Action::Spawn(unit.id));
            }
        }
    }

    /// The first unit that this one waits for, and whether it needs it or only comes after it.
    pub(super) fn waits_for(&self, at: usize, ways: &[bool]) -> Option<(&Unit, bool)> {
        let (requires, after) = self.order.of_unit(at);
        let needed = requires.iter().find(|at| !self.units[**at].is_ready());
        match needed {
            Some(at) => Some((&self.units[*at], true)),
            None => after.iter().find(|at| !ways[**at]).map(|at| (&self.units[*at], false)),
        }
    }

    /// Of each unit, whether those that only come after it need not wait (any longer): it is ready, or was tried
    /// and isn't, or waits for one that it needs and that was tried. So one service that can't run holds
    /// back only those that need it. Services stand in start order: what one needs is decided before it.
    pub(super) fn ways(&self) -> Vec<bool> {
        let mut ways: Vec<bool> = Vec::with_capacity(self.units.len());
        for (at, unit) in self.units.iter().enumerate() {
            let way = match unit.state {
                // A second try holds nobody back.
                State::Launching { .. } | State::Starting { .. } => unit.restarts > 0,
                State::Waiting => {
                    let held_up = |at: &usize| {
                        !self.units[*at].is_ready() && ways.get(*at).copied().unwrap_or(false)
                    };
                    unit.restarts > 0 || self.order.of_unit(at).0.iter().any(held_up)
                }
                _ => true,
            };
            ways.push(way);
        }
        ways
    }
}
