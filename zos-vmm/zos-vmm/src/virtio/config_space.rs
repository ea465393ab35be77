//! A device's configuration (virtio 1.2, 4.1.4.6): read by the driver, changed by the device.
//!
//! ```text
//!  driver ── read ──▶ bytes ◀── change(...) ── device: generation + 1, configuration interrupt
//!         ── write ─▶ only the bytes that the device's specification lets it write
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | write a field that is the device's | nothing |
//! | read past the end | zeros |

use super::Interrupt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The configuration, shared by transport and device.
#[derive(Clone, Debug)]
pub struct ConfigSpace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    length: usize,
    writable: Range<usize>,
    interrupt: OnceLock<Arc<Interrupt>>,
    heard: OnceLock<Heard>,
}

type Listener = dyn Fn(&[u8]) + Send + Sync;

/// What is called with all bytes when a driver has written some.
struct Heard(Box<Listener>);

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heard")
    }
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    generation: u8,
}

impl ConfigSpace {
    /// One that no driver may write.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::writable(bytes, 0..0)
    }

    /// One of which a driver may write these bytes.
    #[must_use]
    pub fn writable(bytes: Vec<u8>, writable: Range<usize>) -> Self {
        let length = bytes.len();
        let state = Mutex::new(State { bytes, generation: 0 });
        let (interrupt, heard) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { state, length, writable, interrupt, heard }))
    }

    /// What is to be called with all bytes when a driver has written some, in the vCPU's thread; the
    /// first one counts.
    pub fn when_written(&self, heard: impl Fn(&[u8]) + Send + Sync + 'static) {
        let _ = self.0.heard.set(Heard(Box::new(heard)));
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.length
    }

    /// Changed with each change by the device, so that a driver sees that it read a torn value.
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.lock().generation
    }

    /// The bytes from `offset` on; what lies behind the end reads as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let state = self.lock();
        data.iter_mut().zip(state.bytes.iter().skip(offset)).for_each(|(to, from)| *to = *from);
    }

    /// The driver writes; tells whether that was allowed.
    pub fn write(&self, offset: usize, data: &[u8]) -> bool {
        let Range { start, end } = self.0.writable;
        let Some(last) = offset.checked_add(data.len()) else { return false };
        if data.is_empty() || offset < start || last > end {
            return false;
        }
        let mut state = self.lock();
        state.bytes[offset..last].copy_from_slice(data);
        if let Some(Heard(heard)) = self.0.heard.get() {
            heard(&state.bytes);
        }
        true
    }

    /// The device changes it, and the driver hears of it.
    pub fn change(&self, change: impl FnOnce(&mut [u8])) {
        {
            let mut state = self.lock();
            change(&mut state.bytes);
            state.generation = state.generation.wrapping_add(1);
        }
        if let Some(interrupt) = self.0.interrupt.get() {
            interrupt.config();
        }
    }

    /// Whom to tell of changes; the first one counts.
    pub(super) fn bind(&self, interrupt: Arc<Interrupt>) {
        let _ = self.0.interrupt.set(interrupt);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_writes_what_is_its_own() {
        let config = ConfigSpace::writable((0..8).collect(), 4..8);
        for (offset, bytes, allowed) in [
            (4, &[9u8; 4][..], true),
            (5, &[8], true),
            (3, &[7; 2], false),
            (7, &[7; 2], false),
            (usize::MAX, &[7; 2], false),
            (4, &[], false),
        ] {
            assert_eq!(config.write(offset, bytes), allowed, "{offset} {bytes:?}");
        }
        let mut all = [0xff; 10];
        config.read(0, &mut all);
        assert_eq!(all, [0, 1, 2, 3, 9, 8, 9, 9, 0, 0]);
        config.change(|bytes| bytes[0] = 5);
        assert_eq!(config.generation(), 1);
    }
}
