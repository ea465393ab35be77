//! Block devices as sysfs shows them, with their partitions, and news of them.
//!
//! ```text
//!  /sys/block/nvme0n1 ─▶ Disk { name, kind, bus, size, rotational, model, serial, id, partitions }
//!  kernel's uevents   ─▶ Uevents: add/remove/change of `block` (and any other) devices
//! ```
//! The **id** of a disk is stable over boots and slots: the world-wide id if the device has one, else
//! model and serial, else the path of its slot (which is then all we have; [`Disk::id_is_slot`]).

use std::fs::File;
use std::path::PathBuf;

use crate::SysRoot;
use crate::error::Result;

mod gpt;
mod partition;
mod range;
mod uevent;
pub use partition::{add_partition, remove_partition};
pub use range::{discard, zero};
pub use uevent::{Uevent, Uevents};

/// What kind of block device it is, by its driver's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk: SATA, SAS, NVMe, virtio, USB, eMMC.
    Disk,
    /// A CD or DVD drive.
    Optical,
    /// A file shown as a disk.
    Loop,
    /// Device-mapper.
    Mapped,
    /// Software RAID.
    Raid,
    /// Everything else: RAM disks, network block devices, floppies, eMMC boot areas.
    Other,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// NVM Express.
    Nvme,
    /// SATA or PATA.
    Ata,
    /// SCSI that is none of the others: SAS, hardware RAID.
    Scsi,
    /// USB: may be the boot stick.
    Usb,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// SD card or eMMC.
    Mmc,
    /// Unknown, or no hardware.
    Other,
}

/// A whole block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name, which may differ at each boot: `nvme0n1`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it is attached.
    pub bus: Bus,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Size in bytes; 0: no medium.
    pub size: u64,
    /// Smallest unit that can be addressed, in bytes.
    pub logical_block: u32,
    /// Unit in which the device really writes, in bytes.
    pub physical_block: u32,
    /// Spinning, as the device says (virtio-blk says so always).
    pub rotational: bool,
    /// The medium can be taken out.
    pub removable: bool,
    /// Writes are refused.
    pub read_only: bool,
    /// Vendor and model, as the device says.
    pub model: Option<String>,
    /// Serial number, as the device says.
    pub serial: Option<String>,
    /// Stable id: letters, digits, `-`, `_`, `.`, `:` only.
    pub id: String,
    /// The id names a slot, not the device: another disk in this slot would have the same.
    pub id_is_slot: bool,
    /// Names of devices that use this one (device-mapper, RAID).
    pub holders: Vec<String>,
    /// Partitions by number.
    pub partitions: Vec<Partition>,
}

/// A partition that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The kernel's name: `nvme0n1p1`.
    pub name: String,
    /// Number from 1.
    pub number: u32,
    /// Major and minor number.
    pub device: (u32, u32),
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// GPT's unique id of the partition, lower case with dashes; only for who may read the disk where the kernel
    /// doesn't tell it (before 6.13).
    pub uuid: Option<String>,
    /// GPT's name of the partition.
    pub label: Option<String>,
    /// Names of devices that use this one.
    pub holders: Vec<String>,
}

impl Disk {
    /// `/dev/NAME`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        device_path(&self.name)
    }
}

impl Partition {
    /// `/dev/NAME`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        device_path(&self.name)
    }
}

/// All whole block devices with their partitions, sorted by name. A device that goes away while it is
/// read is left out.
pub fn list(root: &SysRoot) -> Result<Vec<Disk>> {
    let names = root.list("/sys/block")?;
    Ok(names.into_iter().filter_map(|name| disk(root, name)).collect())
}

/// One device by the kernel's name.
#[must_use]
pub fn disk(root: &SysRoot, name: String) -> Option<Disk> {
    // sysfs writes the slash of `cciss/c0d0` as `!`.
    let dir = PathBuf::from("/sys/block").join(&name);
    let read = |attribute: &str| root.attribute(dir.join(attribute));
    let number = |attribute: &str| read(attribute).and_then(|text| text.parse::<u64>().ok());
    let device = numbers(&read("dev")?)?;
    let size = number("size")?.checked_mul(512)?;
    let place = root.link(&dir).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = kind(&name);
    let model = match (read("device/vendor"), read("device/model")) {
        // `ATA` is the kernel's word for every SATA disk, and virtio's vendor is a number.
        (Some(vendor), Some(model)) if vendor != "ATA" && !vendor.starts_with("0x") => {
            Some(format!("{vendor} {model}"))
        }
        (_, model) => model.or_else(|| read("device/name")),
    };
    let serial = read("serial")
        .or_else(|| read("device/serial"))
        .or_else(|| scsi_serial(root, &dir.join("device/vpd_pg80")));
    let wwid = read("wwid").or_else(|| read("device/wwid"));
    let (id, id_is_slot) = stable_id(wwid, model.as_deref(), serial.as_deref(), &place, &name);
    let mut partitions: Vec<Partition> = root
        .list(&dir)
        .ok()?
        .into_iter()
        .filter(|entry| root.exists(dir.join(entry).join("partition")))
        .filter_map(|entry| partition(root, &dir, entry))
        .collect();
    partitions.sort_by_key(|partition| partition.number);
    if partitions.iter().any(|partition| partition.uuid.is_none()) {
        add_unique_ids(root, &name, &mut partitions);
    }
    Some(Disk {
        kind,
        bus: bus(&name, &place),
        device,
        size,
        logical_block: number("queue/logical_block_size")
            .and_then(|n| n.try_into().ok())
            .unwrap_or(512),
        physical_block: number("queue/physical_block_size")
            .and_then(|n| n.try_into().ok())
            .unwrap_or(512),
        rotational: number("queue/rotational") == Some(1),
        removable: number("removable") == Some(1),
        read_only: number("ro") == Some(1),
        model,
        serial,
        id,
        id_is_slot,
        holders: root.list(dir.join("holders")).unwrap_or_default(),
        partitions,
        name,
    })
}

/// Asks the disk itself where the kernel doesn't tell; who may not read the disk goes without.
fn add_unique_ids(root: &SysRoot, disk: &str, partitions: &mut [Partition]) {
    let block = root.parse(format!("/sys/block/{disk}/queue/logical_block_size")).unwrap_or(512);
    let ids = File::open(root.path(device_path(disk)))
        .ok()
        .and_then(|mut file| gpt::unique_ids(&mut file, block))
        .unwrap_or_default();
    for partition in partitions.iter_mut().filter(|partition| partition.uuid.is_none()) {
        partition.uuid = ids.get(&partition.number).cloned();
    }
}

fn partition(root: &SysRoot, disk: &std::path::Path, name: String) -> Option<Partition> {
    let dir = disk.join(&name);
    let sectors = |attribute: &str| {
        root.attribute(dir.join(attribute))?.parse::<u64>().ok()?.checked_mul(512)
    };
    let uevent = root.attribute(dir.join("uevent")).unwrap_or_default();
    let property = |key: &str| {
        uevent
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    Some(Partition {
        number: root.attribute(dir.join("partition"))?.parse().ok()?,
        device: numbers(&root.attribute(dir.join("dev"))?)?,
        start: sectors("start")?,
        size: sectors("size")?,
        uuid: property("PARTUUID").map(|uuid| uuid.to_ascii_lowercase()),
        label: property("PARTNAME"),
        holders: root.list(dir.join("holders")).unwrap_or_default(),
        name,
    })
}

/// The partition with this GPT unique id (in any case), with its disk's name.
pub fn partition_by_uuid(root: &SysRoot, uuid: &str) -> Result<Option<Partition>> {
    let found = list(root)?
        .into_iter()
        .flat_map(|disk| disk.partitions)
        .find(|partition| partition.uuid.as_deref().is_some_and(|u| u.eq_ignore_ascii_case(uuid)));
    Ok(found)
}

fn device_path(name: &str) -> PathBuf {
    PathBuf::from("/dev").join(name.replace('!', "/"))
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn kind(name: &str) -> Kind {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["loop"]) {
        Kind::Loop
    } else if starts(&["dm-"]) {
        Kind::Mapped
    } else if starts(&["md"]) {
        Kind::Raid
    } else if starts(&["sr"]) {
        Kind::Optical
    } else if starts(&["mmcblk"]) && (name.contains("boot") || name.contains("rpmb")) {
        Kind::Other
    } else if starts(&["sd", "vd", "nvme", "xvd", "hd", "mmcblk", "pmem", "cciss", "dasd"]) {
        Kind::Disk
    } else {
        Kind::Other
    }
}

fn bus(name: &str, place: &str) -> Bus {
    if name.starts_with("nvme") {
        Bus::Nvme
    } else if name.starts_with("mmcblk") {
        Bus::Mmc
    } else if place.contains("/usb") {
        Bus::Usb
    } else if name.starts_with("vd") || name.starts_with("sd") && place.contains("/virtio") {
        Bus::Virtio
    } else if place.contains("/ata") {
        Bus::Ata
    } else if name.starts_with("sd") {
        Bus::Scsi
    } else {
        Bus::Other
    }
}

/// Vital product data page 80h (SPC-4 7.8.15): 4 bytes of header, then the serial.
fn scsi_serial(root: &SysRoot, path: &std::path::Path) -> Option<String> {
    let bytes = std::fs::read(root.path(path)).ok()?;
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let text = String::from_utf8_lossy(bytes.get(4..4 + length)?);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn stable_id(
    wwid: Option<String>,
    model: Option<&str>,
    serial: Option<&str>,
    place: &str,
    name: &str,
) -> (String, bool) {
    // QEMU and cheap sticks give ids made of nothing: blanks, zeros or a fixed pattern.
    let says_something = |text: &str| {
        let letters: Vec<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
        letters.len() >= 2 && letters.iter().any(|c| *c != letters[0])
    };
    let wwid = wwid.filter(|wwid| {
        let text = wwid.split_once('.').map_or(wwid.as_str(), |(_, rest)| rest);
        says_something(text)
    });
    if let Some(wwid) = wwid {
        return (clean(&wwid), false);
    }
    if let Some(serial) = serial.filter(|serial| says_something(serial)) {
        return (clean(&format!("{}-{serial}", model.unwrap_or("disk"))), false);
    }
    let slot = place.split("/devices/").last().unwrap_or(place);
    let slot = slot.split("/block/").next().unwrap_or(slot);
    let slot = if slot.is_empty() { name } else { slot };
    (clean(&format!("slot-{slot}")), true)
}

fn clean(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join("_")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.:".contains(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests;
