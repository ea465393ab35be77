//! What care is done with: the port between its decisions and the machine.
//!
//! ```text
//!  Care ── actions ──▶ life ──▶ Hands ──┬─ Node    smartctl, sysfs, btrfs
//!                                       └─ others  a simulated node
//! ```
//! All of them may wait for disks, and run apart from the daemon's one thread.

use std::path::Path;

use zos_host::block::Disk;
use zos_host::btrfs::Scrubbed;
use zos_types::disk::Health;

use super::look::Look;

/// A machine's hands; errors are in words, for logs and faults.
pub trait Hands: std::fmt::Debug + Send + Sync + 'static {
    /// Asks a disk how it is; one whose motor stands still isn't woken.
    fn ask(&self, disk: &Disk) -> Result<Health, String>;
    /// What the kernel counted of it. Touches no disk.
    fn look(&self, disk: &Disk) -> Look;
    /// Reads a piece of what has checksums, and repairs what can be, with less right to the disk than anybody
    /// else.
    fn scrub(&self, root: &Path, device: u64, from: u64, to: u64) -> Result<Scrubbed, String>;
    /// Deletes images, at least this many bytes if there are so many; says how many.
    fn collect(&self, root: &Path, wanted: u64) -> Result<u64, String>;
    /// Gives back chunks of data that are filled less than this percentage.
    fn balance(&self, root: &Path, filled: u8) -> Result<(), String>;
    /// Stops a disk's motor.
    fn rest(&self, disk: &Disk) -> Result<(), String>;
}
