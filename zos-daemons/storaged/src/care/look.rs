//! What the kernel counted of a disk and its pool, read from sysfs alone: no disk is woken by it.
//!
//! ```text
//!  /sys/block/sda/stat                        requests done, under way
//!  /sys/block/sda/device/{state,iotmo_cnt}    given up? commands that timed out (SCSI)
//!  /sys/fs/btrfs/<id>/devices/sda1            which file system is on it
//!        devinfo/1/error_stats                errors, kept by btrfs over boots
//!        allocation/{data,metadata,system}    room
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zos_host::SysRoot;

use super::space::Space;

/// Requests of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Done since it came: reads, writes, discards, flushes.
    pub done: u64,
    /// Under way.
    pub pending: u64,
}

/// Errors that btrfs counted (`btrfs device stats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Errors {
    /// Reads that failed.
    pub read: u64,
    /// Writes that failed.
    pub write: u64,
    /// Flushes that failed.
    pub flush: u64,
    /// Blocks whose checksum was wrong, or that were older than they should be.
    pub corruption: u64,
}

impl Errors {
    /// What came since an earlier count. Fewer than then: somebody set them back.
    pub fn since(self, before: Self) -> Self {
        let more = |now: u64, before: u64| if now >= before { now - before } else { now };
        Self {
            read: more(self.read, before.read),
            write: more(self.write, before.write),
            flush: more(self.flush, before.flush),
            corruption: more(self.corruption, before.corruption),
        }
    }
}

/// A pool as its file system sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolLook {
    /// Errors since it was made.
    pub errors: Errors,
    /// Its room.
    pub space: Space,
    /// The disk's number in the file system.
    pub device: u64,
    /// The size of its partition in bytes.
    pub size: u64,
}

/// A disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// Requests; none: it is gone.
    pub requests: Option<Requests>,
    /// Commands that timed out since it came.
    pub timeouts: u64,
    /// Whether the kernel stopped to use it.
    pub offline: bool,
    /// The pool on it, while it is mounted.
    pub pool: Option<PoolLook>,
}

/// Looks at a disk by the kernel's name.
pub fn look(root: &SysRoot, disk: &str) -> Look {
    let dir = Path::new("/sys/block").join(disk);
    let state = root.attribute(dir.join("device/state"));
    let timeouts = root.attribute(dir.join("device/iotmo_cnt"));
    Look {
        requests: root.attribute(dir.join("stat")).and_then(|text| requests(&text)),
        timeouts: timeouts
            .and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok())
            .unwrap_or(0),
        offline: matches!(state.as_deref(), Some("offline" | "transport-offline" | "dead")),
        pool: pool(root, &dir, disk),
    }
}

/// Of a disk's `stat` (Documentation/block/stat.rst): 1 reads, 5 writes, 9 in flight, 12 discards, 16 flushes.
fn requests(text: &str) -> Option<Requests> {
    let fields: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let done = [0, 4, 11, 15].into_iter().filter_map(|at| fields.get(at));
    let done = done.fold(0_u64, |sum, count| sum.saturating_add(*count));
    Some(Requests { done, pending: *fields.get(8)? })
}

fn pool(root: &SysRoot, disk: &Path, name: &str) -> Option<PoolLook> {
    let on_disk = |device: &String| device == name || root.exists(disk.join(device));
    let systems = root.list("/sys/fs/btrfs").ok()?;
    let systems = systems.into_iter().map(|id| Path::new("/sys/fs/btrfs").join(id));
    let (system, partition) = systems
        .filter_map(|system| {
            let devices = root.list(system.join("devices")).ok()?;
            Some((system, devices.into_iter().find(on_disk)?))
        })
        .next()?;
    let sectors: u64 = root.parse(system.join("devices").join(&partition).join("size")).ok()?;
    let devices = root.list(system.join("devinfo")).ok()?;
    let device: u64 = devices.iter().find_map(|device| device.parse().ok())?;
    let errors = root.attribute(system.join(format!("devinfo/{device}/error_stats")))?;
    let size = sectors.checked_mul(512)?;
    Some(PoolLook {
        errors: parse_errors(&errors),
        space: space(root, &system, size)?,
        device,
        size,
    })
}

fn parse_errors(text: &str) -> Errors {
    let count = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    Errors {
        read: count("read_errs "),
        write: count("write_errs "),
        flush: count("flush_errs "),
        corruption: count("corruption_errs ").saturating_add(count("generation_errs ")),
    }
}

fn space(root: &SysRoot, system: &Path, size: u64) -> Option<Space> {
    let allocation = system.join("allocation");
    let read = |path: PathBuf| root.parse::<u64>(allocation.join(path)).ok();
    let of = |kind: &str, what: &str| read(Path::new(kind).join(what));
    let taken = ["data", "metadata", "system"].iter().filter_map(|kind| of(kind, "disk_total"));
    Some(Space {
        size,
        unallocated: size.saturating_sub(taken.fold(0, u64::saturating_add)),
        data: of("data", "total_bytes")?,
        data_used: of("data", "bytes_used")?,
        metadata: of("metadata", "total_bytes")?,
        metadata_used: of("metadata", "bytes_used")?,
        // What btrfs keeps of its metadata for itself, to be able to delete.
        kept: read("global_rsv_size".into()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_recorded_machine() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let stat = "  100 0 800 10 200 0 1600 20 3 30 30 5 0 40 1 7 2\n";
        write("sys/block/sda/stat", stat);
        write("sys/block/sda/device/state", "running\n");
        write("sys/block/sda/device/iotmo_cnt", "0x1f\n");
        write("sys/block/sda/sda1/partition", "1\n");
        write("sys/block/nvme0n1/stat", "1 0 0 0 2 0 0 0 0 0 0");
        write("sys/block/nvme0n1/device/state", "dead\n");
        write("sys/fs/btrfs/features/x", "1");
        let system = "sys/fs/btrfs/6a1b";
        write(&format!("{system}/devices/sda1/size"), "2097152\n");
        write(
            &format!("{system}/devinfo/1/error_stats"),
            "write_errs 1\nread_errs 2\nflush_errs 3\ncorruption_errs 4\ngeneration_errs 5\n",
        );
        for (kind, total, used, disk) in [
            ("data", 100 << 20, 7, 100 << 20),
            ("metadata", 50 << 20, 9, 100 << 20),
            ("system", 8, 1, 16),
        ] {
            write(&format!("{system}/allocation/{kind}/total_bytes"), &total.to_string());
            write(&format!("{system}/allocation/{kind}/bytes_used"), &used.to_string());
            write(&format!("{system}/allocation/{kind}/disk_total"), &disk.to_string());
        }
        write(&format!("{system}/allocation/global_rsv_size"), "5\n");
        let root = SysRoot::at(dir.path());
        let space = Space {
            size: 1 << 30,
            unallocated: (1 << 30) - (200 << 20) - 16,
            data: 100 << 20,
            data_used: 7,
            metadata: 50 << 20,
            metadata_used: 9,
            kept: 5,
        };
        let errors = Errors { read: 2, write: 1, flush: 3, corruption: 9 };
        let pool = Some(PoolLook { errors, space, device: 1, size: 1 << 30 });
        let requests = Some(Requests { done: 312, pending: 3 });
        assert_eq!(look(&root, "sda"), Look { requests, timeouts: 31, offline: false, pool });
        let requests = Some(Requests { done: 3, pending: 0 });
        assert_eq!(
            look(&root, "nvme0n1"),
            Look { requests, timeouts: 0, offline: true, pool: None }
        );
        assert_eq!(look(&root, "gone"), Look::default());
    }

    #[test]
    fn counts_that_were_set_back() {
        let before = Errors { read: 5, write: 1, flush: 0, corruption: 2 };
        let now = Errors { read: 7, write: 0, flush: 0, corruption: 2 };
        assert_eq!(now.since(before), Errors { read: 2, ..Errors::default() });
        let set_back = Errors { read: 1, ..Errors::default() };
        assert_eq!(set_back.since(before), Errors { read: 1, ..Errors::default() });
    }
}
