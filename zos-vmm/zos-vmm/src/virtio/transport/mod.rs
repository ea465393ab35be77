//! A virtio device as a PCI function (virtio 1.2, 4.1).
//!
//! ```text
//!  BAR 0, 32 KiB:  0000 common   1000 ISR   2000 device   3000 notify (4 bytes a queue)
//!                  4000 MSI-X table         5000 MSI-X pending bits
//! ```
//!
//! A kick is an ioeventfd: KVM writes the queue's eventfd without an exit to us. It is registered
//! when the driver is ready, and again when the BAR has moved since.

mod registers;

use super::{Activation, ActiveQueue, Backend, Desk, Interrupt, Profile, Vectors, Worker};
use crate::event::Event;
use crate::memory::GuestMemory;
use crate::pci::{Function, Identity, MSIX_CAPABILITY_BYTES, MsiSink, Msix, PciConfig};
use registers::{Effect, QueueRegisters, Registers};
use std::ops::Range;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};

/// Size of BAR 0.
pub const BAR_BYTES: u32 = 0x8000;
const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const TABLE: u32 = 0x4000;
const PENDING: u32 = 0x5000;
const AREA: u32 = 0x1000;
const NOTIFY_MULTIPLIER: u32 = 4;

const VENDOR: u16 = 0x1af4;
const DEVICE_BASE: u16 = 0x1040;
const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
/// `cfg_type` of the capabilities (4.1.4).
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Where kicks are registered: KVM, or nowhere in tests.
pub trait IoEvents: Send + Sync {
    /// A guest's write to this address shall write the eventfd.
    fn register(&self, address: u64, event: &Event);
    /// No longer.
    fn unregister(&self, address: u64, event: &Event);
}

/// A virtio device on the PCI bus.
pub struct VirtioPci {
    config: PciConfig,
    window_at: usize,
    msix_at: usize,
    profile: Profile,
    registers: Registers,
    interrupt: Arc<Interrupt>,
    msix: Arc<Msix>,
    kicks: Vec<Arc<Event>>,
    parts: Vec<Seated>,
    memory: GuestMemory,
    io_events: Arc<dyn IoEvents>,
    // Where the kicks are registered, while they are.
    kicked_at: Option<u32>,
}

/// A part of a device: which of its queues are worked on together, by what, in which thread. The
/// parts of a device have all its queues, in their order.
pub struct Part<'a> {
    /// How many queues, behind those of the part before.
    pub queues: usize,
    /// What works on them.
    pub backend: Box<dyn Backend>,
    /// Where.
    pub worker: &'a mut Worker,
}

struct Seated {
    queues: Range<usize>,
    desk: Desk,
}

/// Why a device can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No descriptor for its kicks.
    #[error("make the event descriptors of device {name}")]
    Events {
        /// The device.
        name: String,
        /// Cause.
        source: std::io::Error,
    },
}

/// What a device's function needs of the machine.
pub struct Surroundings<'a> {
    /// The guest's memory.
    pub memory: &'a GuestMemory,
    /// Where its messages go.
    pub messages: Arc<dyn MsiSink>,
    /// Where its kicks come from.
    pub io_events: Arc<dyn IoEvents>,
    /// Its BAR's first address.
    pub bar: u32,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("bar", &self.bar).finish_non_exhaustive()
    }
}

impl VirtioPci {
    /// Makes the function, and seats its parts.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(
        name: &str,
        profile: Profile,
        parts: Vec<Part<'_>>,
        around: Surroundings<'_>,
    ) -> Result<Self, DeviceError> {
        let vectors = Arc::new(Vectors::new(profile.queues.len()));
        let msix = Arc::new(Msix::new(vectors.count(), around.messages));
        let interrupt = Arc::new(Interrupt::new(msix.clone(), vectors.clone()));
        profile.config.bind(interrupt.clone());
        let event = || Event::new().map(Arc::new);
        let kicks = profile.queues.iter().map(|_| event()).collect::<Result<Vec<_>, _>>();
        let kicks =
            kicks.map_err(|source| DeviceError::Events { name: name.to_owned(), source })?;
        let mut first = 0;
        let seat = |Part { queues, backend, worker }: Part<'_>| {
            let queues = first..kicks.len().min(first + queues);
            first = queues.end;
            let desk = worker.seat(backend, kicks[queues.clone()].to_vec());
            Seated { queues, desk }
        };
        let parts = parts.into_iter().map(seat).collect();
        let (config, msix_at, window_at) = config_space(&profile, &vectors, around.bar);
        let registers = Registers::new(
            profile.features,
            &profile.queues,
            vectors,
            interrupt.clone(),
            profile.config.clone(),
        );
        Ok(Self {
            parts,
            memory: around.memory.clone(),
            io_events: around.io_events,
            kicked_at: None,
            config,
            window_at,
            msix_at,
            profile,
            registers,
            interrupt,
            msix,
            kicks,
        })
    }

    /// Hands each part its queues. The driver may leave queues alone that it doesn't need, but not
    /// all; one that it enabled has to lie in memory.
    fn activate(&mut self) {
        self.register_kicks();
        let features = self.registers.features();
        let queues: Option<Vec<Option<ActiveQueue>>> = self
            .registers
            .queues()
            .iter()
            .enumerate()
            .map(|(index, queue)| match queue.enabled {
                false => Some(None),
                true => Some(Some(ActiveQueue::new(index, self.queue(queue, features)?))),
            })
            .collect();
        let usable = |queues: &Vec<Option<ActiveQueue>>| queues.iter().any(Option::is_some);
        let Some(mut queues) = queues.filter(usable) else { return self.interrupt.need_reset() };
        for Seated { queues: range, desk } in &mut self.parts {
            let queues: Vec<_> = queues[range.clone()].iter_mut().map(Option::take).collect();
            // A part without a queue has nothing to do.
            if queues.iter().any(Option::is_some) {
                desk.start(Activation {
                    memory: self.memory.clone(),
                    queues,
                    features,
                    interrupt: self.interrupt.clone(),
                    kicks: self.kicks[range.clone()].to_vec(),
                });
            }
        }
    }

    fn stop(&mut self) {
        self.parts.iter_mut().for_each(|part| part.desk.stop());
    }

    /// The queue of these registers, if its rings are in memory.
    fn queue(&self, registers: &QueueRegisters, features: u64) -> Option<Queue> {
        let half = |value: u64| {
            let word = |shift: u32| u32::try_from(value >> shift & 0xffff_ffff).ok();
            (word(0), word(32))
        };
        let mut queue = Queue::new(registers.max_size).ok()?;
        queue.set_size(registers.size);
        let (low, high) = half(registers.desc);
        queue.set_desc_table_address(low, high);
        let (low, high) = half(registers.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = half(registers.device);
        queue.set_used_ring_address(low, high);
        // The setters ignore a misaligned address: what they took must be what was asked.
        let taken = (queue.desc_table(), queue.avail_ring(), queue.used_ring());
        let asked = (registers.desc, registers.driver, registers.device);
        queue.set_event_idx(features & super::F_EVENT_IDX != 0);
        queue.set_ready(registers.enabled);
        (taken == asked && queue.is_valid(&self.memory)).then_some(queue)
    }

    fn register_kicks(&mut self) {
        let Some(bar) = self.config.bar0() else { return };
        if self.kicked_at == Some(bar) {
            return;
        }
        self.unregister_kicks();
        for (address, kick) in notify_addresses(bar).zip(&self.kicks) {
            self.io_events.register(address, kick);
        }
        self.kicked_at = Some(bar);
    }

    fn unregister_kicks(&mut self) {
        if let Some(bar) = self.kicked_at.take() {
            for (address, kick) in notify_addresses(bar).zip(&self.kicks) {
                self.io_events.unregister(address, kick);
            }
        }
    }

    /// The window capability's BAR offset and length, if it names BAR 0 and a width that exists.
    fn window(&self) -> Option<(u32, usize)> {
        let mut bytes = [0; 16];
        self.config.read(self.window_at, &mut bytes);
        let offset = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let length = usize::try_from(length).ok().filter(|n| matches!(n, 1 | 2 | 4))?;
        (bytes[4] == 0 && offset < BAR_BYTES).then_some((offset, length))
    }
}

impl Function for VirtioPci {
    fn config_read(&mut self, offset: usize, data: &mut [u8]) {
        // The window's data: a read there is a read in the BAR (4.1.4.9).
        if offset == self.window_at + 16
            && let Some((at, length)) = self.window()
            && length <= data.len()
        {
            data.fill(0);
            self.bar_read(at, &mut data[..length]);
            return;
        }
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        if offset == self.window_at + 16 {
            if let Some((at, length)) = self.window()
                && length <= data.len()
            {
                self.bar_write(at, &data[..length]);
            }
            return;
        }
        self.config.write(offset, data);
        if (self.msix_at..self.msix_at + MSIX_CAPABILITY_BYTES).contains(&offset) {
            let mut control = [0; 2];
            self.config.read(self.msix_at + 2, &mut control);
            self.msix.set_control(u16::from_le_bytes(control));
        }
        if self.kicked_at.is_some() && self.config.bar0().is_some() {
            self.register_kicks();
        }
    }

    fn bar(&self) -> Option<u32> {
        self.config.bar0()
    }

    fn bar_read(&mut self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let at = offset % AREA;
        let index = at as usize;
        match offset - at {
            COMMON => self.registers.read(at, data),
            ISR => {
                if let (0, [byte, ..]) = (at, data) {
                    *byte = self.interrupt.take_isr();
                }
            }
            DEVICE => self.profile.config.read(index, data),
            TABLE => self.msix.read_table(index, data),
            PENDING => self.msix.read_pending(index, data),
            _ => {}
        }
    }

    fn bar_write(&mut self, offset: u32, data: &[u8]) {
        let at = offset % AREA;
        match offset - at {
            COMMON => match self.registers.write(at, data) {
                Effect::None => {}
                Effect::Activate => self.activate(),
                Effect::Reset => {
                    self.stop();
                    self.interrupt.reset();
                }
            },
            // Only until the ioeventfd is there, or when the BAR is being moved.
            NOTIFY => {
                if let Some(kick) = self.kicks.get((at / NOTIFY_MULTIPLIER) as usize) {
                    kick.signal();
                }
            }
            DEVICE => {
                self.profile.config.write(at as usize, data);
            }
            TABLE => self.msix.write_table(at as usize, data),
            // ISR and pending bits are read-only.
            _ => {}
        }
    }

    fn quiesce(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for VirtioPci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioPci").field("profile", &self.profile).finish_non_exhaustive()
    }
}

fn notify_addresses(bar: u32) -> impl Iterator<Item = u64> {
    (0..).map(move |queue: u64| u64::from(bar + NOTIFY) + queue * u64::from(NOTIFY_MULTIPLIER))
}

/// The configuration space, with the places of the MSI-X and the window capability.
fn config_space(profile: &Profile, vectors: &Vectors, bar: u32) -> (PciConfig, usize, usize) {
    let identity = Identity {
        vendor: VENDOR,
        device: DEVICE_BASE + profile.kind,
        class: profile.class,
        revision: 1,
        subsystem: DEVICE_BASE + profile.kind,
    };
    let mut config = PciConfig::new(identity);
    config.set_bar0(bar, BAR_BYTES);
    let (body, writable) = Msix::capability(vectors.count(), TABLE, PENDING);
    let msix_at = config.add_capability(CAP_MSIX, &body, &writable);
    let queues = u32::try_from(profile.queues.len()).unwrap_or(0);
    let notify_bytes = queues * NOTIFY_MULTIPLIER;
    let device_bytes = u32::try_from(profile.config.length()).unwrap_or(0);
    add_structure(&mut config, CFG_COMMON, COMMON, registers::BYTES, &[], false);
    add_structure(&mut config, CFG_ISR, ISR, 1, &[], false);
    if device_bytes > 0 {
        add_structure(&mut config, CFG_DEVICE, DEVICE, device_bytes, &[], false);
    }
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    add_structure(&mut config, CFG_NOTIFY, NOTIFY, notify_bytes, &multiplier, false);
    let window_at = add_structure(&mut config, CFG_PCI, 0, 0, &[0; 4], true);
    // 12 + 4 * 16 + 2 * 4 bytes of capabilities always fit behind 0x40.
    (config, msix_at.unwrap_or(0), window_at.unwrap_or(0))
}

/// `struct virtio_pci_cap`: length, type, BAR, id, padding, offset, length; then what is its own.
fn add_structure(
    config: &mut PciConfig,
    kind: u8,
    offset: u32,
    bytes: u32,
    more: &[u8],
    is_window: bool,
) -> Option<usize> {
    let mut body = vec![u8::try_from(16 + more.len()).unwrap_or(16), kind, 0, 0, 0, 0];
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&bytes.to_le_bytes());
    body.extend_from_slice(more);
    let mut writable = vec![0; body.len()];
    if is_window {
        // BAR, offset and length are the driver's to set.
        writable[2] = 0xff;
        writable[6..14].fill(0xff);
    }
    config.add_capability(CAP_VENDOR, &body, &writable)
}

#[cfg(test)]
mod tests;
