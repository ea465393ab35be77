//! The PCI bus, and registers written by chance.

use crate::chance::Chance;

/// Where the VMM puts ECAM (its ACPI tables tell; we look nowhere).
const ECAM: u64 = 0xe800_0000;
const VIRTIO: u32 = 0x1af4;
const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const MEMORY_AND_MASTER: u16 = 6;
/// What the common registers are (virtio 1.2, 4.1.4.3).
pub(crate) const STATUS: u64 = 0x14;
const BAR_BYTES: u64 = 0x8000;

/// A virtio function on bus 0.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    config: u64,
    pub(crate) bar: u64,
}

impl Device {
    pub(crate) fn all() -> impl Iterator<Item = Device> {
        (1..32).filter_map(|slot| {
            let config = ECAM + (slot << 15);
            if read(config, 4) as u32 & 0xffff != VIRTIO {
                return None;
            }
            write(config + COMMAND, 2, MEMORY_AND_MASTER.into());
            Some(Device { config, bar: read(config + BAR0, 4) & 0xffff_fff0 })
        })
    }

    pub(crate) fn get(&self, at: u64, width: u8) -> u64 {
        read(self.bar + at, width)
    }

    pub(crate) fn set(&self, at: u64, width: u8, value: u64) {
        write(self.bar + at, width, value);
    }

    pub(crate) fn set_config(&self, at: u64, width: u8, value: u64) {
        write(self.config + at, width, value);
    }

    pub(crate) fn reset(&self) {
        self.set(STATUS, 1, 0);
    }

    /// Any register of any width, any value; but no step towards being driven.
    pub(crate) fn scribble(&self, chance: &mut Chance) {
        let width = chance.pick(&[1, 2, 4, 8]);
        let (near, far, config) =
            (chance.below(0x40), chance.below(BAR_BYTES - 8), chance.below(0x1000 - 8));
        let at =
            chance.pick(&[near, near, far, 0x1000, 0x2000 + near, 0x3000 + near, 0x5000 + near]);
        match chance.below(4) {
            0 => drop(self.get(at, width)),
            1 if !(STATUS - 7..=STATUS).contains(&at) => self.set(at, width, chance.value()),
            2 => drop(read(self.config + config, width)),
            // Not the command register and BARs: that is `moved`.
            _ if config > 0x40 => self.set_config(config, width, chance.value()),
            _ => {}
        }
    }

    /// Steps of the status machine in any order, with queues that lie nowhere.
    pub(crate) fn out_of_order(&self, chance: &mut Chance) {
        for _ in 0..8 {
            match chance.below(6) {
                0 => self.set(STATUS, 1, chance.pick(&[1, 2, 3, 4, 8, 11, 15, 64, 128, 255])),
                1 => self.set(0x08, 4, chance.below(4)),
                2 => self.set(0x0c, 4, chance.value()),
                3 => self.set(0x16, 2, chance.value()),
                4 => self.set(0x18, 2, chance.value()),
                _ => {
                    let at = chance.pick(&[0x20, 0x28, 0x30]);
                    // Outside of memory: whoever follows it must see that.
                    self.set(at, 8, 1 << 40 | chance.long());
                    self.set(0x1c, 2, 1);
                }
            }
        }
        self.reset();
    }

    /// Its BAR somewhere else for a while: over another device, over memory, over nothing.
    pub(crate) fn moved(&self, chance: &mut Chance) {
        let home = self.bar;
        let near = home ^ BAR_BYTES;
        let away = chance.pick(&[
            near,
            0,
            0x20_0000,
            0xfee0_0000,
            0xfec0_0000,
            0xffff_8000,
            ECAM,
            0xd000_0000,
        ]);
        self.set_config(BAR0, 4, away);
        self.set_config(COMMAND, 2, chance.pick(&[0, 2, 6, 0xffff]));
        self.scribble(chance);
        self.set_config(BAR0, 4, home);
        self.set_config(COMMAND, 2, MEMORY_AND_MASTER.into());
    }
}

fn read(address: u64, width: u8) -> u64 {
    // SAFETY: a device's window, mapped one to one, not memory of ours.
    unsafe {
        match width {
            1 => (address as *const u8).read_volatile().into(),
            2 => (address as *const u16).read_volatile().into(),
            4 => (address as *const u32).read_volatile().into(),
            _ => (address as *const u64).read_volatile(),
        }
    }
}

fn write(address: u64, width: u8, value: u64) {
    // SAFETY: as above.
    unsafe {
        match width {
            1 => (address as *mut u8).write_volatile(value as u8),
            2 => (address as *mut u16).write_volatile(value as u16),
            4 => (address as *mut u32).write_volatile(value as u32),
            _ => (address as *mut u64).write_volatile(value),
        }
    }
}
