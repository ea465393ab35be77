//! Queues that are set up as they should be, and then not used so.
//!
//! ```text
//!  64 MiB: a queue's page of rings each      80 MiB: buffers      all else is never offered as
//!  writable, so that no device writes over this program by our own word
//! ```

use crate::bus::{Device, STATUS};
use crate::chance::Chance;

const RINGS: u64 = 64 << 20;
const RING_BYTES: u64 = 0x4000;
const BUFFERS: u64 = 80 << 20;
const SIZE: u16 = 16;
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;

/// The way of a good driver up to DRIVER_OK, with every feature of the rings that is offered.
fn start(device: &Device) -> u64 {
    device.reset();
    device.set(STATUS, 1, 1);
    device.set(STATUS, 1, 3);
    for half in 0..2 {
        device.set(0x00, 4, half);
        let offered = device.get(0x04, 4);
        device.set(0x08, 4, half);
        // Bit 32 and the two of the rings, or the whole lower half.
        device.set(0x0c, 4, if half == 1 { offered & 1 } else { offered });
    }
    device.set(STATUS, 1, 11);
    let queues = device.get(0x12, 2).min(64);
    for queue in 0..queues {
        let base = RINGS + queue * RING_BYTES;
        device.set(0x16, 2, queue);
        device.set(0x18, 2, SIZE.into());
        device.set(0x1a, 2, queue);
        for (register, offset) in [(0x20, 0), (0x28, 0x1000), (0x30, 0x2000)] {
            device.set(register, 4, base + offset);
            device.set(register + 4, 4, 0);
        }
        put(base + 0x1000, 0u64);
        put(base + 0x2000, 0u64);
        device.set(0x1c, 2, 1);
    }
    device.set(STATUS, 1, 15);
    queues
}

pub(crate) fn start_and_reset(device: &Device) {
    let queues = start(device);
    (0..queues).for_each(|queue| device.set(0x3000 + queue * 4, 2, queue));
    device.reset();
}

/// Chains that loop, lie outside, repeat a head, wrap; rings rewritten after the device has them.
pub(crate) fn hostile(device: &Device, chance: &mut Chance) {
    let queues = start(device).max(1);
    for _ in 0..chance.below(12) {
        let queue = chance.below(queues);
        let base = RINGS + queue * RING_BYTES;
        for at in 0..u64::from(SIZE) {
            let inside = BUFFERS + chance.below(1 << 20);
            let outside = chance.value() | 1 << 33;
            let address = chance.pick(&[inside, inside, inside, outside]);
            let length = chance.pick(&[0, 1, 16, 512, 4096, 65_536, 1 << 20, 0xffff_ffff]);
            // What is writable lies in the buffers, and ends there.
            let length = if address == outside { length } else { length.min(1 << 20) };
            let flags =
                chance.below(8) & !INDIRECT | if chance.below(20) == 0 { INDIRECT } else { 0 };
            let flags = if chance.below(3) == 0 { flags & (NEXT | WRITE) } else { flags };
            put(base + at * 16, address);
            put(base + at * 16 + 8, length | flags << 32 | chance.below(20) << 48);
        }
        // A request that looks right to a disk, at the begin of every buffer's reach.
        put(BUFFERS + chance.below(1 << 16) * 16, chance.below(16));
        let head = chance.below(SIZE.into()) as u16;
        let mut index = get16(base + 0x1002);
        for _ in 0..chance.below(6) {
            // Often the same head again.
            let any = chance.byte().into();
            let head = chance.pick(&[head, head, any, 0xffff]);
            put(base + 0x1004 + u64::from(index % SIZE) * 2, head);
            index = index.wrapping_add(1);
        }
        let index = if chance.below(10) == 0 { chance.long() as u16 } else { index };
        put(base + 0x1002, index);
        device.set(0x3000 + queue * 4, 2, queue);
        if chance.below(4) == 0 {
            // After activation: none of this may reach the device's queue.
            device.set(0x16, 2, queue);
            device.set(0x18, 2, chance.value());
            let register = chance.pick(&[0x20, 0x28, 0x30]);
            device.set(register, 8, chance.value());
        }
        if device.get(STATUS, 1) & 64 != 0 {
            start(device);
        }
    }
    if chance.below(2) == 0 {
        device.reset();
    }
}

/// Messages to anywhere: vectors past the table, addresses that are no interrupt controller's.
pub(crate) fn vectors(device: &Device, chance: &mut Chance) {
    let entry = chance.below(8) * 16;
    let width = chance.pick(&[1, 2, 4, 8]);
    device.set(
        0x4000 + entry,
        4,
        chance.pick(&[0xfee0_0000, 0xfee0_1000, 0, 0x20_0000, 0xffff_fffc]),
    );
    device.set(0x4000 + entry + 4, 4, chance.pick(&[0, 0, 1, 0xffff_ffff]));
    device.set(0x4000 + entry + 8, 4, chance.below(0x1_0000));
    device.set(0x4000 + entry + 12, 4, chance.below(2));
    device.set(0x4000 + chance.below(0x1000 - 8), width, chance.value());
    device.set(0x5000 + chance.below(64), width, chance.value());
    device.set_config(0x42, 2, chance.pick(&[0, 0x8000, 0xc000, 0xffff]));
    device.set(0x16, 2, chance.below(20));
    device.set(0x1a, 2, chance.value());
    device.set(0x10, 2, chance.value());
    device.set(0x3000 + chance.below(0x400) * 4, 2, chance.value());
}

fn put<T>(address: u64, value: T) {
    // SAFETY: rings and buffers lie in memory that nothing else of ours uses.
    unsafe { (address as *mut T).write_volatile(value) };
}

fn get16(address: u64) -> u16 {
    // SAFETY: as above.
    unsafe { (address as *const u16).read_volatile() }
}
