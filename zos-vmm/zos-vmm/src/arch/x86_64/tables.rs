//! What the first instruction finds: descriptor table, page tables (Intel SDM, volume 3).

use super::boot::Protocol;
use super::layout;
use crate::memory::GuestMemory;
use kvm_bindings::{kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
const DIRECTORIES: u64 = 4;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Linux's `__BOOT_CS` and `__BOOT_DS` (boot protocol, 64-bit): the third and fourth entry.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// Flags as in a descriptor's bits 40..55: long-mode code, 32-bit code, data, all flat.
const CODE_FLAGS: u16 = 0xa09b;
const CODE_32_FLAGS: u16 = 0xc09b;
const DATA_FLAGS: u16 = 0xc093;
/// A busy task state of 32 bits, which PVH asks for.
const TASK_FLAGS: u16 = 0x008b;
const TASK_LIMIT: u32 = 0x67;

/// Writes the GDT, and what else the protocol needs: 64-bit code stands on page tables.
pub(super) fn write(memory: &GuestMemory, protocol: Protocol) -> Result<(), GuestMemoryError> {
    let code = match protocol {
        Protocol::Linux64 => CODE_FLAGS,
        Protocol::Pvh => CODE_32_FLAGS,
    };
    for (index, flags) in [(CODE >> 3, code), (DATA >> 3, DATA_FLAGS)] {
        let at = GuestAddress(layout::GDT + u64::from(index) * 8);
        memory.write_obj(descriptor(flags), at)?;
    }
    match protocol {
        Protocol::Linux64 => write_page_tables(memory),
        Protocol::Pvh => Ok(()),
    }
}

/// Page tables that map the first 4 GiB one to one in pages of 2 MiB.
fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
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

/// The state of the first instruction: flat segments, interrupts off; long mode with paging, or
/// 32-bit protected mode without.
pub(super) fn set_mode(sregs: &mut kvm_sregs, protocol: Protocol) {
    set_flat(sregs, protocol);
    match protocol {
        Protocol::Linux64 => {
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 |= CR0_PE | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
        }
        Protocol::Pvh => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.tr = kvm_segment { limit: TASK_LIMIT, ..segment(0, TASK_FLAGS) };
        }
    }
}

fn set_flat(sregs: &mut kvm_sregs, protocol: Protocol) {
    let code = match protocol {
        Protocol::Linux64 => CODE_FLAGS,
        Protocol::Pvh => CODE_32_FLAGS,
    };
    sregs.cs = segment(CODE, code);
    let data = segment(DATA, DATA_FLAGS);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.idt.limit = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the processor would.
    #[test]
    fn the_first_4_gib_map_to_themselves() {
        let memory = crate::memory::create(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory, Protocol::Linux64).unwrap();
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

    /// As Xen's document has it: CS, DS, ES flat 32-bit; TR a busy task of 0x67; only PE and ET.
    #[test]
    fn pvh_starts_in_protected_mode_without_paging() {
        let memory = crate::memory::create(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory, Protocol::Pvh).unwrap();
        let entry: u64 = memory.read_obj(GuestAddress(layout::GDT + 16)).unwrap();
        assert_eq!(entry, 0x00cf_9b00_0000_ffff);
        let mut sregs = kvm_sregs { cr4: 0x20, efer: 0, ..Default::default() };
        set_mode(&mut sregs, Protocol::Pvh);
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (0x11, 0, 0, 0));
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.g, sregs.cs.type_), (0, 1, 1, 0xb));
        assert_eq!((sregs.ds.base, sregs.ds.limit, sregs.ds.db), (0, u32::MAX, 1));
        assert_eq!(
            (sregs.tr.limit, sregs.tr.type_, sregs.tr.present, sregs.tr.s),
            (0x67, 0xb, 1, 0)
        );
    }
}
