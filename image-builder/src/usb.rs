//! A USB stick: GPT with one EFI system partition (UEFI 2.10, 5.3 and 13.3).
//!
//! ```text
//!  LBA 0 protective MBR │ 1 GPT │ ... │ 2048 ESP, FAT32 ──────────────────────┐ │ backup GPT
//!                                      │ EFI/BOOT/BOOTX64.EFI  = zos.efi      │
//!                                      │ zos.conf              = settings     │
//!                                      └──────────────────────────────────────┘
//! ```
//!
//! All GUIDs follow from the content: two sticks written from one image have the same ones. A node finds its stick by
//! the GUID of the partition that the firmware booted, so with two equal sticks in one machine either's `zos.conf` may be
//! read; with one stick in each, any number of nodes may have the same. Firmware itself tells sticks apart by port.

use std::collections::BTreeMap;
use std::path::Path;

use crate::arch::Arch;
use crate::cache::hash_fields;
use crate::error::{Error, Result};
use crate::fat::{self, Node, Volume};

const SECTOR: u64 = 512;
/// 1 MiB in: aligned for any flash.
const FIRST: u32 = 2048;
const START: u64 = FIRST as u64;
/// Room for a larger image later; above the least that FAT32 can be.
const MIN_ESP: usize = 96 << 20;
/// Label of the file system, for people.
pub const LABEL: [u8; 11] = *b"ZOS        ";

/// Writes the stick's image.
///
/// # Errors
/// Writing, or contents that don't fit.
pub fn write(path: &Path, arch: Arch, uki: &[u8], conf: &str) -> Result<()> {
    let id = hash_fields(&[b"zos-usb", arch.name().as_bytes(), uki, conf.as_bytes()]);
    let esp = file_system(arch, uki, conf, &id)?;
    let sectors = START + esp.len() as u64 / SECTOR + START;

    let dir = path.parent().unwrap_or(Path::new("."));
    let part = tempfile::NamedTempFile::new_in(dir).map_err(Error::io("write in", dir))?;
    let mut file = part.as_file();
    file.set_len(sectors * SECTOR).map_err(Error::io("write", path))?;
    partition(file, sectors, esp.len() as u64, &id)
        .map_err(|e| Error::form("partition table", e))?;
    write_sparse(&mut file, START * SECTOR, &esp).map_err(Error::io("write", path))?;
    crate::error::publish(part, path)
}

/// The ESP's file system.
fn file_system(arch: Arch, uki: &[u8], conf: &str, id: &str) -> Result<Vec<u8>> {
    let size = (uki.len() + (16 << 20)).next_multiple_of(1 << 20).max(MIN_ESP);
    let serial = u32::from_str_radix(&id[..8], 16).unwrap_or_default();
    let boot = Node::Dir(vec![(arch.efi_boot_name(), Node::File(uki))]);
    let root =
        [("EFI", Node::Dir(vec![("BOOT", boot)])), ("zos.conf", Node::File(conf.as_bytes()))];
    fat::format(size, Volume { id: serial, label: LABEL, hidden: FIRST }, &root)
}

fn partition(
    file: &std::fs::File,
    sectors: u64,
    esp: u64,
    id: &str,
) -> std::result::Result<(), String> {
    let mbr_size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    let mut device = file;
    gpt::mbr::ProtectiveMBR::with_lb_size(mbr_size)
        .overwrite_lba0(&mut device)
        .map_err(|e| e.to_string())?;
    let guid = |from: usize| uuid(&id[from..from + 32]);
    let (disk_guid, part_guid) = (guid(0)?, guid(32)?);
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(device, Some(disk_guid))
        .map_err(|e| e.to_string())?;
    let esp = gpt::partition::Partition {
        part_type_guid: gpt::partition_types::EFI,
        part_guid,
        first_lba: START,
        last_lba: START + esp / SECTOR - 1,
        flags: 0,
        name: "ZOS".into(),
    };
    disk.update_partitions(BTreeMap::from([(1, esp)])).map_err(|e| e.to_string())?;
    disk.write().map_err(|e| e.to_string())?;
    Ok(())
}

/// A version 8 UUID (RFC 9562, 5.8) from 32 hex digits.
fn uuid<T: std::str::FromStr>(digits: &str) -> std::result::Result<T, String>
where
    T::Err: std::fmt::Display,
{
    let text = format!(
        "{}-{}-8{}-a{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    );
    text.parse().map_err(|e: T::Err| e.to_string())
}

/// Leaves holes where there is nothing.
fn write_sparse(file: &mut &std::fs::File, start: u64, data: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    const PIECE: usize = 64 << 10;
    for (i, piece) in data.chunks(PIECE).enumerate() {
        if piece.iter().any(|b| *b != 0) {
            file.write_all_at(piece, start + (i * PIECE) as u64)?;
        }
    }
    Ok(())
}

/// The farmer's settings, to be edited on any computer: every key, each commented out.
pub const CONF: &str = include_str!("zos.conf");

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Read as _};

    #[test]
    fn an_independent_reader_finds_files_and_partition() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usb.img");
        write(&path, Arch::X86_64, b"a unified kernel image", CONF).unwrap();
        let disk = gpt::GptConfig::new().open(&path).unwrap();
        let esp = &disk.partitions()[&1];
        assert_eq!((esp.part_type_guid.clone(), esp.first_lba), (gpt::partition_types::EFI, START));
        let image = std::fs::read(&path).unwrap();
        let end = usize::try_from((esp.last_lba + 1) * SECTOR).unwrap();
        let space = image[1 << 20..end].to_vec();
        let fs = fatfs::FileSystem::new(Cursor::new(space), fatfs::FsOptions::new()).unwrap();
        assert_eq!(fs.fat_type(), fatfs::FatType::Fat32);
        assert_eq!(fs.volume_label(), "ZOS");
        let mut text = String::new();
        fs.root_dir().open_file("zos.conf").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, CONF);
        let mut boot = fs.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap();
        let mut read = Vec::new();
        boot.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"a unified kernel image");
    }

    #[test]
    fn equal_contents_give_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for path in [&a, &b] {
            write(path, Arch::X86_64, &[5; 3000], CONF).unwrap();
        }
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
    }

    #[test]
    fn every_setting_of_the_stick_is_commented_out() {
        let settings = CONF.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
        assert_eq!(settings.count(), 0);
        for key in [
            "farm",
            "farmer",
            "mode",
            "nic",
            "vlan",
            "ip",
            "dns",
            "ntp",
            "console",
            "log",
            "disk.adopt",
            "identity",
        ] {
            assert!(CONF.lines().any(|l| l.starts_with(&format!("#zos.{key} = "))), "{key}");
        }
    }
}
