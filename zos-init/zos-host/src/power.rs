//! The machine's end: off, boot again, halt, another kernel (reboot(2)).

use rustix::system::{RebootCommand, reboot};

use crate::error::{Context, Result};

/// What comes after the ordered stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off; halts where the machine can't.
    Poweroff,
    /// Boot again.
    Reboot,
    /// Stop, and stay.
    Halt,
    /// Start the kernel that was loaded ([`crate::kexec`]).
    Kexec,
}

/// Ends the machine now: nothing is stopped, unmounted or synced. Needs CAP_SYS_BOOT; returns only on
/// failure.
pub fn end(end: End) -> Result<()> {
    let command = match end {
        End::Poweroff => RebootCommand::PowerOff,
        End::Reboot => RebootCommand::Restart,
        End::Halt => RebootCommand::Halt,
        End::Kexec => RebootCommand::Kexec,
    };
    reboot(command).during("end the machine by", format_args!("{end:?}"))
}

/// Ctrl-Alt-Del sends PID 1 SIGINT instead of rebooting on the spot.
pub fn catch_ctrl_alt_del() -> Result<()> {
    reboot(RebootCommand::CadOff).during("catch", "ctrl-alt-del")
}

/// Writes all dirty pages of all file systems to their disks.
pub fn sync() {
    rustix::fs::sync();
}
