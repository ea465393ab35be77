//! Where the guest's serial output goes: the console ring of `vmd`, or stdout for developers.
//!
//! Both are fed a byte at a time by the vCPU that wrote it. The ring never blocks and never grows:
//! a flooding guest overwrites its own past.

mod ring;

pub use ring::{Ring, RingError};

use std::io::{self, Write};

/// A sink for the serial port.
#[derive(Debug)]
pub enum Console {
    /// The ring that outlives us.
    Ring(Ring),
    /// A developer's terminal.
    Stdout,
    /// Nobody listens.
    Nowhere,
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Console::Ring(ring) => ring.append(bytes),
            Console::Stdout => io::stdout().write_all(bytes)?,
            Console::Nowhere => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Console::Stdout => io::stdout().flush(),
            Console::Ring(_) | Console::Nowhere => Ok(()),
        }
    }
}
