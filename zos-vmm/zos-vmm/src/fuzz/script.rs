//! Bytes as the acts of a guest that keeps some rules and breaks others.
//!
//! ```text
//!  a byte says what is done; the bytes behind it say where and with what
//!  small numbers fall on registers and rings, so that random bytes reach deep
//! ```

use crate::pci::Function;
use crate::virtio::driver::{BUFFERS, Buffer, Driver, MEMORY};
use vm_memory::{Bytes, GuestAddress};

/// Most acts of one script: an input is done in a blink.
const MOST: usize = 200;

/// A reader of the input that never ends: behind its end come zeros.
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    pub(super) fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// An address: mostly near buffers and rings, seldom anything.
    fn address(&mut self) -> u64 {
        match self.byte() % 8 {
            0 => self.long(),
            1 => MEMORY as u64 - u64::from(self.byte()),
            2 => u64::from(self.word()) << 4,
            _ => BUFFERS + u64::from(self.word()) * 4,
        }
    }

    fn length(&mut self) -> u32 {
        match self.byte() {
            0 => u32::MAX - u32::from(self.byte()),
            1 => u32::from(self.word()) << 8,
            2..=99 => u32::from(self.byte()) * 512,
            100..=199 => 16,
            _ => u32::from(self.byte()),
        }
    }

    /// Lets the device feel the script.
    pub(super) fn play(&mut self, driver: &mut Driver) {
        let queues = driver.queues.len();
        for _ in 0..MOST {
            if self.is_over() {
                return;
            }
            let kind = self.byte() % 16;
            match kind {
                0 => {
                    let at = u32::from(self.word()) % 0x8000;
                    let data = self.take(8);
                    driver.function.bar_write(at, data);
                }
                1 => {
                    let at = u32::from(self.byte()) % 0x40;
                    let width = [1, 2, 4, 8][usize::from(self.byte() % 4)];
                    let data = self.take(width);
                    driver.function.bar_write(at, data);
                }
                2 => {
                    let at = u32::from(self.word()) % 0x8000;
                    let mut data = [0; 8];
                    driver.function.bar_read(at, &mut data[..usize::from(self.byte() % 8) + 1]);
                }
                3 => {
                    let at = usize::from(self.word()) % 0x1000;
                    let data = self.take(4);
                    driver.function.config_write(at, data);
                }
                4 => {
                    let at = usize::from(self.word()) % 0x1000;
                    let mut data = [0; 4];
                    driver.function.config_read(at, &mut data);
                }
                5 => {
                    let at = self.address();
                    let count = self.byte().into();
                    // Outside of memory a guest hits nothing.
                    let _ = driver.memory.write_slice(self.take(count), GuestAddress(at));
                }
                6 if driver.status() == 0 => {
                    let features = self.long();
                    driver.try_start(features);
                }
                7 => driver.reset(),
                8 => {
                    let queue = usize::from(self.byte()) % queues;
                    let head = self.word();
                    driver.queues[queue].offer_head(head);
                }
                9 => {
                    let queue = usize::from(self.byte()) % queues;
                    let index = self.word();
                    driver.queues[queue].set_available(index);
                }
                10 => {
                    let (queue, at) = (usize::from(self.byte()) % queues, self.word());
                    let buffer = (self.address(), self.length(), self.byte() & 1 == 1);
                    let next = (self.byte() & 1 == 1).then(|| self.word());
                    driver.queues[queue].describe(at % 256, buffer, next);
                }
                _ => {
                    let queue = usize::from(self.byte()) % queues;
                    let count = usize::from(self.byte() % 5);
                    let buffers: Vec<Buffer> = (0..count)
                        .map(|_| (self.address(), self.length(), self.byte() & 1 == 1))
                        .collect();
                    if count > 0 {
                        driver.queues[queue].offer(&buffers);
                    }
                    driver.kick(u32::try_from(queue).unwrap_or(0));
                }
            }
        }
    }
}
