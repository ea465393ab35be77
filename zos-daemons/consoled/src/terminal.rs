//! Where the screen goes: a virtual terminal or a serial port, if there is one.
//!
//! Writing never blocks: a serial port with nobody behind it, or with flow control held, takes what
//! it takes, and the rest of that picture is dropped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

/// A terminal; one that the machine doesn't have takes everything and shows nothing.
#[derive(Debug)]
pub(crate) struct Terminal(Option<File>);

impl Terminal {
    /// Opens a terminal, without making it the process's own.
    pub(crate) fn at(path: &str) -> Self {
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => Self(Some(file)),
            Err(error) => {
                tracing::info!("no screen on {path}: {error}");
                Self(None)
            }
        }
    }

    /// Draws a screen over the last one: home, each line cleared to its end, the rest cleared.
    pub(crate) fn draw(&self, screen: &str) {
        let mut picture = String::from("\x1b[?25l\x1b[H");
        for line in screen.lines() {
            picture.push_str(line);
            picture.push_str("\x1b[K\r\n");
        }
        picture.push_str("\x1b[J");
        self.write(&picture);
    }

    /// Prints a block below what is there.
    pub(crate) fn print(&self, block: &str) {
        self.write(&format!("\r\n{}\r\n", block.replace('\n', "\r\n")));
    }

    fn write(&self, text: &str) {
        let Some(mut file) = self.0.as_ref() else { return };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) | Err(_) => return,
                Ok(count) => rest = &rest[count..],
            }
        }
    }
}
