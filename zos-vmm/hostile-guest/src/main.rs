//! A kernel that is up to no good: it drives the VMM's devices as no driver would.
//!
//! ```text
//!  command line: seed=N steps=N
//!  registers ─▶ order ─▶ rings ─▶ vectors ─▶ moved ─▶ ports ─▶ flood ─▶ resets ─▶ power off
//! ```
//!
//! Each part tells its name on the serial port. It never frees and never waits for an answer. Whatever it
//! did, it ends by switching the machine off in order, and a VMM that stood it answers that.
#![no_std]
#![no_main]

mod bus;
mod chance;
mod port;
mod rings;

use bus::Device;
use chance::Chance;
use core::fmt::Write;
use port::Serial;

core::arch::global_asm!(
    ".globl start",
    "start:",
    "lea rsp, [rip + stack_end]",
    "mov rdi, rsi",
    "call {main}",
    "hlt",
    ".bss",
    ".balign 16",
    ".space 65536",
    "stack_end:",
    main = sym main,
);

/// What is done to each device again and again.
type Part = fn(&Device, &mut Chance);

/// Interrupts stay off; the VMM gave us page tables that map the first 4 GiB one to one.
extern "C" fn main(boot_params: u64) -> ! {
    let words = Words::of(boot_params);
    let (seed, steps) =
        (words.number(b"seed=").unwrap_or(1), words.number(b"steps=").unwrap_or(2000));
    let mut chance = Chance::new(seed);
    let _ = writeln!(Serial, "hostile: seed {seed}, {steps} steps");
    let parts: [(&str, Part); 5] = [
        ("registers", Device::scribble),
        ("order", Device::out_of_order),
        ("rings", rings::hostile),
        ("vectors", rings::vectors),
        ("moved", Device::moved),
    ];
    for (name, part) in parts {
        let _ = writeln!(Serial, "hostile: {name}");
        for _ in 0..steps / 20 {
            Device::all().for_each(|device| part(&device, &mut chance));
        }
        Device::all().for_each(|device| device.reset());
    }
    let _ = writeln!(Serial, "hostile: ports");
    (0..steps).for_each(|_| port::scribble(&mut chance));
    let _ = writeln!(Serial, "hostile: flood");
    (0..steps * 8).for_each(|_| Serial.byte(chance.byte() & 0x7f | 0x20));
    let _ = writeln!(Serial, "\nhostile: resets");
    for _ in 0..steps / 10 {
        Device::all().for_each(|device| rings::start_and_reset(&device));
    }
    let found = Device::all().count();
    let _ = writeln!(Serial, "\nhostile: done, {found} devices");
    port::power_off()
}

/// The kernel's command line.
struct Words(&'static [u8]);

impl Words {
    /// From `boot_params`: the address of the line stands at 0x228.
    fn of(boot_params: u64) -> Self {
        // SAFETY: the VMM put both there (Linux boot protocol), below 4 GiB.
        let line = unsafe {
            let start =
                ((boot_params + 0x228) as *const u32).read_unaligned() as usize as *const u8;
            let length = (0..2048).find(|at| *start.add(*at) == 0).unwrap_or(0);
            core::slice::from_raw_parts(start, length)
        };
        Self(line)
    }

    fn number(&self, key: &[u8]) -> Option<u64> {
        let word = self.0.split(|byte| *byte == b' ').find_map(|word| word.strip_prefix(key))?;
        Some(word.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "hostile: {info}");
    port::reset()
}
