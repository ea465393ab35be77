//! The devices between 144 and 256 MiB: serial port, clock, power button. Power itself is PSCI's.
//!
//! | Address | What | Source |
//! |---|---|---|
//! | 0900_0000 | serial port | PL011 |
//! | 0901_0000 | clock | PL031, by `vm-superio` |
//! | 0902_0000 | power button | PL061 |

use super::layout::{self, line};
use super::pl011::Pl011;
use super::pl061::Pl061;
use crate::console::{Console, Port, Wire};
use crate::event::Event;
use crate::lifecycle::Lifecycle;
use crate::stats::{Exit, Stats};
use kvm_ioctls::VmFd;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::Rtc;
use vm_superio::rtc_pl031::NoEvents;

type Edge = Box<dyn Fn() + Send>;

/// The devices, and the power button.
pub struct Platform {
    serial: Mutex<Pl011<Console, Edge>>,
    /// Hears that the guest has read the serial port's input.
    reader: Option<Arc<Wire>>,
    clock: Mutex<Rtc<NoEvents>>,
    button: Mutex<Pl061<Edge>>,
}

impl Platform {
    /// Connects the devices to KVM's interrupt lines.
    ///
    /// # Errors
    /// No descriptor left, or KVM refuses a line.
    pub fn new(vm: &VmFd, console: Console, _: Arc<Lifecycle>, _: Arc<Stats>) -> io::Result<Self> {
        let line = |number| -> io::Result<Edge> {
            let event = Event::new()?;
            vm.register_irqfd(event.as_eventfd(), number)?;
            Ok(Box::new(move || event.signal()))
        };
        Ok(Self {
            reader: console.wire(),
            serial: Mutex::new(Pl011::new(console, line(line::SERIAL)?)),
            // It starts with the host's time; the guest may set its own.
            clock: Mutex::new(Rtc::new()),
            button: Mutex::new(Pl061::new(line(line::BUTTON)?)),
        })
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        lock(&self.button).press();
    }

    /// The guest reads an address that is no PCI function's; nothing where nobody is.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) -> Option<Exit> {
        let (device, offset) = locate(address)?;
        let (value, exit) = match device {
            Device::Serial => (self.read_serial(offset), Exit::Serial),
            Device::Button => (lock(&self.button).read(offset), Exit::Registers),
            Device::Clock => {
                let mut bytes = [0; 4];
                lock(&self.clock).read(u16::try_from(offset).unwrap_or(0), &mut bytes);
                (u32::from_le_bytes(bytes), Exit::Registers)
            }
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
        Some(exit)
    }

    fn read_serial(&self, offset: u64) -> u32 {
        let mut serial = lock(&self.serial);
        let value = serial.read(offset);
        if serial.has_read_all() {
            self.reader.iter().for_each(|wire| wire.room());
        }
        value
    }

    /// The guest writes such an address.
    pub fn write_memory(&self, address: u64, data: &[u8]) -> Option<Exit> {
        let (device, offset) = locate(address)?;
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u32::from_le_bytes(bytes);
        Some(match device {
            Device::Serial => {
                lock(&self.serial).write(offset, value);
                Exit::Serial
            }
            Device::Button => {
                lock(&self.button).write(offset, value);
                Exit::Registers
            }
            Device::Clock => {
                lock(&self.clock).write(u16::try_from(offset).unwrap_or(0), &bytes);
                Exit::Registers
            }
        })
    }
}

/// The serial port's FIFO.
impl Port for Platform {
    fn input(&self, bytes: &[u8]) -> usize {
        lock(&self.serial).receive(bytes)
    }
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

enum Device {
    Serial,
    Clock,
    Button,
}

/// Whose an address is, and its offset there.
fn locate(address: u64) -> Option<(Device, u64)> {
    let within = |base: u64| address.checked_sub(base).filter(|at| *at < layout::SMALL_BYTES);
    within(layout::SERIAL)
        .map(|offset| (Device::Serial, offset))
        .or_else(|| within(layout::CLOCK).map(|offset| (Device::Clock, offset)))
        .or_else(|| within(layout::BUTTON).map(|offset| (Device::Button, offset)))
}

fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}
