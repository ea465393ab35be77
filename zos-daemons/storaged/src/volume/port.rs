//! What volumes are made of: the port between their rules and the machine.
//!
//! ```text
//!  Volumes ── Devices ──┬─ Crypt   the node: allocated files, loop devices, device-mapper
//!                       └─ others  a simulated node: plain files
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use zos_host::Result;
use zos_types::Bytes;

use super::stack::{Leg, Look, Stack};
use super::{device, files, share};

/// Makes room for volumes, and devices of them by name.
pub trait Devices: std::fmt::Debug + Send + Sync {
    /// Sets a file's room aside.
    fn reserve(&self, file: &File, size: Bytes) -> io::Result<()>;
    /// The open device, if it is there already.
    fn find(&self, name: &str) -> Result<Option<OwnedFd>>;
    /// Makes the device.
    fn map(&self, stack: &Stack, key: &[u8]) -> Result<OwnedFd>;
    /// Takes the device away; `false`: there was none. `ResourceBusy` while it is in use.
    fn unmap(&self, name: &str) -> Result<bool>;
    /// Makes the first and last MiB of a fresh device read as zeros; durable when it returns.
    fn clear_ends(&self, device: &OwnedFd, size: Bytes) -> io::Result<()>;
    /// Makes the file system of a share on its fresh device; durable when it returns.
    fn format(&self, device: &OwnedFd) -> io::Result<()>;
    /// Mounts a share's file system nowhere in the tree, as large as its device, and gives its root.
    fn root(&self, device: &OwnedFd) -> Result<OwnedFd>;
    /// Does work while nothing is written to the device, and all that was is in its files. Without a
    /// device it is just done.
    fn held(&self, name: &str, work: &mut dyn FnMut() -> io::Result<()>) -> Result<()>;
    /// What the kernel tells of the device, if it is there.
    fn look(&self, name: &str) -> Result<Option<Look>>;
    /// Begins to read all copies of a device, so that what has changed on one is mended from the other.
    fn verify(&self, name: &str) -> Result<()>;
    /// Changes the device to this, without its user noticing more than a pause.
    fn change(&self, stack: &Stack, change: Change<'_>) -> Result<()>;
}

/// What is changed of a device in use.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Its size, to that of its files.
    Size,
    /// The legs of its mirror.
    Legs,
    /// A copy of it begins to be made in a new place.
    Join(&'a Leg),
    /// It lies on its one leg alone.
    Part,
}

/// The node's: see [`device`].
#[derive(Debug)]
pub struct Crypt;

impl Devices for Crypt {
    fn reserve(&self, file: &File, size: Bytes) -> io::Result<()> {
        files::in_full(file, size)
    }

    fn find(&self, name: &str) -> Result<Option<OwnedFd>> {
        device::find(name)
    }

    fn map(&self, stack: &Stack, key: &[u8]) -> Result<OwnedFd> {
        device::map(stack, key)
    }

    fn unmap(&self, name: &str) -> Result<bool> {
        device::unmap(name)
    }

    fn clear_ends(&self, device: &OwnedFd, size: Bytes) -> io::Result<()> {
        device::clear_ends(device, size)
    }

    fn format(&self, device: &OwnedFd) -> io::Result<()> {
        share::format(Path::new(share::MKFS), device)
    }

    fn root(&self, device: &OwnedFd) -> Result<OwnedFd> {
        share::root(device)
    }

    fn held(&self, name: &str, work: &mut dyn FnMut() -> io::Result<()>) -> Result<()> {
        device::held(name, work)
    }

    fn look(&self, name: &str) -> Result<Option<Look>> {
        device::look(name)
    }

    fn verify(&self, name: &str) -> Result<()> {
        device::verify(name)
    }

    fn change(&self, stack: &Stack, change: Change<'_>) -> Result<()> {
        match change {
            Change::Size => device::resize(stack),
            Change::Legs => device::rejoin(stack),
            Change::Join(leg) => device::join(stack, leg),
            Change::Part => device::part(stack),
        }
    }
}
