//! What the first instruction finds: descriptor table, page tables (Intel SDM, volume 3).

use super::layout;
use crate::memory::GuestMemory;
use kvm_bindings::{kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
const DIRECTORIES: u64 = 4;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Linux's `__BOOT_CS` and `__BOOT_DS` (boot protocol, 64-bit): the third and fourth entry.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// Flags as in a descriptor's bits 40..55: long-mode code, and data, both flat.
const CODE_FLAGS: u16 = 0xa09b;
const DATA_FLAGS: u16 = 0xc093;

/// Writes page tables that map the first 4 GiB one to one in pages of 2 MiB, and the GDT.
pub(super) fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let table = |index: u64| layout::PAGE_TABLES + index * 0x1000;
    let put = |value: u64, address: u64| memory.write_obj(value, GuestAddress(address));
    put(table(1) | PRESENT_WRITABLE, table(0))?;
    let mut pages = Vec::with_capacity(0x1000);
    for directory in 0..DIRECTORIES {
        put(table(2 + directory) | PRESENT_WRITABLE, table(1) + directory * 8)?;
        pages.clear();
        for entry in 0..ENTRIES {
            let page = (directory * ENTRIES + entry) << 21;
            pages.extend_from_slice(&(page | PRESENT_WRITABLE | LARGE_PAGE).to_le_bytes());
        }
        memory.write_slice(&pages, GuestAddress(table(2 + directory)))?;
    }
    for (index, flags) in [(CODE >> 3, CODE_FLAGS), (DATA >> 3, DATA_FLAGS)] {
        put(descriptor(flags), layout::GDT + u64::from(index) * 8)?;
    }
    Ok(())
}

/// A flat descriptor: base 0, limit 4 GiB.
fn descriptor(flags: u16) -> u64 {
    let flags = u64::from(flags);
    0xffff | (flags & 0xff) << 40 | (0xf | flags >> 8 & 0xf0) << 48
}

fn segment(selector: u16, flags: u16) -> kvm_segment {
    let bit = |shift: u16| u8::from(flags >> shift & 1 != 0);
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: (flags & 0xf) as u8,
        s: bit(4),
        dpl: 0,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        ..Default::default()
    }
}

/// Long mode, paging on, flat segments, interrupts off.
pub(super) fn set_long_mode(sregs: &mut kvm_sregs) {
    sregs.cs = segment(CODE, CODE_FLAGS);
    let data = segment(DATA, DATA_FLAGS);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.limit = 0;
    sregs.cr3 = layout::PAGE_TABLES;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the processor would.
    #[test]
    fn the_first_4_gib_map_to_themselves() {
        let memory = crate::memory::create(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory).unwrap();
        let entry = |table: u64, index: u64| -> u64 {
            memory.read_obj(GuestAddress((table & !0xfff) + index * 8)).unwrap()
        };
        for address in [0u64, 0x1234_5678, 0x7fff_ffff, 0xffff_ffff] {
            let directories = entry(layout::PAGE_TABLES, address >> 39);
            let directory = entry(directories, address >> 30 & 511);
            let page = entry(directory, address >> 21 & 511);
            assert_eq!(page & 0xfff, PRESENT_WRITABLE | LARGE_PAGE);
            assert_eq!((page & !0x1f_ffff) | address & 0x1f_ffff, address);
        }
        assert_eq!(
            entry(layout::GDT & !0xfff, (layout::GDT & 0xfff) / 8 + 2),
            0x00af_9b00_0000_ffff
        );
        assert_eq!(
            entry(layout::GDT & !0xfff, (layout::GDT & 0xfff) / 8 + 3),
            0x00cf_9300_0000_ffff
        );
    }
}
