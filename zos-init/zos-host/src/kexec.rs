//! Another kernel without the firmware (kexec_file_load(2)).
//!
//! ```text
//!  load(kernel, initrd, command line) ─▶ loaded() ─▶ power::end(Kexec)
//! ```
//! Loading takes seconds for a large initramfs, so PID 1 never does it: it ends the machine with what somebody else
//! loaded.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::SysRoot;
use crate::error::{Context, Error, Result};
use crate::process::c_string;

#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
// asm-generic/unistd.h; the C library's list lacks it.
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;
/// There is no initramfs (linux/kexec.h).
const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
/// Bytes that the kernel takes of a command line, NUL included: COMMAND_LINE_SIZE of x86; arm64 has as much.
const MAX_COMMAND_LINE: usize = 2048;
/// What the loaded kernel finds on its command line, so that it knows how it was started.
pub const MARK: &str = "zos.boot=kexec";

/// Loads a kernel in place of what was loaded before; `End::Kexec` starts it. Its command line gets [`MARK`].
/// Needs CAP_SYS_BOOT, and takes as long as reading both files does.
pub fn load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    command_line: &str,
) -> Result<()> {
    let line = marked(command_line);
    if line.len() >= MAX_COMMAND_LINE {
        let why = format!("its command line has {} bytes, {MAX_COMMAND_LINE} at most", line.len());
        return Err(Error::invalid("load", "kernel", why));
    }
    let line = c_string(line)?;
    let (initrd, flags) = match initrd {
        Some(initrd) => (initrd.as_raw_fd(), 0),
        None => (-1, KEXEC_FILE_NO_INITRAMFS),
    };
    // SAFETY: the kernel reads as many bytes of `line` as are given, its NUL included; both descriptors are open.
    let result = unsafe {
        libc::syscall(
            KEXEC_FILE_LOAD,
            kernel.as_raw_fd(),
            initrd,
            line.as_bytes_with_nul().len(),
            line.as_ptr(),
            flags,
        )
    };
    let result = if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    result.during("load", "kernel")
}

/// Whether a kernel is loaded.
#[must_use]
pub fn loaded(root: &SysRoot) -> bool {
    root.attribute("/sys/kernel/kexec_loaded").as_deref() == Some("1")
}

/// The line with the mark, once, and before what is meant for PID 1 alone.
fn marked(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    if words.contains(&MARK) {
        return words.join(" ");
    }
    let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (before, after) = words.split_at(end);
    [before, &[MARK], after].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_there_once() {
        for (line, expect) in [
            ("", "zos.boot=kexec"),
            ("quiet zos.farm=7", "quiet zos.farm=7 zos.boot=kexec"),
            ("a zos.boot=kexec b", "a zos.boot=kexec b"),
            ("a -- b", "a zos.boot=kexec -- b"),
        ] {
            assert_eq!(marked(line), expect, "{line}");
        }
    }

    #[test]
    fn a_line_too_long_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let error = load(std::os::fd::AsFd::as_fd(&file), None, &"x".repeat(2040)).unwrap_err();
        assert!(error.line().contains("2048 at most"), "{}", error.line());
    }

    #[test]
    fn whether_one_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let root = SysRoot::at(dir.path());
        assert!(!loaded(&root));
        std::fs::create_dir_all(dir.path().join("sys/kernel")).unwrap();
        for (text, expect) in [("0\n", false), ("1\n", true)] {
            std::fs::write(dir.path().join("sys/kernel/kexec_loaded"), text).unwrap();
            assert_eq!(loaded(&root), expect);
        }
    }
}
