//! How a VM ends, and who hears of it.
//!
//! ```text
//!  vCPU: S5, reset, triple fault, error ──┐
//!  worker: gone                           ├──▶ Lifecycle::end (the first one counts) ──▶ main wakes
//! ```

use crate::event::Event;
use std::sync::OnceLock;

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset, or died of a triple fault.
    Reboot,
    /// We, or KVM, could not go on.
    Failed(String),
}

impl Ending {
    /// The word for it in reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Ending::PowerOff => "poweroff",
            Ending::Reboot => "reboot",
            Ending::Failed(_) => "failed",
        }
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Ending::PowerOff => 0,
            Ending::Failed(_) => 1,
            Ending::Reboot => 3,
        }
    }
}

/// Told by any thread, heard by the main one.
#[derive(Debug)]
pub struct Lifecycle {
    ending: OnceLock<Ending>,
    event: Event,
}

impl Lifecycle {
    /// A VM that lives.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { ending: OnceLock::new(), event: Event::new()? })
    }

    /// Ends it; later calls change nothing.
    pub fn end(&self, ending: Ending) {
        if self.ending.set(ending).is_ok() {
            self.event.signal();
        }
    }

    /// How it ended, once it did.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }

    /// Becomes readable at the end.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }
}
