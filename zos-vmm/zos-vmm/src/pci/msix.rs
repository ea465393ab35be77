//! MSI-X (PCI Local Bus 3.0, section 6.8.2): a table of messages, and the bits of those that wait.
//!
//! ```text
//!  worker ── raise(vector) ──▶ masked? ── yes ─▶ pending bit ── unmasked ─┐
//!                                 └── no ──────────────────────────────────┴─▶ MsiSink
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a vector past the table | `raise` ignores it; the transport stores "none" |
//! | table accesses past its end, odd sizes | zeros; nothing |
//! | write the pending bits | read-only |
//! | an address that is no APIC's | KVM refuses the message; it is lost, as on metal |

use std::sync::{Arc, Mutex, PoisonError};

/// A vector register that points nowhere (virtio 1.2, 4.1.5.1.2).
pub const VECTOR_NONE: u16 = 0xffff;
/// Bytes of the capability with its header.
pub const CAPABILITY_BYTES: usize = 12;

const ENTRY_BYTES: usize = 16;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;
const VECTOR_MASKED: u32 = 1;

/// Where messages go: KVM, or a list in tests.
pub trait MsiSink: Send + Sync {
    /// Delivers one message.
    fn send(&self, address: u64, data: u32);
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    pending: Vec<bool>,
    control: u16,
}

/// The table, shared by the function (guest side) and the device's worker (device side).
pub struct Msix {
    state: Mutex<State>,
    sink: Arc<dyn MsiSink>,
}

impl Msix {
    /// A table of this many vectors, all masked, the whole disabled.
    #[must_use]
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        let count = usize::from(vectors);
        let masked = Entry { address: 0, data: 0, control: VECTOR_MASKED };
        let state = State { entries: vec![masked; count], pending: vec![false; count], control: 0 };
        Self { state: Mutex::new(state), sink }
    }

    /// The capability's bytes behind id and link, and their mask.
    #[must_use]
    pub fn capability(vectors: u16, table: u32, pending: u32) -> ([u8; 10], [u8; 10]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(vectors.saturating_sub(1) & 0x7ff).to_le_bytes());
        body[2..6].copy_from_slice(&table.to_le_bytes());
        body[6..].copy_from_slice(&pending.to_le_bytes());
        let mut writable = [0; 10];
        writable[..2].copy_from_slice(&(CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes());
        (body, writable)
    }

    /// The device has something for this vector.
    pub fn raise(&self, vector: u16) {
        let mut state = self.lock();
        let index = usize::from(vector);
        let Some(entry) = state.entries.get(index).copied() else { return };
        if state.control & CONTROL_ENABLE == 0 {
            return;
        }
        if state.masks(entry) {
            state.pending[index] = true;
        } else {
            self.sink.send(entry.address, entry.data);
        }
    }

    /// Whether the driver switched MSI-X on.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.lock().control & CONTROL_ENABLE != 0
    }

    /// The driver wrote the capability's control word.
    pub fn set_control(&self, control: u16) {
        let mut state = self.lock();
        state.control = control & (CONTROL_ENABLE | CONTROL_MASK_ALL);
        self.deliver(&mut state);
    }

    /// The driver reads the table.
    pub fn read_table(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let state = self.lock();
        let Some(entry) = state.entries.get(offset / ENTRY_BYTES) else { return };
        let bytes = entry.bytes();
        let at = offset % ENTRY_BYTES;
        if let Some(source) = bytes.get(at..at + data.len()) {
            data.copy_from_slice(source);
        }
    }

    /// The driver writes the table: aligned words of 4 or 8 bytes, as the specification allows.
    pub fn write_table(&self, offset: usize, data: &[u8]) {
        if !(data.len() == 4 || data.len() == 8) || !offset.is_multiple_of(data.len()) {
            return;
        }
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(offset / ENTRY_BYTES) else { return };
        let mut bytes = entry.bytes();
        let at = offset % ENTRY_BYTES;
        bytes[at..at + data.len()].copy_from_slice(data);
        *entry = Entry::from_bytes(bytes);
        self.deliver(&mut state);
    }

    /// The driver reads the pending bits.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        let state = self.lock();
        for (at, byte) in (offset..).zip(data) {
            let bits = state.pending.iter().skip(at.saturating_mul(8)).take(8);
            *byte = bits.enumerate().fold(0, |byte, (bit, set)| byte | u8::from(*set) << bit);
        }
    }

    /// Sends what waited for a vector that is open now.
    fn deliver(&self, state: &mut State) {
        if state.control & CONTROL_ENABLE == 0 {
            return;
        }
        for index in 0..state.entries.len() {
            let entry = state.entries[index];
            if state.pending[index] && !state.masks(entry) {
                state.pending[index] = false;
                self.sink.send(entry.address, entry.data);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Msix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Msix").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    fn masks(&self, entry: Entry) -> bool {
        self.control & CONTROL_MASK_ALL != 0 || entry.control & VECTOR_MASKED != 0
    }
}

impl Entry {
    fn bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.data.to_le_bytes());
        bytes[12..].copy_from_slice(&self.control.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        let word = |shift: u32| u32::try_from(whole >> shift & 0xffff_ffff).unwrap_or_default();
        Self {
            address: u64::from(word(32)) << 32 | u64::from(word(0)),
            data: word(64),
            control: word(96) & VECTOR_MASKED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct List(Mutex<Vec<(u64, u32)>>);

    impl MsiSink for List {
        fn send(&self, address: u64, data: u32) {
            self.0.lock().unwrap().push((address, data));
        }
    }

    fn open(msix: &Msix, vector: u8) {
        let at = usize::from(vector) * 16;
        msix.write_table(at, &0xfee0_0000u64.to_le_bytes());
        msix.write_table(at + 8, &u32::from(vector).to_le_bytes());
        msix.write_table(at + 12, &0u32.to_le_bytes());
    }

    #[test]
    fn a_masked_vector_waits_and_is_sent_once() {
        let list = Arc::new(List::default());
        let msix = Msix::new(2, list.clone());
        open(&msix, 1);
        msix.raise(1);
        assert!(list.0.lock().unwrap().is_empty(), "disabled");
        msix.set_control(CONTROL_ENABLE | CONTROL_MASK_ALL);
        msix.raise(1);
        msix.raise(1);
        msix.raise(0);
        msix.raise(2);
        let mut bits = [0xff; 2];
        msix.read_pending(0, &mut bits);
        assert_eq!(bits, [3, 0]);
        msix.set_control(CONTROL_ENABLE);
        assert_eq!(*list.0.lock().unwrap(), [(0xfee0_0000, 1)]);
        open(&msix, 0);
        assert_eq!(*list.0.lock().unwrap(), [(0xfee0_0000, 1), (0xfee0_0000, 0)]);
    }

    proptest! {
        /// No access panics, and nothing is ever sent while the whole is disabled.
        #[test]
        fn any_access(
            accesses in prop::collection::vec(
                (0usize..4, 0usize..5000, prop::collection::vec(any::<u8>(), 0..9), any::<u16>()),
                0..64),
        ) {
            let list = Arc::new(List::default());
            let msix = Msix::new(3, list.clone());
            for (kind, offset, data, word) in accesses {
                let mut back = data.clone();
                match kind {
                    0 => msix.write_table(offset, &data),
                    1 => msix.read_table(offset, &mut back),
                    2 => msix.read_pending(offset, &mut back),
                    _ => msix.raise(word),
                }
            }
            prop_assert!(list.0.lock().unwrap().is_empty());
        }
    }
}
