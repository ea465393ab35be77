//! The common configuration registers (virtio 1.2, 4.1.4.3) and the status machine (3.1.1).
//!
//! ```text
//!  0 ─ACKNOWLEDGE─▶ 1 ─DRIVER─▶ 3 ─FEATURES_OK─▶ b ─DRIVER_OK─▶ f      write of 0: back to 0
//!                                │                │
//!                   features may be written   queues may be set up
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | skip a step, clear a bit | the write changes nothing; reading the status back shows it |
//! | FEATURES_OK with features that we don't offer, or without VERSION_1 | the bit stays clear |
//! | write features after FEATURES_OK, queues before it or after DRIVER_OK | ignored |
//! | write an enabled queue's registers | ignored |
//! | select a queue or a feature word that isn't there | reads as zero, ignores writes |
//! | a size that is zero, no power of two, or too large | ignored |
//! | accesses of odd sizes, across registers, past the end | zeros; ignored |

use crate::virtio::{ConfigSpace, F_VERSION_1, Interrupt, Vectors};
use std::sync::Arc;

/// Status bits.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;
/// The steps in their order.
const STEPS: [u8; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];

/// Register offsets, with their names in the specification.
mod at {
    pub(super) const DEVICE_FEATURE_SELECT: u32 = 0x00;
    pub(super) const DEVICE_FEATURE: u32 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u32 = 0x08;
    pub(super) const DRIVER_FEATURE: u32 = 0x0c;
    pub(super) const CONFIG_MSIX_VECTOR: u32 = 0x10;
    pub(super) const NUM_QUEUES: u32 = 0x12;
    pub(super) const DEVICE_STATUS: u32 = 0x14;
    pub(super) const CONFIG_GENERATION: u32 = 0x15;
    pub(super) const QUEUE_SELECT: u32 = 0x16;
    pub(super) const QUEUE_SIZE: u32 = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: u32 = 0x1a;
    pub(super) const QUEUE_ENABLE: u32 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u32 = 0x1e;
    pub(super) const QUEUE_DESC: u32 = 0x20;
    pub(super) const QUEUE_DRIVER: u32 = 0x28;
    pub(super) const QUEUE_DEVICE: u32 = 0x30;
}
/// Bytes of the structure.
pub(super) const BYTES: u32 = 0x38;

/// A queue's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    pub(super) max_size: u16,
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// What a write asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The driver is ready: hand over the queues.
    Activate,
    /// The driver resets: take them back. The registers are reset already.
    Reset,
}

/// The registers of one device.
#[derive(Debug)]
pub(super) struct Registers {
    offered: u64,
    accepted: u64,
    device_select: u32,
    driver_select: u32,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
    vectors: Arc<Vectors>,
    interrupt: Arc<Interrupt>,
    config: ConfigSpace,
}

impl Registers {
    pub(super) fn new(
        offered: u64,
        sizes: &[u16],
        vectors: Arc<Vectors>,
        interrupt: Arc<Interrupt>,
        config: ConfigSpace,
    ) -> Self {
        Self {
            offered,
            accepted: 0,
            device_select: 0,
            driver_select: 0,
            status: 0,
            queue_select: 0,
            queues: sizes.iter().map(|max| QueueRegisters::new(*max)).collect(),
            vectors,
            interrupt,
            config,
        }
    }

    /// The agreed features.
    pub(super) fn features(&self) -> u64 {
        self.accepted
    }

    pub(super) fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    /// Reads a register.
    pub(super) fn read(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let Some((value, bytes)) = self.value(offset, data.len()) else { return };
        if bytes == data.len() {
            data.copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }

    /// A register's value and width. A 64-bit one may be read as two halves.
    fn value(&self, offset: u32, length: usize) -> Option<(u64, usize)> {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of_queue = |value: fn(&QueueRegisters) -> u64| queue.map_or(0, value);
        Some(match offset {
            at::DEVICE_FEATURE_SELECT => (self.device_select.into(), 4),
            at::DEVICE_FEATURE => (word(self.offered, self.device_select), 4),
            at::DRIVER_FEATURE_SELECT => (self.driver_select.into(), 4),
            at::DRIVER_FEATURE => (word(self.accepted, self.driver_select), 4),
            at::CONFIG_MSIX_VECTOR => (self.vectors.config().into(), 2),
            at::NUM_QUEUES => (self.queues.len() as u64, 2),
            at::DEVICE_STATUS => (self.status().into(), 1),
            at::CONFIG_GENERATION => (self.config.generation().into(), 1),
            at::QUEUE_SELECT => (self.queue_select.into(), 2),
            at::QUEUE_SIZE => (of_queue(|q| q.size.into()), 2),
            at::QUEUE_MSIX_VECTOR => (self.vectors.queue(self.queue_select.into()).into(), 2),
            at::QUEUE_ENABLE => (of_queue(|q| q.enabled.into()), 2),
            at::QUEUE_NOTIFY_OFF => (queue.map_or(0, |_| self.queue_select.into()), 2),
            at::QUEUE_DESC..BYTES if offset.is_multiple_of(4) => {
                let value = match offset & !7 {
                    at::QUEUE_DESC => of_queue(|q| q.desc),
                    at::QUEUE_DRIVER => of_queue(|q| q.driver),
                    at::QUEUE_DEVICE.. => of_queue(|q| q.device),
                    _ => return None,
                };
                match (offset & 4, length) {
                    (0, 8) => (value, 8),
                    (0, _) => (value & 0xffff_ffff, 4),
                    _ => (value >> 32, 4),
                }
            }
            _ => return None,
        })
    }

    /// Writes a register.
    pub(super) fn write(&mut self, offset: u32, data: &[u8]) -> Effect {
        match (offset, data) {
            (at::DEVICE_FEATURE_SELECT, &[a, b, c, d]) => {
                self.device_select = u32::from_le_bytes([a, b, c, d]);
            }
            (at::DRIVER_FEATURE_SELECT, &[a, b, c, d]) => {
                self.driver_select = u32::from_le_bytes([a, b, c, d]);
            }
            (at::DRIVER_FEATURE, &[a, b, c, d]) => {
                self.accept(u32::from_le_bytes([a, b, c, d]));
            }
            (at::CONFIG_MSIX_VECTOR, &[a, b]) => {
                self.vectors.set_config(u16::from_le_bytes([a, b]));
            }
            (at::QUEUE_MSIX_VECTOR, &[a, b]) => {
                self.vectors.set_queue(self.queue_select.into(), u16::from_le_bytes([a, b]));
            }
            (at::DEVICE_STATUS, &[status]) => return self.set_status(status),
            (at::QUEUE_SELECT, &[a, b]) => self.queue_select = u16::from_le_bytes([a, b]),
            (at::QUEUE_SIZE..BYTES, _) => self.write_queue(offset, data),
            _ => {}
        }
        Effect::None
    }

    fn accept(&mut self, bits: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        let shift = match self.driver_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(bits) << shift;
    }

    fn write_queue(&mut self, offset: u32, data: &[u8]) {
        if self.status & (FEATURES_OK | DRIVER_OK) != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if queue.enabled {
            return;
        }
        match (offset, data) {
            (at::QUEUE_SIZE, &[a, b]) => {
                let size = u16::from_le_bytes([a, b]);
                if size.is_power_of_two() && size <= queue.max_size {
                    queue.size = size;
                }
            }
            (at::QUEUE_ENABLE, &[1, 0]) => queue.enabled = true,
            (at::QUEUE_DESC..BYTES, _) if offset.is_multiple_of(4) => {
                let register = match offset & !7 {
                    at::QUEUE_DESC => &mut queue.desc,
                    at::QUEUE_DRIVER => &mut queue.driver,
                    _ => &mut queue.device,
                };
                let mut bytes = register.to_le_bytes();
                let start = (offset & 4) as usize;
                if matches!(data.len(), 4 | 8) && start + data.len() <= bytes.len() {
                    bytes[start..start + data.len()].copy_from_slice(data);
                    *register = u64::from_le_bytes(bytes);
                }
            }
            _ => {}
        }
    }

    fn status(&self) -> u8 {
        self.status | if self.interrupt.needs_reset() { NEEDS_RESET } else { 0 }
    }

    fn set_status(&mut self, status: u8) -> Effect {
        if status == 0 {
            self.reset();
            return Effect::Reset;
        }
        // The driver may write back NEEDS_RESET as it read it.
        let status = status & !NEEDS_RESET;
        if self.status & !status != 0 || self.status & FAILED != 0 {
            return Effect::None;
        }
        let was_ready = self.status & DRIVER_OK != 0;
        let had_features = self.status & FEATURES_OK != 0;
        for (index, step) in STEPS.iter().enumerate() {
            let before = STEPS[..index].iter().fold(0, |all, step| all | step);
            let allowed = match *step {
                FEATURES_OK => self.features_are_right(),
                DRIVER_OK => had_features,
                _ => true,
            };
            if status & step != 0 && self.status & before == before && allowed {
                self.status |= step;
            }
        }
        self.status |= status & FAILED;
        let is_ready = self.status & (DRIVER_OK | FAILED) == DRIVER_OK;
        if is_ready && !was_ready { Effect::Activate } else { Effect::None }
    }

    fn features_are_right(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & F_VERSION_1 != 0
    }

    fn reset(&mut self) {
        self.accepted = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.status = 0;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(|queue| *queue = QueueRegisters::new(queue.max_size));
    }
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size, enabled: false, desc: 0, driver: 0, device: 0 }
    }
}

fn word(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
