//! Loop devices that stand for disks, and a folder that stands for a node.
#![allow(dead_code, unreachable_pub)] // each test program uses its part

use std::fs::{self, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use storaged::Places;
use storaged::disk::judge::{self, Verdict};
use storaged::disk::read::Reader;
use zos_host::{SysRoot, block, loopdev, mount};

/// Size of a disk, in bytes.
pub const SIZE: u64 = 1 << 30;

/// A file as a disk. It goes away with the test.
pub struct Disk {
    pub device: loopdev::LoopDevice,
    pub file: PathBuf,
}

impl Disk {
    pub fn new(folder: &Path, name: &str) -> Option<Self> {
        let file = folder.join(name);
        let backing = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .unwrap();
        backing.set_len(SIZE).unwrap();
        let options = loopdev::Options { partitions: true, ..Default::default() };
        match loopdev::attach(backing.as_fd(), name, &options) {
            Ok(device) => Some(Self { device, file }),
            Err(error) => {
                eprintln!("skipped: {}", error.line());
                None
            }
        }
    }

    /// As the inventory shows it, but as a disk of the class that QEMU's NVMe has.
    pub fn disk(&self) -> block::Disk {
        let name = format!("loop{}", self.device.number);
        let disk = block::disk(&SysRoot::host(), name).unwrap();
        block::Disk { kind: block::Kind::Disk, rotational: false, ..disk }
    }

    pub fn judge(&self) -> Verdict {
        let disk = self.disk();
        let reader = Reader::open(&disk.path(), disk.size).unwrap();
        judge::examine(&reader, disk.logical_block, |_| true)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = loopdev::detach(&self.device.path);
    }
}

pub fn places(folder: &Path) -> Places {
    Places::below(folder)
}

/// Runs a test in a mount namespace of its own, or says why not.
pub fn with_disks(test: impl FnOnce(&Path) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let btrfs = fs::read_to_string("/proc/filesystems").unwrap().contains("\tbtrfs\n");
    if !btrfs || !Places::tool("mkfs.btrfs").exists() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: needs btrfs, mkfs.btrfs and /dev/loop-control");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    test(folder.path());
}

/// Mounts are taken down even when an assertion fails.
pub struct Mounts<'a>(pub &'a Places);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        for mounted in mount::list(&self.0.root).unwrap().into_iter().rev() {
            if mounted.target.starts_with(&self.0.pools)
                || [&self.0.state, &self.0.mirror].contains(&&mounted.target)
            {
                let _ = mount::unmount(&mounted.target, mount::UnmountFlags::DETACH);
            }
        }
    }
}
