//! What volumes are made of: the port between their rules and the machine.
//!
//! ```text
//!  Volumes ── Devices ──┬─ Crypt   the node: allocated files, loop devices, dm-crypt
//!                       └─ others  a simulated node: plain files
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use zos_types::Bytes;

use super::files::Files;
use super::{device, share};

/// Makes volumes' bytes, and devices of them by name.
pub trait Devices: std::fmt::Debug + Send + Sync {
    /// Makes the bytes; durable when it returns.
    fn allocate(&self, files: &Files, size: Bytes) -> io::Result<()>;
    /// The open device, if it is there already.
    fn find(&self, name: &str) -> zos_host::Result<Option<OwnedFd>>;
    /// Makes the device of a file. `block` is the logical block of the disk below, in bytes.
    fn map(
        &self,
        name: &str,
        file: &Path,
        cipher: &str,
        key: &[u8],
        block: u32,
    ) -> zos_host::Result<OwnedFd>;
    /// Makes the first and last MiB of a fresh device read as zeros; durable when it returns.
    fn clear_ends(&self, device: &OwnedFd, size: Bytes) -> io::Result<()>;
    /// Makes the file system of a share on its fresh device; durable when it returns.
    fn format(&self, device: &OwnedFd) -> io::Result<()>;
    /// Mounts a share's file system nowhere in the tree, as large as its device, and gives its root.
    fn root(&self, device: &OwnedFd) -> zos_host::Result<OwnedFd>;
    /// Takes the device away; `false`: there was none. `ResourceBusy` while it is in use.
    fn unmap(&self, name: &str) -> zos_host::Result<bool>;
}

/// The node's: see [`device`].
#[derive(Debug)]
pub struct Crypt;

impl Devices for Crypt {
    fn allocate(&self, files: &Files, size: Bytes) -> io::Result<()> {
        files.allocate(size)
    }

    fn find(&self, name: &str) -> zos_host::Result<Option<OwnedFd>> {
        device::find(name)
    }

    fn map(
        &self,
        name: &str,
        file: &Path,
        cipher: &str,
        key: &[u8],
        block: u32,
    ) -> zos_host::Result<OwnedFd> {
        device::map(name, file, cipher, key, block)
    }

    fn clear_ends(&self, device: &OwnedFd, size: Bytes) -> io::Result<()> {
        device::clear_ends(device, size)
    }

    fn format(&self, device: &OwnedFd) -> io::Result<()> {
        share::format(Path::new(share::MKFS), device)
    }

    fn root(&self, device: &OwnedFd) -> zos_host::Result<OwnedFd> {
        share::root(device)
    }

    fn unmap(&self, name: &str) -> zos_host::Result<bool> {
        device::unmap(name)
    }
}
