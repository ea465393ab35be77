//! A volume's plain block device: its file as a loop device, and dm-crypt over it.
//!
//! ```text
//!  file ─ loop (direct I/O, gone with its last user) ─ dm-crypt "zos-<hash>" ─▶ descriptor
//! ```
//! Nothing is remembered: the kernel is asked by the volume's name. So a storaged that was started
//! again finds what its forerunner opened, and VMs notice nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};
use zos_host::dm::{Dm, Target};
use zos_host::{Context, Error, Result, SysRoot, loopdev};
use zos_types::unit::MIB;
use zos_types::{Bytes, TwinId, WorkloadName};

/// Bytes of a volume's key: two of AES-256, as XTS needs them.
pub const KEY: usize = 64;

/// The mapped device's name: names of twins and workloads may be longer than device-mapper's.
pub fn name(twin: &TwinId, workload: &WorkloadName) -> String {
    let hash = Sha256::digest(format!("{twin}/{workload}"));
    format!("zos-{}", hex::encode(&hash[..16]))
}

/// The open device of a volume that is mapped already.
pub fn find(name: &str) -> Result<Option<OwnedFd>> {
    let dm = Dm::open()?;
    match dm.find(name)? {
        Some(device) if device.active => Ok(Some(open(&device.path())?)),
        Some(_) => {
            // Its maker was ended half-way.
            dm.remove(name, false)?;
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Maps a volume. `block` is the logical block of the disk below, in bytes.
pub fn map(name: &str, file: &Path, cipher: &str, key: &[u8], block: u32) -> Result<OwnedFd> {
    let dm = Dm::open()?;
    let backing =
        OpenOptions::new().read(true).write(true).open(file).during("open", file.display())?;
    let sectors = backing.metadata().during("look at", file.display())?.len() / 512;
    let options = loopdev::Options {
        direct_io: true,
        autoclear: true,
        block_size: if block > 512 { block } else { 0 },
        ..loopdev::Options::default()
    };
    let device = loopdev::attach(backing.as_fd(), name, &options)?;
    let hex = Zeroizing::new(hex::encode(key));
    let mut target = Target {
        start: 0,
        length: sectors,
        kind: "crypt".to_owned(),
        params: format!("{cipher} {} 0 7:{} 0", *hex, device.number),
    };
    dm.create(name, "")?;
    let loaded = dm.load(name, std::slice::from_ref(&target), false);
    target.params.zeroize();
    let mapped = loaded.and_then(|()| dm.resume(name)).and_then(|device| open(&device.path()));
    if mapped.is_err() {
        let _ = dm.remove(name, false);
    }
    mapped
}

/// Makes the first and last MiB of a fresh volume read as zeros; durable when it returns. What was
/// never written reads as noise through dm-crypt, and a guest that probes for a file system must not
/// find one in it by chance.
pub fn clear_ends(device: &OwnedFd, size: Bytes) -> io::Result<()> {
    let file = File::from(device.try_clone()?);
    let zeros = vec![0; usize::try_from(MIB.min(size.0)).unwrap_or(0)];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, size.0.saturating_sub(MIB))?;
    file.sync_all()
}

/// Takes a volume's device away; `false`: there was none. `ResourceBusy` while it is in use.
pub fn unmap(name: &str) -> Result<bool> {
    // Where there is no device-mapper there is no device either.
    if !SysRoot::host().exists("/dev/mapper/control") {
        return Ok(false);
    }
    let dm = Dm::open()?;
    let Some(device) = dm.find(name)? else { return Ok(false) };
    if device.open_count > 0 {
        let source = io::Error::from(io::ErrorKind::ResourceBusy);
        return Err(Error::new("remove", name, source));
    }
    dm.remove(name, false)?;
    Ok(true)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let file: File =
        OpenOptions::new().read(true).write(true).open(path).during("open", path.display())?;
    Ok(file.into())
}
