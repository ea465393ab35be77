//! The first thing: file systems without which nothing works, and those that tell of the last boot.

use zos_host::mount::{self, MountFlags, data_only};
use zos_host::{Result, SysRoot};

use super::Boot;
use crate::log;

/// source, target, type, may hold devices, options
type Row = (&'static str, &'static str, &'static str, bool, &'static str);

const NEEDED: &[Row] = &[
    ("proc", "/proc", "proc", false, ""),
    ("sysfs", "/sys", "sysfs", false, ""),
    ("devtmpfs", "/dev", "devtmpfs", true, "mode=755"),
    ("run", "/run", "tmpfs", false, "mode=755,size=25%"),
    ("tmp", "/tmp", "tmpfs", false, "mode=1777,size=10%"),
    ("devpts", "/dev/pts", "devpts", true, "mode=620,ptmxmode=666"),
    ("shm", "/dev/shm", "tmpfs", false, "mode=1777,size=10%"),
];

/// Absent on machines without UEFI, or in kernels without them.
const WANTED: &[Row] = &[
    ("securityfs", "/sys/kernel/security", "securityfs", false, ""),
    ("pstore", "/sys/fs/pstore", "pstore", false, ""),
    ("bpf", "/sys/fs/bpf", "bpf", false, "mode=700"),
    ("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", false, ""),
];

pub(super) fn early(boot: &mut Boot) -> Result<()> {
    for row in NEEDED {
        if let Err(error) = one(row) {
            boot.fault("boot-mounts", &error.line());
        }
        log::open();
    }
    for row in WANTED {
        if SysRoot::host().exists(row.1) {
            let _ = one(row);
        }
    }
    // Services have their own views of the tree, in which storaged's mounts must turn up.
    if let Err(error) = mount::make_shared("/") {
        boot.fault("boot-mounts", &error.line());
    }
    // CPU microcode, unpacked with the rest of the initramfs: long applied, and 15 MB of memory.
    let _ = std::fs::remove_dir_all("/kernel");
    std::fs::create_dir_all("/run/zos").map_err(|e| zos_host::Error::new("create", "/run/zos", e))
}

fn one((source, target, fstype, devices, options): &Row) -> Result<()> {
    let flags = if *devices { MountFlags::NOSUID | MountFlags::NOEXEC } else { data_only() };
    mount::mount(source, target, fstype, flags, options)
}
