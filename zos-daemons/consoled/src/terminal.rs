//! Consoles: which there are, and writing to them so that none can hold the others up.
//!
//! A serial port without hardware, or with a terminal that stopped the flow, takes no bytes: it is
//! written to without waiting, and what it doesn't take in time is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use zos_host::SysRoot;

use crate::screen::Size;

/// What kind a console is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A screen, drawn over.
    Screen,
    /// A line of text after the other.
    Serial,
}

/// Consoles that a node may have.
pub const CONSOLES: [(&str, Kind); 4] = [
    ("tty1", Kind::Screen),
    ("ttyS0", Kind::Serial),
    ("ttyAMA0", Kind::Serial),
    ("hvc0", Kind::Serial),
];

/// How long a console has to take a screen: twice what 2 KiB need at 9600 baud.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(20);

/// An open console.
#[derive(Debug)]
pub struct Console {
    /// What kind it is.
    pub kind: Kind,
    file: File,
}

impl Console {
    /// Opens one, if it is there. The kernel shows serial ports without hardware too; their type
    /// is 0 (Documentation/ABI/testing/sysfs-tty).
    pub fn open(root: &SysRoot, name: &str, kind: Kind) -> io::Result<Option<Self>> {
        if root.attribute(format!("/sys/class/tty/{name}/type")).as_deref() == Some("0") {
            return Ok(None);
        }
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let path = root.path(Path::new("/dev").join(name));
        let opened =
            OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path);
        match opened {
            Ok(file) => Ok(Some(Self { kind, file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its size; 80 x 25 where it doesn't tell.
    pub fn size(&self) -> Size {
        let size = rustix::termios::tcgetwinsize(&self.file);
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => Size { columns: 80, rows: 25 },
        }
    }

    /// Writes what it takes in time.
    pub async fn write(&mut self, text: &str) -> io::Result<()> {
        self.write_within(PATIENCE, text).await
    }

    async fn write_within(&mut self, patience: Duration, text: &str) -> io::Result<()> {
        let (mut bytes, mut waited) = (text.as_bytes(), Duration::ZERO);
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waited >= patience {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    tokio::time::sleep(PAUSE).await;
                    waited += PAUSE;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_consoles_with_hardware_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("dev")).unwrap();
        fs::create_dir_all(folder.path().join("sys/class/tty/ttyS0")).unwrap();
        fs::write(folder.path().join("dev/ttyS0"), "").unwrap();
        fs::write(folder.path().join("dev/tty1"), "").unwrap();
        let root = SysRoot::at(folder.path());
        let open = |name, kind| Console::open(&root, name, kind).unwrap();
        fs::write(folder.path().join("sys/class/tty/ttyS0/type"), "0\n").unwrap();
        assert!(open("ttyS0", Kind::Serial).is_none());
        fs::write(folder.path().join("sys/class/tty/ttyS0/type"), "4\n").unwrap();
        assert!(open("ttyS0", Kind::Serial).is_some());
        assert!(open("hvc0", Kind::Serial).is_none());
        let screen = open("tty1", Kind::Screen).unwrap();
        assert_eq!(screen.size(), Size { columns: 80, rows: 25 });
    }

    #[tokio::test]
    async fn a_console_that_takes_nothing_holds_nobody_up() {
        let (reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        rustix::io::ioctl_fionbio(&file, true).unwrap();
        let mut console = Console { kind: Kind::Serial, file };
        let much = "x".repeat(1 << 20);
        let error = console.write_within(2 * PAUSE, &much).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
    }
}
