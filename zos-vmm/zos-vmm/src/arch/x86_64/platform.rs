//! The I/O ports: serial port, power, debug. Everything else reads as ones and swallows writes.
//!
//! | Port | What | Source |
//! |---|---|---|
//! | 3f8-3ff | COM1 | 16550A datasheet, by `vm-superio` |
//! | 60-64 | keyboard controller: only its reset line exists | `reboot=k` of Linux |
//! | 80 | debug: 41 or 60 = the guest's init runs | Cloud Hypervisor's debug port (4x kernel, 6x user space) |
//! | 600-602 | ACPI sleep control, sleep status, reset | ACPI 6.5, 4.8.3.7 and 4.8.3.6 |

use super::acpi::{RESET_VALUE, SLEEP_TYPE_OFF};
use super::layout::line;
use crate::console::{Console, Port, Wire};
use crate::event::Event;
use crate::lifecycle::{Ending, Lifecycle};
use crate::stats::{Exit, Stats};
use kvm_ioctls::VmFd;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};

/// Port numbers.
pub(super) mod port {
    pub(in super::super) const SERIAL: u16 = 0x3f8;
    pub(super) const SERIAL_LAST: u16 = 0x3ff;
    pub(super) const KEYBOARD_COMMAND: u16 = 0x64;
    pub(super) const DEBUG: u16 = 0x80;
    pub(in super::super) const SLEEP_CONTROL: u16 = 0x600;
    pub(in super::super) const SLEEP_STATUS: u16 = 0x601;
    pub(in super::super) const RESET: u16 = 0x602;
}

const KEYBOARD_RESET: u8 = 0xfe;
const DEBUG_INIT: [u8; 2] = [0x41, 0x60];
/// Sleep control: enable bit, and where the type stands.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

/// The serial port's interrupt: a write to an eventfd that KVM turns into an edge.
struct Line(Event);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.signal();
        Ok(())
    }
}

/// Tells the console that the guest has read its input.
struct Reader(Option<Arc<Wire>>);

impl SerialEvents for Reader {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.0.iter().for_each(|wire| wire.room());
    }
}

/// The devices behind ports, and the power button.
pub struct Platform {
    serial: Mutex<Serial<Line, Reader, Console>>,
    button: Event,
    lifecycle: Arc<Lifecycle>,
    stats: Arc<Stats>,
}

impl Platform {
    /// Connects the devices to KVM's interrupt lines.
    ///
    /// # Errors
    /// No descriptor left, or KVM refuses a line.
    pub fn new(
        vm: &VmFd,
        console: Console,
        lifecycle: Arc<Lifecycle>,
        stats: Arc<Stats>,
    ) -> io::Result<Self> {
        let line = |number| -> io::Result<Event> {
            let event = Event::new()?;
            vm.register_irqfd(event.as_eventfd(), number)?;
            Ok(event)
        };
        let reader = Reader(console.wire());
        let serial = Serial::with_events(Line(line(line::SERIAL)?), reader, console);
        let serial = Mutex::new(serial);
        Ok(Self { serial, button: line(line::POWER_BUTTON)?, lifecycle, stats })
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.button.signal();
    }

    /// The guest reads a port.
    pub fn read(&self, port: u16, data: &mut [u8]) -> Exit {
        data.fill(0xff);
        match (port, data) {
            (port::SERIAL..=port::SERIAL_LAST, [byte]) => {
                *byte = self.serial().read(offset(port));
                return Exit::Serial;
            }
            (port::KEYBOARD_COMMAND | port::SLEEP_STATUS | port::SLEEP_CONTROL, [byte]) => {
                *byte = 0;
            }
            _ => {}
        }
        Exit::PortRead
    }

    /// The guest writes a port.
    pub fn write(&self, port: u16, data: &[u8]) -> Exit {
        let off = SLEEP_ENABLE | SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT;
        match (port, data) {
            (port::SERIAL..=port::SERIAL_LAST, &[value]) => {
                // A console that takes no more bytes loses them; the guest goes on.
                let _ = self.serial().write(offset(port), value);
                return Exit::Serial;
            }
            (port::KEYBOARD_COMMAND, &[KEYBOARD_RESET]) | (port::RESET, &[RESET_VALUE]) => {
                self.lifecycle.end(Ending::Reboot);
            }
            (port::SLEEP_CONTROL, &[value]) if value == off => {
                self.lifecycle.end(Ending::PowerOff);
            }
            (port::DEBUG, &[value]) if DEBUG_INIT.contains(&value) => self.stats.guest_init(),
            _ => {}
        }
        Exit::PortWrite
    }

    /// The guest reads an address that is no PCI function's: nobody is there, all else is ports.
    pub fn read_memory(&self, _: u64, _: &mut [u8]) -> Option<Exit> {
        None
    }

    /// The guest writes such an address.
    pub fn write_memory(&self, _: u64, _: &[u8]) -> Option<Exit> {
        None
    }

    fn serial(&self) -> std::sync::MutexGuard<'_, Serial<Line, Reader, Console>> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The serial port's FIFO.
impl Port for Platform {
    fn input(&self, bytes: &[u8]) -> usize {
        // A full FIFO, or a guest that tests its loop: later.
        self.serial().enqueue_raw_bytes(bytes).unwrap_or(0)
    }
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

fn offset(port: u16) -> u8 {
    u8::try_from(port - port::SERIAL).unwrap_or(0)
}
