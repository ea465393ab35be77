//! The machine's consoles, for words that must reach whoever stands before it.

use std::io::Write;

use rustix::fs::{Mode, OFlags, open};

use crate::SysRoot;
use crate::error::{Context, Result};

/// Names of the terminals that the kernel uses as consoles: `tty0`, `ttyS0`.
#[must_use]
pub fn names(root: &SysRoot) -> Vec<String> {
    let active = root.attribute("/sys/class/tty/console/active").unwrap_or_default();
    active.split_whitespace().map(str::to_owned).collect()
}

/// Writes a text to a console, as far as that takes it at once: a terminal that stands still must not hold up its
/// writer.
pub fn write(name: &str, text: &str) -> Result<()> {
    let path = format!("/dev/{name}");
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open(&path, flags, Mode::empty()).during("open", &path)?;
    let text = text.replace('\n', "\r\n");
    std::fs::File::from(fd).write(text.as_bytes()).during("write", &path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(names(&SysRoot::at(dir.path())).is_empty());
        let folder = dir.path().join("sys/class/tty/console");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("active"), "tty0 ttyS0\n").unwrap();
        assert_eq!(names(&SysRoot::at(dir.path())), ["tty0", "ttyS0"]);
    }
}
