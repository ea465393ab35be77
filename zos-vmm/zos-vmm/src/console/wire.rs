//! Between a console's device and its session: output that waits to be sent, and a bell.
//!
//! ```text
//!  any thread: output ─▶ [64 KiB] ─▶ session ─▶ reader
//!              full: bytes are lost, until half of it is read; then a line tells how many
//! ```

use crate::event::Event;
use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most bytes that wait for a reader.
pub(super) const MOST: usize = 64 << 10;

/// Shared by a console's device and its session.
#[derive(Debug)]
pub struct Wire {
    bell: Event,
    /// Somebody is connected.
    watched: AtomicBool,
    /// Input waits for room.
    waiting: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: VecDeque<u8>,
    lost: u64,
}

impl Wire {
    /// One that nobody watches yet.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bell: Event::new()?,
            watched: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            held: Mutex::default(),
        })
    }

    /// The guest wrote.
    pub fn output(&self, bytes: &[u8]) {
        if !self.watched.load(Ordering::Relaxed) || bytes.is_empty() {
            return;
        }
        let mut held = self.lock();
        let first = held.bytes.is_empty();
        held.push(bytes);
        drop(held);
        if first {
            self.bell.signal();
        }
    }

    /// The guest read: there may be room for input.
    pub fn room(&self) {
        if self.waiting.swap(false, Ordering::Relaxed) {
            self.bell.signal();
        }
    }

    /// Rings when there is output after a time without, or room for input that waits.
    pub(super) fn bell(&self) -> &Event {
        &self.bell
    }

    /// Whether the device shall ring when the guest has read.
    pub(super) fn wait_for_room(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Somebody watches from now on, or nobody; what waited for the one before is forgotten.
    pub(super) fn watch(&self, watched: bool) {
        *self.lock() = Held::default();
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Whether output waits.
    pub(super) fn has_output(&self) -> bool {
        !self.lock().bytes.is_empty()
    }

    /// Moves output into a buffer, as much as fits.
    pub(super) fn take(&self, target: &mut [u8]) -> usize {
        self.lock().take(target)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn push(&mut self, bytes: &[u8]) {
        // Once something is lost, all is until there's room again: one gap, one line.
        let room = if self.lost == 0 { MOST - self.bytes.len() } else { 0 };
        let count = room.min(bytes.len());
        self.bytes.extend(&bytes[..count]);
        self.lost += (bytes.len() - count) as u64;
    }

    fn take(&mut self, target: &mut [u8]) -> usize {
        let count = target.len().min(self.bytes.len());
        for (to, from) in target.iter_mut().zip(self.bytes.drain(..count)) {
            *to = from;
        }
        if self.lost > 0 && self.bytes.len() <= MOST / 2 {
            let mut line = String::new();
            let _ = write!(
                line,
                "\r\n[zos-vmm: {} bytes lost, this reader is too slow]\r\n",
                self.lost
            );
            self.bytes.extend(line.as_bytes());
            self.lost = 0;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_held_while_nobody_watches() {
        let wire = Wire::new().unwrap();
        wire.output(b"before");
        assert!(!wire.has_output());
        wire.watch(true);
        wire.output(b"now");
        assert!(wire.has_output() && wire.bell.clear());
        wire.watch(true);
        assert!(!wire.has_output(), "a new reader sees only what comes from then on");
    }

    proptest! {
        /// Every byte is read, or counted in a line where it is missing; never more than the most.
        #[test]
        fn bytes_are_read_or_counted(
            steps in prop::collection::vec((0usize..40_000, 0usize..30_000), 1..40),
        ) {
            let wire = Wire::new().unwrap();
            wire.watch(true);
            let mut written = 0;
            let mut read = Vec::new();
            let mut buffer = vec![0; 2 * MOST];
            for (write, take) in steps {
                wire.output(&vec![b'x'; write]);
                written += write;
                prop_assert!(wire.lock().bytes.len() <= MOST + 100);
                let count = wire.take(&mut buffer[..take]);
                read.extend_from_slice(&buffer[..count]);
            }
            // A reader that catches up hears of every gap.
            for _ in 0..3 {
                let count = wire.take(&mut buffer);
                read.extend_from_slice(&buffer[..count]);
            }
            let text = String::from_utf8(read).unwrap();
            let told: usize = text
                .split("[zos-vmm: ")
                .skip(1)
                .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
                .sum();
            let line: String = text.split("\r\n").filter(|l| !l.contains("lost")).collect();
            prop_assert_eq!(line.len() + told, written);
        }
    }
}
