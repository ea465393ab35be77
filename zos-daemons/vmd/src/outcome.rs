//! How a VM's process ended, and what its restart policy makes of it.
//!
//! | Exit of `zos-vmm` | Outcome | `always` | `on-failure` | `never` |
//! |-------------------|---------|----------|--------------|---------|
//! | 0 | powered off | again | stays | stays |
//! | 3 | rebooted | again | again | again |
//! | other codes, signals, out of memory, gone, a share's server gone | failed | again | again | stays |

use zos_api::local::init::Exit;
use zos_types::Fault;
use zos_types::deployment::Restart;

/// How a VM ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    PoweredOff,
    Reboot,
    Error,
    NotStarted,
    Code(i32),
    Signal(i32),
    Memory,
    Lost,
    Share,
}

impl Outcome {
    /// By the exit codes of `zos-vmm`.
    pub(crate) fn of(exit: Option<Exit>) -> Self {
        match exit {
            Some(Exit { oom: true, .. }) => Self::Memory,
            Some(Exit { code: Some(0), .. }) => Self::PoweredOff,
            Some(Exit { code: Some(3), .. }) => Self::Reboot,
            Some(Exit { code: Some(1), .. }) => Self::Error,
            Some(Exit { code: Some(code), .. }) => Self::Code(code),
            Some(Exit { signal: Some(signal), .. }) => Self::Signal(signal),
            Some(_) | None => Self::NotStarted,
        }
    }

    /// Whether something is wrong with it: a guest may power off and reboot as it likes.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Self::PoweredOff | Self::Reboot)
    }

    /// Whether it stays down, by its restart policy.
    pub(crate) fn is_final(self, policy: Restart) -> bool {
        match (policy, self) {
            (Restart::Always, _) | (_, Self::Reboot) => false,
            (Restart::OnFailure, outcome) => !outcome.is_failure(),
            (Restart::Never, _) => true,
        }
    }

    /// The same as a fault, after so many ends in a row.
    pub(crate) fn fault(self, times: u32) -> Fault {
        let id = match self {
            Self::Memory => "vm.memory",
            Self::Share => "vm.share",
            _ => "vm.ended",
        };
        let often = if times > 1 { format!(", {times} times in a row") } else { String::new() };
        Fault::new(id, format!("{self}{often}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered itself off"),
            Self::Reboot => f.write_str("the guest rebooted"),
            Self::Error => f.write_str("the VMM met an error; the node's log tells which"),
            Self::NotStarted => {
                f.write_str("the VMM could not be started; the node's log tells why")
            }
            Self::Code(code) => write!(f, "the VMM ended with code {code}"),
            Self::Signal(signal) => write!(f, "the VMM was ended by signal {signal}"),
            Self::Memory => f.write_str("the VMM ran out of the memory that it is held to"),
            Self::Lost => f.write_str("PID 1 no longer knows the VM"),
            Self::Share => f.write_str("the server of one of its shares ended"),
        }
    }
}
