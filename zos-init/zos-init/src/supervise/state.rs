//! Where a unit can be in its life; the picture stands in `mod.rs`.

use super::Millis;
use super::watch::Watch;

/// A process that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) pid: i32,
    pub(super) since: Millis,
}

/// The next look at a socket that is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) at: Millis,
    pub(super) delay: Millis,
}

/// What follows the end of a process that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// It was stopped for this fault, and goes the way of one that fell.
    Again(String),
    /// Somebody wants it started anew.
    Anew,
    /// It stays down.
    Rest { by_hand: bool },
    /// Its file is gone, and so is the unit.
    Gone,
}

/// Where a unit is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// For others.
    Waiting,
    /// `Action::Spawn` was given; its answer comes at once. A wish to stop it waits for that.
    Launching { stop: Option<Then> },
    /// Runs, and has until `until` to be ready.
    Starting { run: Run, until: Millis, look: Option<Look> },
    /// Ready.
    Running { run: Run, watch: Watch },
    /// Told to stop, or killed; at `until` more is done about it.
    Stopping { run: Run, until: Millis, killed: bool, then: Then },
    /// Killed, and doesn't end: it hangs in the kernel. Nothing is started in its place.
    Hung { run: Run, then: Then },
    /// Ended; starts again at `until`.
    Backoff { until: Millis },
    /// Did its one work.
    Done,
    /// Ended (or was stopped before it began), and stays so.
    Exited { by_hand: bool },
    /// Given up, at least until `retry`.
    Failed { cause: String, retry: Option<Millis> },
    /// Must never run.
    Broken { cause: String },
    /// To be forgotten, at the end of this event.
    Gone,
}
