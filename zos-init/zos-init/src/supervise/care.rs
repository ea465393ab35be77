//! How the whole stands: what the watchdog and rescue go by.

use zos_host::power::End;

use super::{Kind, State, Supervisor};

/// What the services do, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Services {
    /// At least one runs.
    Serve,
    /// None runs.
    Fail,
    /// There is none that could ever run.
    Absent,
    /// The node goes down, and so do they.
    Leave,
}

impl Supervisor {
    /// A vital unit that has been given up or hangs: the machine isn't what it should be. (A corrupt program stays
    /// corrupt: to boot again for it would never end.)
    /// On the way down nobody is missed: that has deadlines of its own, and its end is to be told.
    #[must_use]
    pub(crate) fn missed(&self) -> Option<&str> {
        if self.ending().is_some() {
            return None;
        }
        let vital = self.units.iter().filter(|unit| unit.rules.vital);
        let mut lost =
            vital.filter(|unit| matches!(unit.state, State::Failed { .. } | State::Hung { .. }));
        lost.next().map(|unit| unit.name.as_str())
    }

    /// What the services do.
    #[must_use]
    pub(crate) fn services(&self) -> Services {
        if self.ending().is_some() {
            return Services::Leave;
        }
        let mut services = self.units.iter().filter(|unit| unit.kind == Kind::Service);
        if services.clone().all(|unit| matches!(unit.state, State::Broken { .. })) {
            Services::Absent
        } else if services.any(|unit| matches!(unit.state, State::Running { .. })) {
            Services::Serve
        } else {
            Services::Fail
        }
    }

    /// The node goes down, to this end.
    #[must_use]
    pub(crate) fn ending(&self) -> Option<End> {
        self.down.as_ref().map(super::down::Down::end)
    }
}
