//! Settings: kernel command line, `zos.conf` on the boot stick, and the file that daemons read.
//!
//! A stick is looked for only when systemd-stub says (by an EFI variable) that it started us from a
//! partition; then exactly that partition is waited for. A network boot waits for nothing.

use std::fs;
use std::time::Duration;

use zos_host::cmdline::Settings;
use zos_host::kmsg::Level;
use zos_host::mount::{self, MountFlags, UnmountFlags, data_only};
use zos_host::{Context, Error, Result, SysRoot, block, clock};

use super::Boot;
use crate::{emergency, log};

/// Where daemons read the settings.
const SETTINGS: &str = "/run/zos/settings.json";
/// Longest wait for the boot stick: USB hubs need a while.
const STICK_WAIT: u64 = 15_000;
/// Largest `zos.conf`, bytes.
const CONF_LIMIT: usize = 64 << 10;
const STICK: &str = "/run/zos/boot-stick";
/// Vendor id of the boot loader interface (systemd.io/BOOT_LOADER_INTERFACE).
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

pub(super) fn command_line(boot: &mut Boot) -> Result<()> {
    boot.command_line = SysRoot::host().read("/proc/cmdline")?;
    settle(boot, None);
    Ok(())
}

pub(super) fn boot_stick(boot: &mut Boot) -> Result<()> {
    let Some(uuid) = stick_partition(&SysRoot::host()) else { return Ok(()) };
    let begin = clock::boottime_millis();
    let partition = loop {
        if let Some(partition) = block::partition_by_uuid(&SysRoot::host(), &uuid)? {
            break partition;
        }
        if clock::boottime_millis() - begin > STICK_WAIT {
            let why = "the partition that we were started from didn't appear; zos.conf is not read";
            return Err(Error::invalid("find boot stick", uuid, why));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let device = partition.path();
    let flags = data_only() | MountFlags::RDONLY;
    mount::mount(&device.to_string_lossy(), STICK, "vfat", flags, "")?;
    let text = read_conf();
    mount::unmount(STICK, UnmountFlags::empty())?;
    let _ = fs::remove_dir(STICK);
    if let Some(text) = text? {
        log::line(Level::Notice, &format!("settings read from zos.conf on {}", device.display()));
        settle(boot, Some(&text));
    }
    Ok(())
}

/// Writes the settings for the daemons.
pub(super) fn publish(boot: &mut Boot) -> Result<()> {
    let json = serde_json::to_vec(boot.settings.values()).during("encode", "settings")?;
    // Renamed into place, so that nobody reads half of it.
    let partial = format!("{SETTINGS}.new");
    fs::write(&partial, json).during("write", &partial)?;
    fs::rename(&partial, SETTINGS).during("rename", SETTINGS)
}

fn settle(boot: &mut Boot, conf: Option<&str>) {
    boot.settings = Settings::parse(&boot.command_line, conf);
    for note in boot.settings.notes().to_vec() {
        boot.fault("settings", &note.to_string());
    }
    if boot.settings.get("mode") == Some("dev") {
        emergency::developer_mode();
    }
}

/// Unique id of the partition from which the stub was loaded.
fn stick_partition(root: &SysRoot) -> Option<String> {
    ["LoaderDevicePartUUID", "StubDevicePartUUID"].iter().find_map(|name| {
        let path = format!("/sys/firmware/efi/efivars/{name}-{VENDOR}");
        efi_text(&fs::read(root.path(path)).ok()?)
    })
}

/// An EFI variable's file: four bytes of attributes, then UTF-16 with a NUL at its end.
fn efi_text(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(&units[..end]).ok().filter(|text| !text.is_empty())
}

fn read_conf() -> Result<Option<String>> {
    let path = format!("{STICK}/zos.conf");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).during("read", path),
    };
    if bytes.len() > CONF_LIMIT {
        return Err(Error::invalid("read", path, "it is larger than 64 KiB"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efi_variables() {
        let text = |s: &str| {
            let units: Vec<u8> = s.encode_utf16().flat_map(u16::to_le_bytes).collect();
            efi_text(&[&[6, 0, 0, 0][..], &units].concat())
        };
        assert_eq!(text("AB-CD\0\0").as_deref(), Some("AB-CD"));
        assert_eq!(text("AB").as_deref(), Some("AB"));
        assert_eq!(text(""), None);
        assert_eq!(efi_text(&[1, 2]), None);
        assert_eq!(efi_text(&[0, 0, 0, 0, 0, 0xd8]), None);
    }

    #[test]
    fn the_loaders_variable_names_the_partition() {
        let dir = tempfile::tempdir().unwrap();
        let vars = dir.path().join("sys/firmware/efi/efivars");
        fs::create_dir_all(&vars).unwrap();
        assert_eq!(stick_partition(&SysRoot::at(dir.path())), None);
        let file = vars.join(format!("StubDevicePartUUID-{VENDOR}"));
        fs::write(file, b"\x06\0\0\0a\0b\0\0\0").unwrap();
        assert_eq!(stick_partition(&SysRoot::at(dir.path())).as_deref(), Some("ab"));
    }
}
