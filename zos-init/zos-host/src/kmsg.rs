//! The kernel's log as a place to write to (Documentation/ABI/testing/dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::error::{Context, Result};

/// Bytes of a record's text; the kernel cuts at 1024 with its own prefix.
const MAX_TEXT: usize = 900;

/// How urgent a line is: syslog's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The machine can't go on.
    Emergency = 0,
    /// Someone must act at once.
    Alert,
    /// Something broke.
    Critical,
    /// Something failed.
    Error,
    /// Something may fail.
    Warning,
    /// Normal, and worth showing on the console.
    Notice,
    /// Normal.
    Info,
    /// For who looks for a fault.
    Debug,
}

impl Level {
    /// The level with this number; numbers above 7 are debug.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Emergency,
            1 => Self::Alert,
            2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// A line's level by its `<0>`..`<7>` prefix (sd-daemon(3)), and the line without it; without a
    /// prefix: info.
    #[must_use]
    pub fn split(line: &str) -> (Self, &str) {
        match line.as_bytes() {
            [b'<', digit @ b'0'..=b'7', b'>', ..] => (Self::from_number(digit - b'0'), &line[3..]),
            _ => (Self::Info, line),
        }
    }

    /// The level with this name (`error`, `warning`, `info` ...) or number.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let names =
            ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];
        let number = names.iter().position(|name| name.starts_with(word) && word.len() >= 4);
        let number = number.or_else(|| word.parse().ok().filter(|number| *number < 8));
        number.and_then(|number| u8::try_from(number).ok()).map(Self::from_number)
    }
}

/// The kernel's log, open for writing.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
}

impl Kmsg {
    /// Opens `/dev/kmsg`.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().write(true).open("/dev/kmsg").during("open", "/dev/kmsg")?;
        Ok(Self { file })
    }

    /// Writes one record, `tag: text`; what is longer than a record is cut, control characters are
    /// replaced. A log that fails must not stop its writer, so nothing is returned.
    pub fn write(&self, level: Level, tag: &str, text: &str) {
        let record = record(level, tag, text);
        // Facility "daemon" would hide the difference to the kernel's own lines; user is the default.
        let _ = (&self.file).write_all(record.as_bytes());
    }
}

fn record(level: Level, tag: &str, text: &str) -> String {
    let mut record = format!("<{}>{tag}: ", level as u8);
    for c in text.chars() {
        if record.len() + c.len_utf8() > MAX_TEXT {
            record.push('…');
            break;
        }
        record.push(if c.is_control() && c != '\t' { '·' } else { c });
    }
    record.push('\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for (line, level, rest) in [
            ("<3>bad", Level::Error, "bad"),
            ("<7>", Level::Debug, ""),
            ("<8>odd", Level::Info, "<8>odd"),
            ("plain", Level::Info, "plain"),
            ("<", Level::Info, "<"),
        ] {
            assert_eq!(Level::split(line), (level, rest), "{line}");
        }
        for (word, level) in [
            ("warn", Some(Level::Warning)),
            ("7", Some(Level::Debug)),
            ("info", Some(Level::Info)),
            ("9", None),
            ("w", None),
        ] {
            assert_eq!(Level::parse(word), level, "{word}");
        }
    }

    #[test]
    fn a_record_is_one_bounded_line() {
        assert_eq!(record(Level::Info, "netd", "a\x1b[2Jb"), "<6>netd: a·[2Jb\n");
        let long = record(Level::Error, "x", &"ü".repeat(2000));
        assert!(long.len() < 910 && long.ends_with("…\n"));
    }
}
