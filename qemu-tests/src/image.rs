//! The image under test: the files in `out/x86_64/`, and the few changes that a test makes to copies of them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::{Archive, Mode};

/// The checkout.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the checkout")
}

/// A file of the image; an error says how to make it.
pub fn file(name: &str) -> Result<PathBuf> {
    let dir =
        std::env::var_os("ZOS_IMAGE").map_or_else(|| project().join("out/x86_64"), PathBuf::from);
    let path = dir.join(name);
    ensure!(path.exists(), "{} is missing: run `make image` first", path.display());
    Ok(path)
}

/// The kernel.
pub fn vmlinuz() -> Result<PathBuf> {
    file("vmlinuz")
}

/// The initramfs.
pub fn initramfs() -> Result<PathBuf> {
    file("initramfs.img")
}

/// Writes an initramfs with more files behind it: the kernel unpacks archives one after another, and what comes later
/// stands in place of what came before.
pub fn extend_initramfs<P: AsRef<str>>(
    base: &Path,
    files: &[(P, Mode, Vec<u8>)],
    target: &Path,
) -> Result<()> {
    let mut bytes = std::fs::read(base).with_context(|| format!("read {}", base.display()))?;
    // A plain archive is only found at a multiple of 4 (the kernel's initramfs buffer format).
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut archive = Archive::new();
    for (path, mode, data) in files {
        archive.add(path.as_ref(), *mode, data);
    }
    bytes.extend(archive.finish());
    std::fs::write(target, bytes).with_context(|| format!("write {}", target.display()))
}

/// Replaces `zos.conf` on a boot stick's ESP, as a farmer's computer would.
pub fn write_conf(stick: &Path, lines: &[String]) -> Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(stick);
    let file = file.with_context(|| format!("open {}", stick.display()))?;
    let disk =
        gpt::GptConfig::new().open_from_device(&file).context("read the stick's partitions")?;
    let esp = disk.partitions().values().find(|p| p.part_type_guid == gpt::partition_types::EFI);
    let esp = esp.context("the stick has no EFI system partition")?;
    let sector = u64::from(*disk.logical_block_size());
    let (start, end) = (esp.first_lba * sector, (esp.last_lba + 1) * sector);
    let part = Window { file: &file, start, size: end - start, at: 0 };
    let fat = fatfs::FileSystem::new(part, fatfs::FsOptions::new()).context("read the ESP")?;
    let mut conf = fat.root_dir().open_file("zos.conf").context("open zos.conf on the ESP")?;
    conf.truncate().context("empty zos.conf")?;
    conf.write_all(lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().as_bytes())
        .context("write zos.conf")?;
    Ok(())
}

/// A part of a file, as a disk of its own.
struct Window<'a> {
    file: &'a std::fs::File,
    start: u64,
    size: u64,
    at: u64,
}

impl Window<'_> {
    fn room(&self, wanted: usize) -> usize {
        usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl std::io::Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let room = self.room(buffer.len());
        let read = self.file.read_at(&mut buffer[..room], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl std::io::Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let room = self.room(bytes.len());
        let written = self.file.write_at(&bytes[..room], self.start + self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Window<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let (base, by) = match to {
            std::io::SeekFrom::Start(at) => (at, 0),
            std::io::SeekFrom::End(by) => (self.size, by),
            std::io::SeekFrom::Current(by) => (self.at, by),
        };
        self.at = base.checked_add_signed(by).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_builder::arch::Arch;
    use image_builder::usb;

    #[test]
    fn a_sticks_settings_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let stick = dir.path().join("usb.img");
        usb::write(&stick, Arch::X86_64, b"an image", usb::CONF).unwrap();
        write_conf(&stick, &["zos.farm = test-farm".into()]).unwrap();
        let bytes = std::fs::read(&stick).unwrap();
        let fat = fatfs::FileSystem::new(
            std::io::Cursor::new(bytes[1 << 20..].to_vec()),
            fatfs::FsOptions::new(),
        );
        let mut text = String::new();
        let fat = fat.unwrap();
        std::io::Read::read_to_string(
            &mut fat.root_dir().open_file("zos.conf").unwrap(),
            &mut text,
        )
        .unwrap();
        assert_eq!(text, "zos.farm = test-farm\r\n");
    }

    #[test]
    fn a_later_archive_stands_behind_an_aligned_first() {
        let dir = tempfile::tempdir().unwrap();
        let (base, target) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&base, b"odd").unwrap();
        extend_initramfs(&base, &[("etc/x", Mode::File, b"1".to_vec())], &target).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!(&bytes[..4], b"odd\0");
        let entries = image_builder::cpio::entries(&bytes[4..]).unwrap();
        assert_eq!((entries[0].0.as_str(), entries[0].2), ("etc/x", &b"1"[..]));
    }
}
