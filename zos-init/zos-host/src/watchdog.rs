//! The machine's watchdog: a timer that resets it unless it is fed (Documentation/watchdog/watchdog-api.rst).
//!
//! ```text
//!  list ─▶ best ─▶ open (it runs from now on) ─▶ set_timeout ─▶ feed, feed ... ─▶ disarm (magic close)
//!                                                                     └─ silence ─▶ the machine is reset
//! ```
//! Dropping an open one doesn't stop it: a process that falls must not take the machine's guard along.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;

use crate::SysRoot;
use crate::error::{Context, Result};
use crate::sys;

/// `_IO{WR,R}('W', n, int)` of linux/watchdog.h.
const WDIOC_SETTIMEOUT: u32 = 0xC004_5706;
const WDIOC_GETTIMEOUT: u32 = 0x8004_5707;
/// The last start was the watchdog's doing (linux/watchdog.h).
const WDIOF_CARDRESET: u32 = 0x20;
/// What the kernel's own timer is called.
const SOFTWARE: &str = "Software Watchdog";

const CLASS: &str = "/sys/class/watchdog";

/// A watchdog that the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// N of `/dev/watchdogN`.
    pub number: u32,
    /// What its driver calls it: `i6300ESB timer`.
    pub identity: String,
    /// Whether the machine was started by it.
    pub fired: bool,
}

impl Found {
    /// False: the kernel's own timer, which a kernel that hangs takes along.
    #[must_use]
    pub fn hardware(&self) -> bool {
        self.identity != SOFTWARE
    }
}

/// Every watchdog, by number. Asking by sysfs starts none; opening one would.
#[must_use]
pub fn list(root: &SysRoot) -> Vec<Found> {
    let names = root.list(CLASS).unwrap_or_default();
    let numbers = names.iter().filter_map(|name| name.strip_prefix("watchdog")?.parse().ok());
    let mut found: Vec<Found> = numbers
        .map(|number: u32| {
            let of = |what: &str| root.attribute(format!("{CLASS}/watchdog{number}/{what}"));
            let status = of("bootstatus").and_then(|text| parse_number(&text)).unwrap_or(0);
            Found {
                number,
                identity: of("identity").unwrap_or_else(|| "unknown".to_owned()),
                fired: status & WDIOF_CARDRESET != 0,
            }
        })
        .collect();
    found.sort_by_key(|found| found.number);
    found
}

/// The one to use: the first of the machine's own, else the kernel's.
#[must_use]
pub fn best(found: &[Found]) -> Option<&Found> {
    found.iter().find(|found| found.hardware()).or_else(|| found.first())
}

/// Some kernels print it in hex, others not.
fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A watchdog that runs.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    path: String,
}

impl Watchdog {
    /// Opens it, which starts it with the timeout that it has.
    pub fn open(found: &Found) -> Result<Self> {
        let path = format!("/dev/watchdog{}", found.number);
        let file = OpenOptions::new().write(true).open(&path).during("open", &path)?;
        Ok(Self { file, path })
    }

    /// Wants it to fire after so many seconds without food; gives how many it takes instead.
    pub fn set_timeout(&self, seconds: u32) -> Result<u32> {
        let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
        unsafe { sys::ioctl_with(self.file.as_fd(), WDIOC_SETTIMEOUT, &mut value) }
            .during("set the timeout of", &self.path)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// After how many seconds without food it fires.
    pub fn timeout(&self) -> Result<u32> {
        let mut value = 0_i32;
        // SAFETY: WDIOC_GETTIMEOUT writes one int.
        unsafe { sys::ioctl_with(self.file.as_fd(), WDIOC_GETTIMEOUT, &mut value) }
            .during("read the timeout of", &self.path)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Feeds it.
    pub fn feed(&self) -> Result<()> {
        // Any byte but `V`, which would let a close stop it.
        (&self.file).write_all(b"\n").during("feed", &self.path)
    }

    /// Stops it, by the letter that says that the close is meant. Some can't be stopped, and fire.
    pub fn disarm(self) -> Result<()> {
        (&self.file).write_all(b"V").during("disarm", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_machines_own_comes_before_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let root = SysRoot::at(dir.path());
        assert_eq!(best(&list(&root)), None);
        let add = |number: u32, identity: &str, status: &str| {
            let place = dir.path().join(format!("sys/class/watchdog/watchdog{number}"));
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("identity"), format!("{identity}\n")).unwrap();
            fs::write(place.join("bootstatus"), format!("{status}\n")).unwrap();
        };
        add(0, "Software Watchdog", "0");
        let found = list(&root);
        assert_eq!(best(&found).map(|found| (found.number, found.hardware())), Some((0, false)));
        add(10, "iTCO_wdt", "0");
        add(2, "i6300ESB timer", "32");
        let found = list(&root);
        let best = best(&found).unwrap();
        assert_eq!((best.number, best.fired, best.hardware()), (2, true, true));
        assert!(!found[2].fired);
    }

    #[test]
    fn status_words() {
        for (text, expect) in [("32", Some(32)), ("0x20", Some(32)), ("x", None)] {
            assert_eq!(parse_number(text), expect, "{text}");
        }
    }
}
