//! The disks: what they say of themselves, whether both ends can be read, and the boot counter.
//!
//! ```text
//!  vda, byte 4096:  ZOSHELLO | boots u64 LE | zeros up to 512 bytes
//! ```
//!
//! The counter is written only where 512 zeros or a counter stood: a disk with somebody's data
//! there keeps it.

use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// Where the counter stands.
const COUNTER_AT: u64 = 4096;
const MAGIC: [u8; 8] = *b"ZOSHELLO";

/// One disk, as it was at the start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Disk {
    /// `vda`, `vdb` ...
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// What the hypervisor calls it.
    pub(crate) serial: String,
    /// Whether it refuses writes.
    pub(crate) readonly: bool,
    /// Whether its first and its last sector could be read.
    pub(crate) readable: bool,
    /// How often we started with it; the first disk only, and only if it may be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) boots: Option<u64>,
}

/// Looks at every virtio disk, and counts this boot on the first one.
pub(crate) fn survey() -> Vec<Disk> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("vd"))
        .collect();
    names.sort_unstable();
    names.iter().map(|name| look(Path::new("/sys/block"), Path::new("/dev"), name)).collect()
}

fn look(sys: &Path, dev: &Path, name: &str) -> Disk {
    let read = |file: &str| {
        let text = fs::read_to_string(sys.join(name).join(file)).unwrap_or_default();
        text.trim().trim_matches('\0').to_owned()
    };
    // Sysfs counts in sectors of 512 bytes, whatever the disk's are.
    let bytes = read("size").parse::<u64>().unwrap_or(0) * SECTOR as u64;
    let readonly = read("ro") == "1";
    let node = dev.join(name);
    let counted = name == "vda" && !readonly;
    Disk {
        name: name.to_owned(),
        bytes,
        serial: read("serial"),
        readonly,
        readable: ends_can_be_read(&node, bytes).is_ok(),
        boots: if counted { count_boot(&node).ok().flatten() } else { None },
    }
}

fn ends_can_be_read(node: &Path, bytes: u64) -> io::Result<()> {
    let disk = File::open(node)?;
    let mut sector = [0; SECTOR];
    disk.read_exact_at(&mut sector, 0)?;
    disk.read_exact_at(&mut sector, bytes.saturating_sub(SECTOR as u64))
}

/// Adds one to the counter and makes it durable; `None` when somebody's data stands there.
fn count_boot(node: &Path) -> io::Result<Option<u64>> {
    let disk = File::options().read(true).write(true).open(node)?;
    let mut sector = [0; SECTOR];
    disk.read_exact_at(&mut sector, COUNTER_AT)?;
    let Some(boots) = counter(&sector).map(|before| before.saturating_add(1)) else {
        return Ok(None);
    };
    sector = [0; SECTOR];
    sector[..8].copy_from_slice(&MAGIC);
    sector[8..16].copy_from_slice(&boots.to_le_bytes());
    disk.write_all_at(&sector, COUNTER_AT)?;
    disk.sync_all()?;
    let mut back = [0; SECTOR];
    disk.read_exact_at(&mut back, COUNTER_AT)?;
    Ok((back == sector).then_some(boots))
}

/// The counter in a sector: zero in an empty one, `None` in anything else.
fn counter(sector: &[u8; SECTOR]) -> Option<u64> {
    let [m0, m1, m2, m3, m4, m5, m6, m7, c0, c1, c2, c3, c4, c5, c6, c7, rest @ ..] = *sector;
    let count = u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let is_empty_behind = rest.iter().all(|byte| *byte == 0);
    match [m0, m1, m2, m3, m4, m5, m6, m7] {
        MAGIC if is_empty_behind => Some(count),
        [0, 0, 0, 0, 0, 0, 0, 0] if is_empty_behind && count == 0 => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts_and_spares_foreign_data() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("vda");
        fs::write(&node, vec![0; 8192]).unwrap();
        assert_eq!(count_boot(&node).unwrap(), Some(1));
        assert_eq!(count_boot(&node).unwrap(), Some(2));
        for at in [4096, 4096 + 8, 4096 + 511] {
            let mut foreign = vec![0; 8192];
            foreign[at] = 7;
            fs::write(&node, &foreign).unwrap();
            assert_eq!(count_boot(&node).unwrap(), None);
            assert_eq!(fs::read(&node).unwrap(), foreign);
        }
        fs::write(&node, [0; 100]).unwrap();
        assert!(count_boot(&node).is_err());
    }

    #[test]
    fn a_disk_is_what_sysfs_says() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, dev) = (folder.path().join("sys"), folder.path().join("dev"));
        fs::create_dir_all(sys.join("vda")).unwrap();
        fs::create_dir_all(&dev).unwrap();
        for (file, text) in [("size", "32\n"), ("ro", "0\n"), ("serial", "data\0\0\n")] {
            fs::write(sys.join("vda").join(file), text).unwrap();
        }
        fs::write(dev.join("vda"), vec![0; 16384]).unwrap();
        let disk = look(&sys, &dev, "vda");
        assert_eq!((disk.bytes, disk.serial.as_str(), disk.boots), (16384, "data", Some(1)));
        assert!(disk.readable && !disk.readonly);
        fs::write(dev.join("vda"), vec![0; 8192]).unwrap();
        assert!(!look(&sys, &dev, "vda").readable);
    }
}
