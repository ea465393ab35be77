//! The machine's serial port, kept in a file by QEMU.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a waiter looks.
const LOOK: Duration = Duration::from_millis(50);

/// What a serial port has said so far.
#[derive(Clone, Debug)]
pub struct Serial {
    path: PathBuf,
}

impl Serial {
    /// The port that writes this file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything said, bytes that are no UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits until a line holds the text, and gives that line. `alive` may end the wait with its error.
    pub fn wait(
        &self,
        text: &str,
        patience: Duration,
        mut alive: impl FnMut() -> Result<()>,
    ) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            // First whether it lives, then what it said: the last words of a dead machine count.
            let state = alive();
            if let Some(line) = self.text().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            state.map_err(|error| {
                error.context(format!("waiting for `{text}` on the serial port"))
            })?;
            if Instant::now() > end {
                bail!("`{text}` did not come on the serial port in {} s", patience.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_gives_the_line_or_ends() {
        let dir = tempfile::tempdir().unwrap();
        let serial = Serial::new(dir.path().join("s"));
        std::fs::write(serial.path(), b"one\n\xfftwo 2\nthree").unwrap();
        let wait = |text| serial.wait(text, Duration::ZERO, || Ok(()));
        assert_eq!(wait("two").unwrap(), "\u{fffd}two 2");
        assert!(wait("four").unwrap_err().to_string().contains("`four`"));
        assert_eq!(serial.tail(2), "\u{fffd}two 2\nthree");
        let dead = serial.wait("four", Duration::from_secs(9), || bail!("QEMU has ended"));
        assert!(format!("{:#}", dead.unwrap_err()).contains("QEMU has ended"));
    }
}
