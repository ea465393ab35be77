//! Motors that stand still when nobody needs their disk: the rule alone.
//!
//! ```text
//!  Runs since its last request ── 20 min (`zos.disk.standby`) ──▶ Rest ─▶ Rests
//!    ▲                                          a request done           │
//!    └───────────────────────────────────────────────────────────────────┘
//! ```
//! Told by the kernel's own counts of requests. Asking a disk how it is, or to rest, isn't counted there.

use std::time::Duration;

use zos_host::block::{Bus, Disk};

use super::look::Requests;

/// What a disk did lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle {
    /// The requests at the last look, and since when they are these.
    last: Option<(Requests, Duration)>,
    rests: bool,
}

/// What follows from a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// Its motor is to be stopped.
    Rest,
    /// It was resting, and runs again.
    Woke,
}

/// Whether a disk has a motor that can be told to rest: what rotates, by a way that carries the command.
/// virtual disks say that they rotate and have no motor.
pub fn has_motor(disk: &Disk) -> bool {
    disk.rotational && matches!(disk.bus, Bus::Ata | Bus::Usb)
}

impl Idle {
    /// Takes in a look. `after`: how long without a request; none: never.
    pub fn look(&mut self, now: Duration, requests: Requests, after: Option<Duration>) -> Next {
        let same = matches!(self.last, Some((last, _)) if last.done == requests.done);
        if !same || requests.pending > 0 {
            let woke = std::mem::take(&mut self.rests);
            self.last = Some((requests, now));
            return if woke { Next::Woke } else { Next::Nothing };
        }
        let since = self.last.map_or(now, |(_, since)| since);
        match after {
            Some(after) if !self.rests && now.saturating_sub(since) >= after => {
                self.rests = true;
                Next::Rest
            }
            _ => Next::Nothing,
        }
    }

    /// It refused to rest: asked again after as long once more.
    pub fn refused(&mut self, now: Duration) {
        self.rests = false;
        if let Some((_, since)) = &mut self.last {
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_motor_stops_once_and_again_after_it_was_needed() {
        let after = Some(Duration::from_secs(20 * 60));
        let mut idle = Idle::default();
        // minute, requests done, under way; what follows
        let rows = [
            (0, 5, 0, Next::Nothing),
            (19, 5, 0, Next::Nothing),
            (20, 5, 0, Next::Rest),
            (21, 5, 0, Next::Nothing),
            (500, 5, 0, Next::Nothing),
            (501, 6, 0, Next::Woke),
            (520, 6, 1, Next::Nothing),
            (539, 6, 0, Next::Nothing),
            (540, 6, 0, Next::Rest),
        ];
        for (minute, done, pending, expected) in rows {
            let now = Duration::from_secs(minute * 60);
            assert_eq!(
                idle.look(now, Requests { done, pending }, after),
                expected,
                "minute {minute}"
            );
        }
        idle.refused(Duration::from_secs(540 * 60));
        let look = |idle: &mut Idle, minute: u64| {
            idle.look(Duration::from_secs(minute * 60), Requests { done: 6, pending: 0 }, after)
        };
        assert_eq!((look(&mut idle, 541), look(&mut idle, 560)), (Next::Nothing, Next::Rest));
        let mut never = Idle::default();
        for minute in 0..1000 {
            let now = Duration::from_secs(minute * 60);
            assert_eq!(never.look(now, Requests::default(), None), Next::Nothing);
        }
    }
}
