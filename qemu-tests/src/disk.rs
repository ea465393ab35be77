//! A disk as plain data, and the image behind it: a sparse raw file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name in QEMU, and its serial number.
    pub id: String,
    /// The image.
    pub path: PathBuf,
    /// How it is attached.
    pub interface: Interface,
    /// What of it fails.
    pub broken: Broken,
    /// Whether it is left out at the start, for [`crate::Machine::plug`].
    pub unplugged: bool,
    /// Where everything that it is told is written down, if it is.
    pub record: Option<PathBuf>,
}

/// What of a disk fails, each time it is tried, with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// Every read.
    Reads,
    /// Every write.
    Writes,
    /// Each read of the sector at this byte.
    Sector(u64),
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// NVMe: solid state to Linux.
    Nvme,
    /// virtio-blk: rotational to Linux, in QEMU.
    Virtio,
    /// SATA, on this port of the machine's own controller (0 to 5): rotational to Linux, in QEMU.
    Sata(u8),
    /// A USB stick.
    Usb,
}

impl Disk {
    /// An NVMe disk over an image that exists.
    #[must_use]
    pub fn new(id: &str, path: PathBuf) -> Self {
        Self {
            id: id.into(),
            path,
            interface: Interface::Nvme,
            broken: Broken::Nothing,
            unplugged: false,
            record: None,
        }
    }

    /// The same by another way.
    #[must_use]
    pub fn by(self, interface: Interface) -> Self {
        Self { interface, ..self }
    }

    /// The same, each read of which fails with EIO.
    #[must_use]
    pub fn unreadable(self) -> Self {
        Self { broken: Broken::Reads, ..self }
    }

    /// The same, each write to which fails with EIO.
    #[must_use]
    pub fn unwritable(self) -> Self {
        Self { broken: Broken::Writes, ..self }
    }

    /// The same with a sector that can't be read, at this byte.
    #[must_use]
    pub fn bad_sector(self, at: u64) -> Self {
        Self { broken: Broken::Sector(at), ..self }
    }

    /// The same, not there yet when the machine starts.
    #[must_use]
    pub fn unplugged(self) -> Self {
        Self { unplugged: true, ..self }
    }

    /// The same, everything that it is told written into a new log ([`crate::cuts`]). Attached by virtio, where Linux asks
    /// for a flush by itself after what must be on the medium: QEMU's NVMe would not say which writes these are.
    pub fn recorded(self, log: PathBuf) -> Result<Self> {
        create(&log, 0)?;
        Ok(Self { record: Some(log), ..self.by(Interface::Virtio) })
    }

    /// SHA-256 of the image. Only for one that no machine uses, or only reads.
    pub fn hash(&self) -> Result<String> {
        hash(&self.path)
    }

    /// Writes bytes into the image.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = File::options().write(true).open(&self.path).context("open the disk image")?;
        file.write_all_at(bytes, offset).context("write the disk image")
    }

    /// The block node, for `-blockdev` or `blockdev-add`.
    #[must_use]
    pub fn blockdev(&self) -> Value {
        let file = json!({"driver": "file", "filename": self.path, "discard": "unmap"});
        let below = if self.broken != Broken::Nothing {
            // blkdebug: what reaches it answers EIO (5), as often as it is tried.
            let (kind, sector) = match self.broken {
                Broken::Writes => ("write", None),
                Broken::Sector(at) => ("read", Some(at / 512)),
                Broken::Reads | Broken::Nothing => ("read", None),
            };
            let mut error = json!({"event": "none", "iotype": kind, "errno": 5, "once": false});
            if let Some(sector) = sector {
                error["sector"] = sector.into();
            }
            json!({"driver": "blkdebug", "image": file, "inject-error": [error]})
        } else if let Some(log) = &self.record {
            // The log is all that counts, so what lies below needs no flush. Without one a flush is written down at the
            // moment it comes: only what was answered by then stands before it.
            let mut file = file;
            file["cache"] = json!({"no-flush": true});
            let log = json!({"driver": "file", "filename": log, "cache": {"no-flush": true}});
            json!({
                "driver": "blklogwrites",
                "discard": "unmap",
                "log-sector-size": crate::cuts::log::SECTOR,
                "file": file,
                "log": log,
            })
        } else {
            file
        };
        json!({"driver": "raw", "node-name": self.id, "discard": "unmap", "file": below})
    }

    /// The device, for `-device` or `device_add`, on a bus of its own where plugging needs one.
    #[must_use]
    pub fn device(&self, bus: Option<&str>) -> Value {
        let mut device = match self.interface {
            Interface::Nvme => json!({"driver": "nvme", "serial": self.id}),
            Interface::Virtio => json!({"driver": "virtio-blk-pci", "serial": self.id}),
            Interface::Sata(_) => json!({"driver": "ide-hd", "serial": self.id}),
            Interface::Usb => {
                json!({"driver": "usb-storage", "serial": self.id, "removable": true})
            }
        };
        if self.record.is_some() {
            // Merged requests have as many pieces as QEMU allows; with the log's own that is one too many, and the write
            // fails (seen with QEMU 10).
            device["request-merging"] = false.into();
        }
        device["id"] = format!("disk-{}", self.id).into();
        device["drive"] = self.id.clone().into();
        if let Some(bus) = bus {
            device["bus"] = bus.into();
        }
        device
    }
}

/// Makes an empty image: all zeros, no blocks taken.
pub fn create(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.set_len(size).context("size the disk image")
}

/// SHA-256 of a file in hex; holes cost no reading.
pub fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).context("read the disk image")?;
        if read == 0 {
            return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sum.update(&piece[..read]);
    }
}

/// Copies an image, holes as holes.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let mut target = File::create(to).with_context(|| format!("make {}", to.display()))?;
    let mut piece = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = source.read(&mut piece).context("read the image")?;
        if read == 0 {
            return target.set_len(size).context("size the copy");
        }
        if piece[..read].iter().all(|&byte| byte == 0) {
            use std::io::Seek as _;
            target.seek(std::io::SeekFrom::Current(i64::try_from(read)?)).context("skip a hole")?;
        } else {
            target.write_all(&piece[..read]).context("write the copy")?;
        }
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_disk_fails_each_read() {
        let disk = Disk::new("a", "a.img".into()).unreadable();
        let rule = &disk.blockdev()["file"]["inject-error"][0];
        assert_eq!((&rule["iotype"], &rule["errno"]), (&json!("read"), &json!(5)));
        assert_eq!(Disk::new("a", "a.img".into()).blockdev()["file"]["driver"], "file");
    }

    #[test]
    fn a_bad_sector_is_one() {
        let disk = Disk::new("a", "a.img".into()).bad_sector(1 << 20);
        let rule = &disk.blockdev()["file"]["inject-error"][0];
        assert_eq!((&rule["iotype"], &rule["sector"]), (&json!("read"), &json!(2048)));
        let rule = &Disk::new("a", "a.img".into()).unwritable().blockdev()["file"]["inject-error"];
        assert_eq!((&rule[0]["iotype"], &rule[0]["sector"]), (&json!("write"), &Value::Null));
    }

    #[test]
    fn a_recorded_disk_has_its_log_between() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a.log");
        let disk = Disk::new("a", "a.img".into()).recorded(log.clone()).unwrap();
        let below = &disk.blockdev()["file"];
        assert_eq!(
            (&below["driver"], &below["log"]["filename"]),
            (&json!("blklogwrites"), &json!(log))
        );
        assert_eq!(disk.interface, Interface::Virtio);
        assert_eq!(disk.device(None)["request-merging"], false);
    }

    #[test]
    fn a_copy_is_the_same_and_as_sparse() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        create(&a, 64 << 20).unwrap();
        Disk::new("a", a.clone()).write_at(33 << 20, b"bytes in the middle").unwrap();
        copy_sparse(&a, &b).unwrap();
        assert_eq!(hash(&a).unwrap(), hash(&b).unwrap());
        assert!(std::fs::metadata(&b).unwrap().blocks() * 512 < 4 << 20);
    }
}
