//! What PID 1 hands to a service: listening sockets, named descriptors, a pipe to say "ready".
//!
//! The protocol is sd_listen_fds(3)'s: `LISTEN_PID` is ours, `LISTEN_FDS` counts the descriptors from
//! number 3 on, `LISTEN_FDNAMES` names them, separated by colons. `ZOS_READY_FD` is the number of a
//! pipe into which a newline says that the service is ready.

use std::env;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::{Context, Error, Result};

/// Number of the first descriptor that is handed over.
pub const FIRST_FD: RawFd = 3;

/// A handed-over descriptor and its name.
#[derive(Debug)]
pub struct Named {
    /// As PID 1 calls it: `varlink`, `spec`, `console`, `kvm` ...
    pub name: String,
    /// Ours from now on, close-on-exec.
    pub fd: OwnedFd,
}

/// Takes the handed-over descriptors, once: a second call returns none. Also none when
/// the process was started by hand.
pub fn listen_fds() -> Result<Vec<Named>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |key: &str| env::var(key).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(253);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    (FIRST_FD..FIRST_FD + count.cast_signed())
        .map(|raw| {
            let fd = adopt(raw)?;
            let name = names.next().unwrap_or("unknown").to_owned();
            Ok(Named { name, fd })
        })
        .collect()
}

/// Tells PID 1 that this service is ready; nothing happens when it didn't ask. Only the first call does
/// anything.
pub fn ready() -> Result<()> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let Some(raw) = env::var("ZOS_READY_FD").ok().and_then(|text| text.parse::<RawFd>().ok())
    else {
        return Ok(());
    };
    if raw < FIRST_FD || TOLD.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    File::from(adopt(raw)?).write_all(b"\n").during("tell readiness by", raw)
}

/// Makes a descriptor that was inherited by its number ours.
fn adopt(raw: RawFd) -> Result<OwnedFd> {
    if !std::path::Path::new("/proc/self/fd").join(raw.to_string()).exists()
        && std::path::Path::new("/proc/self/fd").exists()
    {
        return Err(Error::invalid("adopt descriptor", raw, "it is not open"));
    }
    // SAFETY: PID 1 opened this number for us before exec, no code of ours opened it, and the callers'
    // flags let each number through once only.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC).during("adopt descriptor", raw)?;
    Ok(fd)
}
