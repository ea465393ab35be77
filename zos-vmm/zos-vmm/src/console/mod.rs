//! The guest's consoles: the serial port and virtio-console.
//!
//! ```text
//!  guest writes ─▶ Console ─┬─▶ sink: ring (vmd), stdout, file, nowhere
//!                           └─▶ Wire ─▶ Session ─▶ who is connected        (the shared thread)
//!  guest reads ◀── Port ◀────────────── Session ◀─ what is typed
//! ```
//!
//! A console is fed by the vCPU that writes, a byte at a time if it is a serial port. Nothing here
//! makes a guest wait or grows with what it writes: the ring overwrites its own past, and a reader
//! that is too slow loses output and is told.

mod ring;
mod session;
mod wire;

pub use ring::{Ring, RingError};
pub use session::{PortSeat, Session};
pub use wire::Wire;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// The guest's side of a console's input: a UART's FIFO, a queue of buffers.
pub trait Port: Send + Sync {
    /// Puts in as many bytes as have room now, and tells how many. When the guest has read, the
    /// device calls [`Console::read_by_guest`] or [`Wire::room`], and the rest follows.
    fn input(&self, bytes: &[u8]) -> usize;
}

/// Where a console's output is kept.
#[derive(Debug)]
pub enum Sink {
    /// The ring that outlives us.
    Ring(Ring),
    /// A developer's terminal.
    Stdout,
    /// A developer's file.
    File(File),
    /// Nobody keeps it.
    Nowhere,
}

/// The output side of one console.
#[derive(Debug)]
pub struct Console {
    sink: Sink,
    wire: Option<Arc<Wire>>,
}

/// A console as it is opened: the output side for its device, and who types, if anybody can.
#[derive(Debug)]
pub struct ConsoleEnds {
    /// For the device.
    pub console: Console,
    /// For the shared thread.
    pub session: Option<Session>,
}

impl Console {
    /// A console with this sink, and perhaps a wire to an interactive session.
    #[must_use]
    pub fn new(sink: Sink, wire: Option<Arc<Wire>>) -> Self {
        Self { sink, wire }
    }

    /// The way to its session, if it has one: for a device's callback.
    #[must_use]
    pub fn wire(&self) -> Option<Arc<Wire>> {
        self.wire.clone()
    }

    /// The guest read input: there may be room for more.
    pub fn read_by_guest(&self) {
        if let Some(wire) = &self.wire {
            wire.room();
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(wire) = &self.wire {
            wire.output(bytes);
        }
        match &mut self.sink {
            Sink::Ring(ring) => ring.append(bytes),
            Sink::Stdout => io::stdout().write_all(bytes)?,
            Sink::File(file) => file.write_all(bytes)?,
            Sink::Nowhere => {}
        }
        Ok(())
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.sink {
            Sink::Stdout => io::stdout().flush(),
            Sink::Ring(_) | Sink::File(_) | Sink::Nowhere => Ok(()),
        }
    }
}
