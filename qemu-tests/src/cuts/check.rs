//! What a boot would find on the disks after a cut, by the daemons' own code, on this computer.
//!
//! ```text
//!  image ─ loop ─ judge ─┬ empty, unfinished ─ adopt again ─┐
//!                        ├ ours ────────────────────────────┴▶ open (btrfs replays its log) ─ sweep ─ stores ─▶ Found
//!                        └ anything else: wrong                       unmount ─ btrfs check
//! ```
//! A disk that was never acknowledged as adopted may be anything that the next boot makes a pool of. No device-mapper is
//! needed: what a guest has written is decrypted here.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use storaged::Places;
use storaged::disk::judge::{self, Verdict};
use storaged::disk::read::Reader;
use storaged::pool::{self, Plan, Pool};
use zos_host::mount::UnmountFlags;
use zos_host::{SysRoot, block, loopdev, mount};

use super::facts::About;
use super::{state, volumes};

/// How long a file system may be in use by nobody we know.
const BUSY: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Of what, and what.
    pub is: BTreeMap<About, String>,
    /// What is wrong whatever was acknowledged: unreadable, half there, not to be opened.
    pub wrong: Vec<String>,
}

/// A place to look at disks: a folder for mounts, and btrfs's tools.
#[derive(Clone, Debug)]
pub struct Bench {
    places: Places,
}

/// Whether this computer can look at disks; else why not.
pub fn possible() -> Result<(), &'static str> {
    let btrfs = fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\tbtrfs"));
    if !rustix::process::geteuid().is_root() {
        Err("needs root, for loop devices and mounts")
    } else if !btrfs || !tool("btrfs").exists() || !Path::new("/dev/loop-control").exists() {
        Err("needs btrfs, its tools, and /dev/loop-control")
    } else {
        Ok(())
    }
}

fn tool(name: &str) -> PathBuf {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.unwrap_or_else(|| name.into())
}

impl Bench {
    /// In a folder of its own.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        let places = Places {
            root: SysRoot::host(),
            pools: folder.join("pools"),
            state: folder.join("state"),
            mirror: folder.join("mirror"),
            memory: folder.join("memory"),
            mkfs: tool("mkfs.btrfs"),
            btrfs: tool("btrfs"),
            // Nobody asks for health here.
            smartctl: tool("smartctl"),
        };
        Self { places }
    }

    /// Looks at the disks of a node. They are written to, as a boot would.
    pub fn look(&self, images: &[PathBuf]) -> Result<Found> {
        let mut found = Found::default();
        let mut pools = Vec::new();
        for image in images {
            let disk = Attached::new(image)?;
            if let Some(pool) = self.open(&disk, &mut found.wrong)? {
                pools.push(Open { pool, disk });
            }
        }
        let pools_of: Vec<&Pool> = pools.iter().map(|open| &open.pool).collect();
        let key = state::look(&pools_of, &mut found)?;
        volumes::look(&pools_of, key.as_ref(), &mut found)?;
        for open in pools {
            if let Some(wrong) = open.close(&self.places.btrfs)? {
                found.wrong.push(wrong);
            }
        }
        Ok(found)
    }

    fn open(&self, attached: &Attached, wrong: &mut Vec<String>) -> Result<Option<Pool>> {
        let disk = attached.disk().context("the loop device is in sysfs")?;
        let reader = Reader::open(&disk.path(), disk.size).context("open a disk")?;
        let (opened, how) = match judge::examine(&reader, disk.logical_block, |_| true) {
            Verdict::Ours(header) => (pool::open(&disk, &header, &self.places), "open"),
            Verdict::Empty | Verdict::Unfinished(_) => {
                let plan = Plan { owner: None, state: true, state_pools: vec![], instead_of: None };
                (pool::adopt(&disk, &plan, &self.places), "adopt again")
            }
            other => {
                wrong.push(format!("the disk is judged: {other}"));
                return Ok(None);
            }
        };
        match opened {
            Ok(pool) => Ok(Some(pool)),
            Err(error) => {
                wrong.push(format!("{how}: {:#}", anyhow::Error::from(error)));
                Ok(None)
            }
        }
    }
}

/// A pool in use, and the disk below it.
struct Open {
    pool: Pool,
    disk: Attached,
}

impl Open {
    /// Takes it down, and has the file system checked.
    fn close(self, btrfs: &Path) -> Result<Option<String>> {
        let partition = PathBuf::from(format!("{}p1", self.disk.device.path.display()));
        unmount(&self.pool.root)?;
        let mut check = Command::new(btrfs);
        let output = check.args(["check", "--readonly"]).arg(&partition).output();
        let output = output.context("run btrfs check")?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Some(format!("btrfs check: {}", said.chars().take(300).collect::<String>())))
    }
}

/// Unmounts what nobody uses. A process that another thread starts holds our files open until its program has begun.
fn unmount(root: &Path) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match mount::unmount(root, UnmountFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done.context("unmount a pool"),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // When a look ended half-way; else there is nothing any more.
        let _ = mount::unmount(&self.pool.root, UnmountFlags::DETACH);
    }
}

/// An image as a disk.
struct Attached {
    device: loopdev::LoopDevice,
}

impl Attached {
    fn new(image: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(image);
        let file = file.with_context(|| format!("open {}", image.display()))?;
        let options = loopdev::Options { partitions: true, ..Default::default() };
        let device = loopdev::attach(file.as_fd(), "cut", &options).context("attach an image")?;
        Ok(Self { device })
    }

    /// As the inventory shows it, but as a disk that may be adopted.
    fn disk(&self) -> Option<block::Disk> {
        let disk = block::disk(&SysRoot::host(), format!("loop{}", self.device.number))?;
        Some(block::Disk { kind: block::Kind::Disk, ..disk })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = loopdev::detach(&self.device.path);
    }
}
