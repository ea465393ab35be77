//! The power button, as input devices tell it (linux/input.h).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use crate::SysRoot;
use crate::error::{Context, Result};
use crate::sys;

const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const EVIOCSMASK: u32 = 0x4010_4593;
/// struct input_event with a 64-bit clock: two longs of time, type, code, value.
const EVENT: usize = 24;

/// An input device with a power key: the ACPI button, or a keyboard that has one.
#[derive(Debug)]
pub struct PowerButton {
    /// The kernel's name: `event0`.
    pub name: String,
    file: File,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct InputMask {
    kind: u32,
    size: u32,
    codes: u64,
}

/// Names of all input devices that have a power key, without opening them.
pub fn power_buttons(root: &SysRoot) -> Result<Vec<String>> {
    let names = root.list("/sys/class/input")?;
    let has_key = |name: &String| {
        name.starts_with("event")
            && root
                .attribute(format!("/sys/class/input/{name}/device/capabilities/key"))
                .is_some_and(|bitmap| bit(&bitmap, KEY_POWER))
    };
    Ok(names.into_iter().filter(has_key).collect())
}

/// sysfs writes a bitmap as hexadecimal words of a long each, the highest first.
fn bit(bitmap: &str, number: u16) -> bool {
    let word = bitmap.split_whitespace().rev().nth(usize::from(number / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (number % 64) & 1 == 1)
}

impl PowerButton {
    /// Opens a device of [`power_buttons`]; only its power key is told from now on, other keys wake nobody.
    pub fn open(name: &str) -> Result<Self> {
        let path = format!("/dev/input/{name}");
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .during("open", &path)?;
        let mut codes = [0_u8; 96];
        codes[usize::from(KEY_POWER / 8)] = 1 << (KEY_POWER % 8);
        let mut mask = InputMask {
            kind: u32::from(EV_KEY),
            size: 96,
            codes: std::ptr::from_ref(&codes).addr() as u64,
        };
        // SAFETY: EVIOCSMASK reads one struct input_mask and `size` bytes at `codes`, which live until
        // after the call. A kernel without it says so, and then other keys wake us too.
        let _ = unsafe { sys::ioctl_with(file.as_fd(), EVIOCSMASK, &mut mask) };
        Ok(Self { name: name.to_owned(), file })
    }

    /// Reads what came: true when the power key went down. An error means that the device is gone.
    pub fn pressed(&mut self) -> Result<bool> {
        let mut pressed = false;
        let mut events = [0; EVENT * 16];
        loop {
            let length = match self.file.read(&mut events) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(pressed),
                Err(error) => return Err(error).during("read", &self.name),
            };
            for event in events[..length].chunks_exact(EVENT) {
                let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
                pressed |= half(16) == EV_KEY
                    && half(18) == KEY_POWER
                    && event[20..24] == 1_i32.to_ne_bytes();
            }
            if length == 0 {
                return Ok(pressed);
            }
        }
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_sysfs_words() {
        assert!(bit("10000000000000 0", KEY_POWER));
        assert!(!bit("10000000000000", KEY_POWER));
        assert!(!bit("", KEY_POWER));
        assert!(bit("3", 1) && bit("3", 0) && !bit("3", 2));
    }
}
