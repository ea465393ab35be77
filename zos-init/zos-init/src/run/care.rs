//! What PID 1 does of its own accord: it feeds the watchdog, and shows itself when no service does.

use zos_host::clock;
use zos_host::kmsg::Level;

use super::Node;
use crate::log;
use crate::rescue::{self, Rescue, Step};
use crate::supervise::{Event, Millis};
use crate::watchdog::{self, Guard};

impl Node {
    /// Reads the farmer's wishes and arms the watchdog.
    pub(super) fn begin_care(&mut self) {
        let watchdog = watchdog::setting(self.boot.settings.get("watchdog"));
        let seconds = watchdog.unwrap_or_else(|wrong| {
            self.boot.fault("settings", &wrong);
            Some(watchdog::TIMEOUT)
        });
        let stay = rescue::setting(self.boot.settings.get("rescue"));
        let stay = stay.unwrap_or_else(|wrong| {
            self.boot.fault("settings", &wrong);
            Some(rescue::STAY)
        });
        self.rescue = Rescue::new(stay);
        let Some(seconds) = seconds else { return };
        match Guard::arm(clock::boottime_millis(), seconds) {
            Ok(guard) => self.watchdog = guard,
            Err(error) => self.boot.fault("watchdog", &error.line()),
        }
    }

    /// Feeds the watchdog when that is due, and looks whether rescue is needed. Only the loop calls this: one that
    /// hangs feeds no more.
    pub(super) fn care(&mut self) {
        let now = clock::boottime_millis();
        if let Some(guard) = &mut self.watchdog {
            guard.tend(now, self.supervisor.missed());
        }
        match self.rescue.look(now, self.supervisor.services()) {
            Step::Nothing => {}
            Step::Show => self.rescue.show(&self.boot, &self.supervisor.status()),
            Step::Over => log::line(Level::Notice, "a service runs: the rescue is over"),
            Step::Leave => {
                let why = "no service runs, and nobody came to the rescue".to_owned();
                self.event(Event::Down { end: rescue::way_out(), why });
            }
        }
    }

    /// The watchdog that is armed, as `Describe` shows it.
    pub(crate) fn watchdog(&self) -> Option<&watchdog::Shown> {
        self.watchdog.as_ref().map(Guard::shown)
    }

    /// When [`Node::care`] is due although nothing happens.
    pub(super) fn care_due(&self) -> Option<Millis> {
        let feed = self.watchdog.as_ref().map(Guard::next_time);
        feed.into_iter().chain(self.rescue.next_time()).min()
    }
}
