//! Ports: the serial line, power, and everything else to write to.

use crate::chance::Chance;
use core::arch::asm;

const SERIAL: u16 = 0x3f8;
const KEYBOARD: u16 = 0x64;
/// Sleep control, sleep status, reset (the VMM's ACPI tables).
const SLEEP: u16 = 0x600;
const RESET: u16 = 0x602;
/// Enable, and type 5 (S5).
const OFF: u8 = 1 << 5 | 5 << 2;

/// COM1, without looking whether it is ready.
pub(crate) struct Serial;

impl Serial {
    pub(crate) fn byte(&mut self, byte: u8) {
        out(SERIAL, byte);
    }
}

impl core::fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

pub(crate) fn power_off() -> ! {
    out(SLEEP, OFF);
    halt()
}

/// As after a fault: a VMM that sees this tells that we failed.
pub(crate) fn reset() -> ! {
    out(RESET, 1);
    out(KEYBOARD, 0xfe);
    halt()
}

fn halt() -> ! {
    loop {
        // SAFETY: waits for ever; interrupts are off.
        unsafe { asm!("cli", "hlt") };
    }
}

/// Reads or writes any port, but those that end the machine.
pub(crate) fn scribble(chance: &mut Chance) {
    let any = chance.below(0x1_0000) as u16;
    let port = chance
        .pick(&[any, any, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x60, 0x61, 0x70, 0x71, 0xcf8, 0xcfc]);
    let ends = (SLEEP - 4..=RESET).contains(&port) || (KEYBOARD - 4..=KEYBOARD).contains(&port);
    if ends {
        return;
    }
    let value = chance.value() as u32;
    // SAFETY: ports touch no memory of ours.
    unsafe {
        match chance.below(6) {
            0 => asm!("out dx, al", in("dx") port, in("al") value as u8),
            1 => asm!("out dx, ax", in("dx") port, in("ax") value as u16),
            2 => asm!("out dx, eax", in("dx") port, in("eax") value),
            3 => asm!("in al, dx", in("dx") port, out("al") _),
            4 => asm!("in ax, dx", in("dx") port, out("ax") _),
            _ => asm!("in eax, dx", in("dx") port, out("eax") _),
        }
    }
    // The serial line as it was: 8 bits, no interrupts, the divisor hidden, no loop back to itself.
    out(SERIAL + 3, 3);
    out(SERIAL + 1, 0);
    out(SERIAL + 4, 0);
}

fn out(port: u16, value: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) };
}
