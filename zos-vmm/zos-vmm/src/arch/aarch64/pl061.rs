//! Eight lines of input: ARM PrimeCell GPIO PL061 (ARM DDI 0190, chapter 3). Line 3 is the button.
//!
//! ```text
//!  press ─▶ line high, interrupt ─▶ the driver reads the lines ─▶ line low, interrupt
//! ```
//!
//! A press lasts until the guest has seen it, so that no guest is too slow for it.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | drive a line, by direction or data | kept, read back; the button's line is an input |
//! | a register that isn't there | zero; nothing |

/// The button's line.
pub(super) const BUTTON: u32 = 3;
const PRESSED: u8 = 1 << BUTTON;

/// Data registers: address bits 9..2 say which lines are meant.
const DATA_LAST: u64 = 0x3fc;
const DIRECTION: u64 = 0x400;
const SENSE: u64 = 0x404;
const BOTH_EDGES: u64 = 0x408;
const EVENT: u64 = 0x40c;
const MASK: u64 = 0x410;
const RAW: u64 = 0x414;
const MASKED: u64 = 0x418;
const CLEAR: u64 = 0x41c;
const ALTERNATIVE: u64 = 0x420;
const ID: u64 = 0xfe0;
const IDS: [u8; 8] = [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The lines; `interrupt` is called for each edge of the interrupt.
#[derive(Debug)]
pub(super) struct Pl061<I> {
    interrupt: I,
    button: bool,
    driven: u8,
    direction: u8,
    level_sensed: u8,
    both_edges: u8,
    high_or_rising: u8,
    mask: u8,
    raised: u8,
    alternative: u8,
}

impl<I: Fn()> Pl061<I> {
    pub(super) fn new(interrupt: I) -> Self {
        Self {
            interrupt,
            button: false,
            driven: 0,
            direction: 0,
            level_sensed: 0,
            both_edges: 0,
            high_or_rising: 0,
            mask: 0,
            raised: 0,
            alternative: 0,
        }
    }

    /// Presses the button. One that is still down is pressed already.
    pub(super) fn press(&mut self) {
        self.set_button(true);
    }

    pub(super) fn read(&mut self, offset: u64) -> u32 {
        let value = match offset {
            0..=DATA_LAST => {
                let lines = (offset >> 2 & 0xff) as u8;
                let value = self.lines() & lines;
                if value & PRESSED != 0 {
                    self.set_button(false);
                }
                value
            }
            DIRECTION => self.direction,
            SENSE => self.level_sensed,
            BOTH_EDGES => self.both_edges,
            EVENT => self.high_or_rising,
            MASK => self.mask,
            RAW => self.raised(),
            MASKED => self.raised() & self.mask,
            ALTERNATIVE => self.alternative,
            ID.. => return super::identification(&IDS, offset - ID),
            _ => 0,
        };
        value.into()
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        let before = self.raised() & self.mask;
        let value = (value & 0xff) as u8;
        match offset {
            0..=DATA_LAST => {
                let lines = (offset >> 2 & 0xff) as u8 & self.direction;
                self.driven = self.driven & !lines | value & lines;
            }
            DIRECTION => self.direction = value & !PRESSED,
            SENSE => self.level_sensed = value,
            BOTH_EDGES => self.both_edges = value,
            EVENT => self.high_or_rising = value,
            MASK => self.mask = value,
            CLEAR => self.raised &= !value,
            ALTERNATIVE => self.alternative = value,
            _ => {}
        }
        self.signal_if_raised_since(before);
    }

    fn lines(&self) -> u8 {
        self.driven & self.direction | if self.button { PRESSED } else { 0 }
    }

    fn set_button(&mut self, down: bool) {
        let before = self.raised() & self.mask;
        let seen = self.both_edges | if down { self.high_or_rising } else { !self.high_or_rising };
        if self.button != down && seen & !self.level_sensed & PRESSED != 0 {
            self.raised |= PRESSED;
        }
        self.button = down;
        self.signal_if_raised_since(before);
    }

    /// Raw interrupts: edges that were seen, and levels as they are.
    fn raised(&self) -> u8 {
        let level = !(self.lines() ^ self.high_or_rising) & self.level_sensed;
        self.raised & !self.level_sensed | level
    }

    fn signal_if_raised_since(&self, before: u8) {
        if self.raised() & self.mask & !before != 0 {
            (self.interrupt)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// What Linux' gpio-keys does: both edges of line 3, clear, read the line.
    #[test]
    fn a_press_is_seen_and_then_let_go() {
        let edges = Cell::new(0);
        let mut lines = Pl061::new(|| edges.set(edges.get() + 1));
        let line = 0x20; // data register of line 3 alone: 1 << (3 + 2)
        lines.write(BOTH_EDGES, 8);
        lines.write(MASK, 8);
        assert_eq!((lines.read(line), edges.get()), (0, 0));
        lines.press();
        lines.press();
        assert_eq!((edges.get(), lines.read(MASKED)), (1, 8));
        lines.write(CLEAR, 8);
        assert_eq!((lines.read(0x3fc & !line), lines.read(line)), (0, 8));
        assert_eq!((edges.get(), lines.read(RAW)), (2, 8));
        lines.write(CLEAR, 8);
        assert_eq!((lines.read(line), lines.read(RAW), edges.get()), (0, 0, 2));
    }

    #[test]
    fn it_says_who_it_is() {
        let mut lines = Pl061::new(|| {});
        let id = (0..4).fold(0, |id, byte| id | lines.read(0xfe0 + 4 * byte) << (8 * byte));
        assert_eq!(id & 0x000f_ffff, 0x0004_1061);
    }

    proptest! {
        #[test]
        fn any_access(accesses in prop::collection::vec(
            (0u8..3, 0u64..0x1000, any::<u32>()), 0..64,
        )) {
            let mut lines = Pl061::new(|| {});
            for (kind, offset, value) in accesses {
                match kind {
                    0 => lines.write(offset, value),
                    1 => { lines.read(offset); }
                    _ => lines.press(),
                }
                prop_assert_eq!(lines.direction & PRESSED, 0);
            }
        }
    }
}
