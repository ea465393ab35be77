//! Bus 0: who sits in which slot, and who answers at which address.

use super::config::{Identity, PciConfig};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Device numbers of a bus; 0 is the host bridge.
pub const SLOTS: usize = 32;
/// Base address of a function whose memory isn't decoded.
const NOWHERE: u32 = u32::MAX;

/// One function: what the bus asks of it.
pub trait Function: Send {
    /// The guest reads its configuration space.
    fn config_read(&mut self, offset: usize, data: &mut [u8]);
    /// The guest writes its configuration space.
    fn config_write(&mut self, offset: usize, data: &[u8]);
    /// Where its BAR is now, if it is decoded.
    fn bar(&self) -> Option<u32>;
    /// The guest reads its registers; `offset` is below the BAR's size.
    fn bar_read(&mut self, offset: u32, data: &mut [u8]);
    /// The guest writes its registers.
    fn bar_write(&mut self, offset: u32, data: &[u8]);
    /// The VM ends: finishes the request at hand and touches nothing afterwards.
    fn quiesce(&mut self);
}

struct Slot {
    // The BAR's place beside the function, so that finding the one that answers needs no lock.
    base: AtomicU32,
    function: Mutex<Box<dyn Function>>,
}

/// The bus. ECAM offset = device << 15 | function << 12 | register.
pub struct PciBus {
    bridge: PciConfig,
    slots: Vec<Slot>,
    bar_bytes: u32,
}

impl PciBus {
    /// A bus whose functions have BARs of this size (a power of two).
    #[must_use]
    pub fn new(bar_bytes: u32) -> Self {
        // The id of QEMU's generic host bridge: known to everyone, bound by no driver, no quirk.
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            class: 0x06_0000,
            revision: 0,
            subsystem: 0,
        };
        Self { bridge: PciConfig::new(identity), slots: Vec::new(), bar_bytes }
    }

    /// The address of the next function's BAR in a window of BARs.
    #[must_use]
    pub fn next_bar(&self, window: u32) -> u32 {
        // At most 31 functions with BARs of some KiB: far from the window's end.
        window + u32::try_from(self.slots.len()).unwrap_or(0) * self.bar_bytes
    }

    /// The requester id of the next function: bus << 8 | device << 3 | function.
    #[must_use]
    pub fn next_requester(&self) -> u32 {
        // The bridge is device 0; at most 31 functions follow.
        u32::try_from(self.slots.len() + 1).unwrap_or(0) << 3
    }

    /// Puts a function into the next slot; gives it back when the bus is full.
    ///
    /// # Errors
    /// Every slot is taken.
    pub fn add(&mut self, function: Box<dyn Function>) -> Result<(), Box<dyn Function>> {
        if self.slots.len() + 1 >= SLOTS {
            return Err(function);
        }
        let base = AtomicU32::new(function.bar().unwrap_or(NOWHERE));
        self.slots.push(Slot { base, function: Mutex::new(function) });
        Ok(())
    }

    /// Reads at an offset of the ECAM window. Nobody there reads as ones.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((device, register)) = locate(offset) else { return };
        if device == 0 {
            self.bridge.read(register, data);
        } else if let Some(slot) = self.slots.get(device - 1) {
            slot.lock().config_read(register, data);
        }
    }

    /// Writes at an offset of the ECAM window.
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        let Some((device, register)) = locate(offset) else { return };
        let Some(slot) = device.checked_sub(1).and_then(|index| self.slots.get(index)) else {
            return;
        };
        let mut function = slot.lock();
        function.config_write(register, data);
        slot.base.store(function.bar().unwrap_or(NOWHERE), Ordering::Release);
    }

    /// The VM ends: every function comes to rest.
    pub fn quiesce(&self) {
        self.slots.iter().for_each(|slot| slot.lock().quiesce());
    }

    /// Reads a register in the BAR window. Nobody there reads as ones.
    pub fn bar_read(&self, address: u32, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((slot, offset)) = self.find(address, data.len()) {
            slot.lock().bar_read(offset, data);
        }
    }

    /// Writes a register in the BAR window.
    pub fn bar_write(&self, address: u32, data: &[u8]) {
        if let Some((slot, offset)) = self.find(address, data.len()) {
            slot.lock().bar_write(offset, data);
        }
    }

    fn find(&self, address: u32, length: usize) -> Option<(&Slot, u32)> {
        let last = u32::try_from(length).ok()?.checked_sub(1)?;
        self.slots.iter().find_map(|slot| {
            let base = slot.base.load(Ordering::Acquire);
            let offset = address.checked_sub(base).filter(|_| base != NOWHERE)?;
            (offset.checked_add(last)? < self.bar_bytes).then_some((slot, offset))
        })
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Function>> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PciBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciBus").field("functions", &self.slots.len()).finish_non_exhaustive()
    }
}

/// Device and register of an ECAM offset; only function 0 of bus 0 exists.
fn locate(offset: u64) -> Option<(usize, usize)> {
    let (function, bus) = (offset >> 12 & 7, offset >> 20);
    let device = usize::try_from(offset >> 15 & 31).ok()?;
    let register = usize::try_from(offset & 0xfff).ok()?;
    (function == 0 && bus == 0).then_some((device, register))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(PciConfig);

    impl Function for Echo {
        fn config_read(&mut self, offset: usize, data: &mut [u8]) {
            self.0.read(offset, data);
        }
        fn config_write(&mut self, offset: usize, data: &[u8]) {
            self.0.write(offset, data);
        }
        fn bar(&self) -> Option<u32> {
            self.0.bar0()
        }
        fn bar_read(&mut self, offset: u32, data: &mut [u8]) {
            data.fill(u8::try_from(offset & 0x7f).unwrap());
        }
        fn bar_write(&mut self, _: u32, _: &[u8]) {}
        fn quiesce(&mut self) {}
    }

    fn bus(functions: u32) -> PciBus {
        let mut bus = PciBus::new(0x8000);
        for _ in 0..functions {
            let mut config = PciConfig::new(Identity {
                vendor: 0x1af4,
                device: 0x1042,
                class: 0,
                revision: 1,
                subsystem: 0,
            });
            config.set_bar0(bus.next_bar(0xc000_0000), 0x8000);
            bus.add(Box::new(Echo(config))).ok().unwrap();
        }
        bus
    }

    fn read(bus: &PciBus, address: u32) -> u8 {
        let mut byte = [0];
        bus.bar_read(address, &mut byte);
        byte[0]
    }

    #[test]
    fn a_bar_answers_where_it_was_moved_to_and_only_while_decoded() {
        let bus = bus(2);
        assert_eq!(read(&bus, 0xc000_8005), 0xff, "decoding is off");
        bus.config_write(2 << 15 | 4, &[2, 0]);
        assert_eq!(read(&bus, 0xc000_8005), 5);
        assert_eq!(read(&bus, 0xc001_0000), 0xff);
        bus.config_write(2 << 15 | 0x10, &0xd000_0000u32.to_le_bytes());
        assert_eq!((read(&bus, 0xc000_8005), read(&bus, 0xd000_0007)), (0xff, 7));
        bus.config_write(2 << 15 | 0x10, &u32::MAX.to_le_bytes());
        assert_eq!(read(&bus, 0xffff_8001), 1);
        let mut across = [0; 8];
        bus.bar_read(0xffff_fffc, &mut across);
        assert_eq!(across, [0xff; 8]);
    }

    #[test]
    fn absent_functions_read_as_ones() {
        let bus = bus(1);
        for (offset, present) in [
            (0, true),
            (1 << 15, true),
            (2 << 15, false),
            (1 << 15 | 1 << 12, false),
            (1 << 20, false),
        ] {
            let mut data = [0; 4];
            bus.config_read(offset, &mut data);
            assert_eq!(data != [0xff; 4], present, "{offset:#x}");
        }
    }

    #[test]
    fn a_bus_has_31_functions() {
        let mut bus = bus(31);
        let config =
            PciConfig::new(Identity { vendor: 1, device: 1, class: 0, revision: 0, subsystem: 0 });
        assert!(bus.add(Box::new(Echo(config))).is_err());
    }
}
