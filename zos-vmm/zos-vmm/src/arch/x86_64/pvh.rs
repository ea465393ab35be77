//! The PVH way to start a kernel: 32-bit, paging off, EBX names this (Xen, docs/misc/pvh.pandoc and
//! public/arch-x86/hvm/start_info.h).
//!
//! ```text
//!  START_INFO  56 bytes ─┬─▶ modules: the initramfs      32 bytes
//!                        ├─▶ memory map                  24 bytes each
//!                        └─▶ command line, ACPI root
//! ```

use super::layout;
use crate::memory::GuestMemory;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError};

const VERSION: u32 = 1;

/// Writes the start information. `initramfs` is address and length; the memory map's kinds are
/// those of E820, which this interface shares.
pub(super) fn write(
    memory: &GuestMemory,
    initramfs: Option<(u64, u64)>,
    map: &[(u64, u64, u32)],
) -> Result<(), GuestMemoryError> {
    let modules: Vec<_> = initramfs
        .iter()
        .map(|(paddr, size)| hvm_modlist_entry { paddr: *paddr, size: *size, ..Default::default() })
        .collect();
    let count = |length: usize| u32::try_from(length).unwrap_or(0);
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: count(modules.len()),
        modlist_paddr: layout::PVH_MODULES,
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::ACPI,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: count(map.len()),
        ..Default::default()
    };
    memory.write_slice(info.as_slice(), GuestAddress(layout::PVH_START_INFO))?;
    for module in modules {
        memory.write_slice(module.as_slice(), GuestAddress(layout::PVH_MODULES))?;
    }
    let mut entries = Vec::new();
    for (addr, size, kind) in map {
        let entry = hvm_memmap_table_entry { addr: *addr, size: *size, type_: *kind, reserved: 0 };
        entries.extend_from_slice(entry.as_slice());
    }
    memory.write_slice(&entries, GuestAddress(layout::PVH_MEMORY_MAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_finds_its_way_from_the_start_information() {
        let memory = crate::memory::create(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let map = [(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 1), (0xe_0000, 0x2_0000, 3)];
        write(&memory, Some((0x123_4000, 77)), &map).unwrap();
        let word = |at: u64| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        let long = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        let info = layout::PVH_START_INFO;
        assert_eq!((word(info), word(info + 4), word(info + 12)), (0x336e_c578, 1, 1));
        let modules = long(info + 16);
        assert_eq!((long(modules), long(modules + 8)), (0x123_4000, 77));
        assert_eq!((long(info + 24), long(info + 32)), (layout::CMDLINE, layout::ACPI));
        let (entries, count) = (long(info + 40), word(info + 48));
        assert_eq!(count, 3);
        for (index, (address, bytes, kind)) in (0u64..).zip(map) {
            let at = entries + index * 24;
            assert_eq!((long(at), long(at + 8), word(at + 16)), (address, bytes, kind));
        }
        write(&memory, None, &map).unwrap();
        assert_eq!(word(info + 12), 0);
    }
}
