//! The guest's consoles: the serial port and virtio-console.
//!
//! ```text
//!  guest writes ─▶ Console ─ Limit ─┬─▶ sink: ring (vmd), stdout, file, nowhere
//!                                   └─▶ Wire ─▶ Session ─▶ who is connected   (the shared thread)
//!  guest reads ◀── Port ◀────────────────────── Session ◀─ what is typed
//! ```
//!
//! A console is fed by the vCPU that writes, a byte at a time if it is a serial port. Nothing here
//! makes a guest wait or grows with what it writes: the ring overwrites its own past, and a reader
//! that is too slow loses output and is told.

mod limit;
mod ring;
mod session;
mod wire;

pub use ring::{Ring, RingError};
pub use session::{PortSeat, Session};
pub use wire::Wire;

use crate::rate::Moment;
use limit::{Judgement, Limit};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use zos_vmm_spec::Rate;

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
    limit: Option<Limit>,
    wire: Option<Arc<Wire>>,
}

/// A console as it is opened: the output side for its device, and who types, if anybody can.
#[derive(Debug)]
pub struct ConsoleEnds {
    /// For the device.
    pub console: Console,
    /// For the shared thread.
    pub session: Option<Session>,
    /// Columns and rows, if they are known.
    pub size: Option<(u16, u16)>,
}

impl Console {
    /// A console with this sink and rate, and perhaps a wire to an interactive session.
    #[must_use]
    pub fn new(sink: Sink, rate: Option<Rate>, wire: Option<Arc<Wire>>) -> Self {
        Self { sink, limit: Limit::new(rate), wire }
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
        let judgement = self.limit.as_mut().map(|l| l.judge(bytes.len() as u64, Moment::now));
        match judgement {
            Some(Judgement::Dropped) => return Ok(bytes.len()),
            Some(Judgement::Out { dropped }) if dropped > 0 => {
                let line = format!("\r\n[zos-vmm: {dropped} bytes of console output dropped]\r\n");
                self.put(line.as_bytes())?;
            }
            _ => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use zos_vmm_spec::Bucket;

    #[test]
    fn console_flood_is_dropped_and_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((64 << 10) + 4096).unwrap();
        let ring = Ring::open(file.try_clone().unwrap()).unwrap();
        let bytes = Some(Bucket { per_second: 100_000, burst: 8000 });
        let rate = Some(Rate { bytes, operations: None });
        let mut console = Console::new(Sink::Ring(ring), rate, None);
        let written = 200_000;
        for _ in 0..written {
            console.write_all(b"#").unwrap();
        }
        // Output goes on sooner or later; then it is told how much is missing.
        let mut after = 0;
        let log = loop {
            console.write_all(b"+").unwrap();
            after += 1;
            let mut log = vec![0; 64 << 10];
            file.read_exact_at(&mut log, 4096).unwrap();
            let log = String::from_utf8(log).unwrap();
            let log = log.trim_end_matches('\0').to_owned();
            if log.ends_with('+') {
                break log;
            }
        };
        let count = |letter| log.chars().filter(|found| *found == letter).count();
        let lines = log.split("[zos-vmm: ").skip(1);
        let told: usize = lines
            .map(|line| line.split_once(" bytes of console output dropped]").unwrap().0)
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(count('#') + count('+') + told, written + after);
    }
}
