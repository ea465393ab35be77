//! The serial port: ARM PrimeCell UART PL011 (Technical Reference Manual, ARM DDI 0183, chapter 3).
//!
//! ```text
//!  driver ── DR ──▶ out (at once: the transmit FIFO is always empty)
//!  driver ◀─ DR ─── FIFO of 32 ◀── input      raw interrupt & mask, 0 to 1 ──▶ an edge on the line
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a register that isn't there, any width | zero; nothing |
//! | write while the port is off, any baud rate, loop back | the byte goes out: there is no wire |
//! | leave input unread | the FIFO has 32 places; the console keeps the rest |

use std::collections::VecDeque;
use std::io::Write;

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const ID: u64 = 0xfe0;
/// Part number 011 of ARM, revision r1p5: its FIFOs have 32 places. Then the PrimeCell's mark.
const IDS: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

const FLAG_RECEIVE_EMPTY: u32 = 1 << 4;
const FLAG_RECEIVE_FULL: u32 = 1 << 6;
const FLAG_TRANSMIT_EMPTY: u32 = 1 << 7;
const RECEIVE: u32 = 1 << 4;
const TRANSMIT: u32 = 1 << 5;
const RECEIVE_TIMEOUT: u32 = 1 << 6;
const INTERRUPTS: u32 = 0x7ff;
const FIFO: usize = 32;
/// As the hardware comes up: both directions on; FIFOs half full raise an interrupt.
const CR_RESET: u32 = 0x300;
const IFLS_RESET: u32 = 0x12;

/// A serial port that writes to `W` and calls `interrupt` for each edge.
#[derive(Debug)]
pub(super) struct Pl011<W, I> {
    out: W,
    interrupt: I,
    received: VecDeque<u8>,
    transmitted: bool,
    mask: u32,
    settings: Settings,
}

/// Registers that only keep what was written.
#[derive(Clone, Copy, Debug)]
struct Settings {
    low_power: u32,
    baud: u32,
    fraction: u32,
    line: u32,
    control: u32,
    levels: u32,
}

impl<W: Write, I: Fn()> Pl011<W, I> {
    pub(super) fn new(out: W, interrupt: I) -> Self {
        let settings = Settings {
            low_power: 0,
            baud: 0,
            fraction: 0,
            line: 0,
            control: CR_RESET,
            levels: IFLS_RESET,
        };
        let received = VecDeque::with_capacity(FIFO);
        Self { out, interrupt, received, transmitted: false, mask: 0, settings }
    }

    /// Bytes for the guest, as many as there is room for; tells how many were taken.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = (FIFO - self.received.len()).min(bytes.len());
        self.received.extend(&bytes[..room]);
        // A new byte is a new edge even when the guest left older ones: its handler may just end.
        if room > 0 && self.raised() & self.mask != 0 {
            (self.interrupt)();
        }
        room
    }

    /// Whether no input waits for the guest.
    pub(super) fn has_read_all(&self) -> bool {
        self.received.is_empty()
    }

    pub(super) fn read(&mut self, offset: u64) -> u32 {
        match offset {
            DR => self.received.pop_front().map_or(0, u32::from),
            FR => self.flags(),
            ILPR => self.settings.low_power,
            IBRD => self.settings.baud,
            FBRD => self.settings.fraction,
            LCR_H => self.settings.line,
            CR => self.settings.control,
            IFLS => self.settings.levels,
            IMSC => self.mask,
            RIS => self.raised(),
            MIS => self.raised() & self.mask,
            ID.. => super::identification(&IDS, offset - ID),
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        let before = self.raised() & self.mask;
        match offset {
            DR => {
                // A console that takes no more bytes loses them; the guest goes on.
                let _ = self.out.write(&[(value & 0xff) as u8]);
                self.transmitted = true;
            }
            ILPR => self.settings.low_power = value & 0xff,
            IBRD => self.settings.baud = value & 0xffff,
            FBRD => self.settings.fraction = value & 0x3f,
            LCR_H => self.settings.line = value & 0xff,
            CR => self.settings.control = value & 0xffff,
            IFLS => self.settings.levels = value & 0x3f,
            IMSC => self.mask = value & INTERRUPTS,
            ICR => self.transmitted &= value & TRANSMIT == 0,
            _ => {}
        }
        if before == 0 && self.raised() & self.mask != 0 {
            (self.interrupt)();
        }
    }

    fn flags(&self) -> u32 {
        match self.received.len() {
            0 => FLAG_TRANSMIT_EMPTY | FLAG_RECEIVE_EMPTY,
            FIFO => FLAG_TRANSMIT_EMPTY | FLAG_RECEIVE_FULL,
            _ => FLAG_TRANSMIT_EMPTY,
        }
    }

    /// Raw interrupts. Received bytes raise theirs for as long as they wait.
    fn raised(&self) -> u32 {
        let received = if self.received.is_empty() { 0 } else { RECEIVE | RECEIVE_TIMEOUT };
        received | if self.transmitted { TRANSMIT } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    #[test]
    fn bytes_go_out_and_each_raises_one_edge() {
        let edges = Cell::new(0);
        let mut port = Pl011::new(Vec::new(), || edges.set(edges.get() + 1));
        port.write(DR, u32::from(b'a'));
        assert_eq!((port.read(RIS), port.read(MIS), edges.get()), (TRANSMIT, 0, 0));
        port.write(IMSC, TRANSMIT);
        assert_eq!((port.read(MIS), edges.get()), (TRANSMIT, 1));
        port.write(ICR, TRANSMIT);
        port.write(DR, u32::from(b'b'));
        assert_eq!((port.out.as_slice(), edges.get()), (&b"ab"[..], 2));
        assert_eq!(port.read(FR), FLAG_TRANSMIT_EMPTY | FLAG_RECEIVE_EMPTY);
    }

    #[test]
    fn input_waits_until_it_is_read() {
        let edges = Cell::new(0);
        let mut port = Pl011::new(std::io::sink(), || edges.set(edges.get() + 1));
        port.write(IMSC, RECEIVE);
        assert_eq!((port.receive(b"xy"), edges.get()), (2, 1));
        // Clearing takes nothing away while bytes are there.
        port.write(ICR, INTERRUPTS);
        assert_eq!(port.read(MIS), RECEIVE);
        assert_eq!((port.read(DR), port.read(DR)), (u32::from(b'x'), u32::from(b'y')));
        assert_eq!((port.read(MIS), port.read(DR)), (0, 0));
        assert_eq!((port.receive(&[7; 100]), port.read(FR) & FLAG_RECEIVE_FULL != 0), (32, true));
        assert_eq!(port.receive(b"z"), 0);
    }

    /// Linux takes a driver by these (`amba_id` 0x00041011, mask 0x000fffff).
    #[test]
    fn it_says_who_it_is() {
        let mut port = Pl011::new(std::io::sink(), || {});
        let id = (0..4).fold(0, |id, byte| id | port.read(0xfe0 + 4 * byte) << (8 * byte));
        assert_eq!(id & 0x000f_ffff, 0x0004_1011);
        let cell = (0..4).fold(0, |id, byte| id | port.read(0xff0 + 4 * byte) << (8 * byte));
        assert_eq!(cell, 0xb105_f00d);
    }

    proptest! {
        #[test]
        fn any_access(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..0x1000, any::<u32>(), 0usize..40), 0..64,
        )) {
            let mut port = Pl011::new(std::io::sink(), || {});
            for (write, offset, value, input) in accesses {
                if write { port.write(offset, value) } else { port.read(offset); }
                port.receive(&vec![1; input]);
                prop_assert!(port.received.len() <= FIFO);
            }
        }
    }
}
