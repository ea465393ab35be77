//! A share: the node's own file system on a volume.
//!
//! ```text
//!  fresh volume ─ mkfs.btrfs ─ sync ─▶ its record says so, then it is handed out     cut short: made again
//!  its device   ─ mount nowhere ─ grow to the device's end ─▶ descriptor of the root ─▶ zos-virtiofsd
//! ```
//! btrfs, since what is written there has checksums then, whatever the volume has below; it grows while it is
//! used, needs no check after a power cut, and its tools are in the image. (ext4 would bring three more.) All that
//! lies on it is root's: each server has a mount of its own, in which root is the server's user.
//!
//! A file system that was handed out is never made anew: one that can't be mounted is an error, and stays.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{SeekFrom, seek};
use zos_host::{Context, Result, mount};
use zos_types::unit::GIB;

/// Where the node has it.
pub const MKFS: &str = "/bin/mkfs.btrfs";
/// Below this data and metadata lie together: apart, metadata takes an eighth of a GiB and more, or runs out when
/// the data fills up (measured: of 128 MiB 47 can be used, or 121).
const MIXED: u64 = 2 * GIB;

/// Makes the file system of a fresh share; durable when it returns.
pub fn format(mkfs: &Path, device: &OwnedFd) -> io::Result<()> {
    let path = path(device)?;
    let size = seek(device, SeekFrom::End(0))?;
    let mut command = Command::new(mkfs);
    command.args(["--quiet", "--force", "--nodiscard", "--label", "zos-share"]);
    if size < MIXED {
        command.args(["--mixed", "--data", "single", "--metadata", "single"]);
    } else {
        command.args(["--data", "single", "--metadata", "dup"]);
    }
    let output = command.arg(&path).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let (line, status) = (words.lines().last().unwrap_or_default(), output.status);
        return Err(io::Error::other(format!("{} ended with {status}: {line}", mkfs.display())));
    }
    rustix::fs::fsync(device)?;
    Ok(())
}

/// Mounts it nowhere in the tree, as large as its device, and gives its root. Each call makes a mount of its own
/// of the one file system; the device is in use until the last of them is gone.
pub fn root(device: &OwnedFd) -> Result<OwnedFd> {
    let path = path(device).during("name", "the device of a share")?;
    let root = mount::detached(&path, "btrfs", &[])?;
    mount::grow_btrfs(&root)?;
    Ok(root)
}

/// The device's own name: what mounts of it have in common for the kernel.
fn path(device: &OwnedFd) -> io::Result<String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()))?;
    link.into_os_string().into_string().map_err(|_| io::ErrorKind::InvalidData.into())
}
