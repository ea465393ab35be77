//! What remains of a unit whose process has ended: its cgroup is killed as a whole, and removed when it is empty.
//!
//! ```text
//!  ended ─▶ kill the cgroup ─▶ remove it ── busy ─▶ Leaving: again when a process was reaped, and after
//!                                 │                          10, 20, 40 ... ms, a few times
//!                                 └─▶ its twin's too, if that was the last
//! ```

use zos_host::cgroup::Cgroup;
use zos_host::clock;
use zos_host::kmsg::Level;

use super::{Node, Transient};
use crate::boot::machine;
use crate::log;
use crate::supervise::{Millis, UnitId};

/// First delay before another try.
const FIRST: Millis = 10;
/// Tries by time; after that only the end of a process leads to another.
const TRIES: u32 = 10;

/// Cgroups that are to go and still hold something.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    groups: Vec<Going>,
}

#[derive(Debug)]
struct Going {
    group: Cgroup,
    /// Goes too when it is empty then.
    above: Option<Cgroup>,
    tries: u32,
    next: Option<Millis>,
}

impl Leaving {
    /// When [`Node::remove_cgroups`] is due.
    pub(super) fn due(&self) -> Option<Millis> {
        self.groups.iter().filter_map(|going| going.next).min()
    }

    /// It is used again.
    pub(super) fn stays(&mut self, group: &Cgroup) {
        self.groups.retain(|going| going.group != *group);
    }

    fn add(&mut self, group: Cgroup, above: Option<Cgroup>) {
        self.stays(&group);
        self.groups.push(Going { group, above, tries: 0, next: Some(0) });
    }

    fn look(&mut self, now: Millis) {
        self.groups.retain_mut(|going| !going.gone(now));
    }
}

impl Going {
    fn gone(&mut self, now: Millis) -> bool {
        if self.group.remove().is_ok() {
            // A twin's other workloads keep it.
            let _ = self.above.as_ref().map(Cgroup::remove);
            return true;
        }
        if self.next.is_some_and(|next| next <= now) {
            self.next = (self.tries < TRIES).then_some(now + (FIRST << self.tries));
            self.tries += 1;
            // A process that the kernel doesn't let go.
            if self.next.is_none() {
                let text = format!("cgroup {} stays", self.group.path().display());
                log::line(Level::Warning, &text);
            }
            // One that was born while the others were killed.
            let _ = self.group.kill();
        }
        false
    }
}

impl Node {
    /// A unit's process has ended: nothing of it may run on, what it left behind and its check included.
    pub(super) fn tidy(&mut self, unit: UnitId) {
        self.checks.remove(&unit);
        // What a part left behind ended with its pid namespace; the cgroup is another's.
        if self.is_part(unit) {
            return;
        }
        let Some(group) = self.cgroup(unit).filter(|group| group.path().exists()) else { return };
        if let Err(error) = group.kill() {
            log::line(Level::Warning, &error.line());
        }
        // A transient unit's is kept, with what it counted, until it is acknowledged.
        if self.services.contains_key(&unit) {
            self.leaving.add(group, None);
            self.remove_cgroups();
        }
    }

    /// A unit is forgotten: its cgroup goes, and a twin's if that was the last.
    pub(super) fn forget(&mut self, unit: UnitId) {
        self.journal.forget(unit);
        self.services.remove(&unit);
        self.sockets.remove(&unit);
        let Some(transient) = self.transients.remove(&unit) else { return };
        let beside =
            |other: &Transient| (&other.twin, &other.group) == (&transient.twin, &transient.group);
        if self.transients.values().any(beside) {
            return;
        }
        if let Ok(twin) = machine::twin_cgroup(&transient.twin) {
            let group = Cgroup::at(twin.path().join(&transient.group));
            self.leaving.add(group, Some(twin));
            self.remove_cgroups();
        }
    }

    /// Removes the cgroups that are empty by now.
    pub(super) fn remove_cgroups(&mut self) {
        self.leaving.look(clock::boottime_millis());
    }
}
