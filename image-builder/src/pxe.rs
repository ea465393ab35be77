//! What a boot server serves: an iPXE script and all that it loads, in one folder, with relative addresses only.

use std::path::Path;

use crate::arch::Arch;
use crate::error::{Result, make_dir, read, write};
use crate::fetch::Fetcher;

/// The script.
pub const BOOT: &str = include_str!("boot.ipxe");
/// The farmer's settings, loaded by the script.
pub const SETTINGS: &str = include_str!("zos.ipxe");

/// Writes the folder.
///
/// # Errors
/// Writing, or iPXE's package can't be had.
pub fn write_folder(
    dir: &Path,
    fetcher: &Fetcher,
    arch: Arch,
    vmlinuz: &[u8],
    initramfs: &[u8],
) -> Result<()> {
    make_dir(dir)?;
    write(&dir.join("boot.ipxe"), BOOT.as_bytes())?;
    // iPXE for UEFI looks for a script of this name beside itself: then DHCP need only name ipxe.efi.
    write(&dir.join("autoexec.ipxe"), BOOT.as_bytes())?;
    write(&dir.join("zos.ipxe"), SETTINGS.as_bytes())?;
    write(&dir.join("vmlinuz"), vmlinuz)?;
    write(&dir.join("initramfs.img"), initramfs)?;
    let package = fetcher.package("ipxe", arch)?;
    for (from, to) in arch.ipxe() {
        write(&dir.join(to), &read(&package.join(from))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_loads_relative_files_and_passes_settings() {
        assert!([BOOT, SETTINGS].iter().all(|s| s.starts_with("#!ipxe\n")));
        let loads: Vec<&str> =
            BOOT.lines().filter(|l| l.starts_with("kernel ") || l.starts_with("initrd ")).collect();
        assert_eq!(loads.len(), 2);
        assert!(loads.iter().all(|l| !l.contains("://")));
        assert!(
            loads.iter().all(|l| l.contains(" ${base}"))
                && loads[0].contains("${zos}")
                && loads[0].contains("initrd=initramfs.img")
        );
    }

    #[test]
    fn every_label_that_is_jumped_to_exists() {
        let words: Vec<&str> = BOOT.split_whitespace().collect();
        for pair in words.windows(2).filter(|w| w[0] == "goto") {
            assert!(BOOT.lines().any(|l| l == format!(":{}", pair[1])), "{}", pair[1]);
        }
    }
}
