//! The guest-physical address space.
//!
//! ```text
//!          0 .. 0009_fc00   RAM: GDT 500, PVH 6000, boot_params 7000, page tables 9000 (6 pages),
//!                           command line 20000
//!  0009_fc00 .. 000a_0000   reserved
//!  000e_0000 .. 0010_0000   ACPI tables (in RAM, told to the guest as ACPI data)
//!  0010_0000 .. c000_0000   RAM: kernel at 16 MiB, initramfs at the end        up to 3 GiB
//!  c000_0000 .. e800_0000   PCI: BARs of 32 bits                               640 MiB
//!  e800_0000 .. f800_0000   PCI: ECAM, of which bus 0 exists                   256 MiB
//!  fec0_0000, fee0_0000     IOAPIC, local APICs (in KVM)
//!  fffb_c000 .. fffc_0000   KVM's identity map (1 page) and task state (3 pages)
//!  1_0000_0000 ..           the rest of RAM
//! ```

use vm_memory::GuestAddress;

/// Global descriptor table.
pub const GDT: u64 = 0x500;
/// PVH's start information: 56 bytes.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH's list of modules, of which there is one: 32 bytes.
pub const PVH_MODULES: u64 = 0x6040;
/// PVH's memory map: 24 bytes an entry, up to `boot_params`.
pub const PVH_MEMORY_MAP: u64 = 0x6080;
/// Linux's `boot_params` ("zero page").
pub const BOOT_PARAMS: u64 = 0x7000;
/// Page tables that map the first 4 GiB one to one: PML4, PDPT, then four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// End of the RAM below the old video memory.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables; the root pointer stands first.
pub const ACPI: u64 = 0xe_0000;
/// First byte behind the ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// RAM above the first MiB.
pub const HIGH_RAM: u64 = ACPI_END;
/// Where a bzImage is put.
pub const KERNEL: u64 = 0x100_0000;
/// First address that is no RAM below 4 GiB.
pub const HOLE: u64 = 0xc000_0000;
/// First address behind the hole.
pub const HOLE_END: u64 = 1 << 32;
/// Window of 32-bit BARs.
pub const PCI_BARS: u32 = 0xc000_0000;
/// Its size: 640 MiB.
pub const PCI_BARS_BYTES: u32 = 640 << 20;
/// Window of ECAM.
pub const ECAM: u64 = 0xe800_0000;
/// The part of it that exists: one bus.
pub const ECAM_BYTES: u64 = 1 << 20;
/// IOAPIC of KVM.
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC of KVM.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page that KVM needs for real mode on some processors.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM needs for the same.
pub const TASK_STATE: u64 = IDENTITY_MAP + 0x1000;

/// Interrupt lines of the IOAPIC.
pub mod line {
    /// COM1.
    pub const SERIAL: u32 = 4;
    /// ACPI's generic event device: the power button.
    pub const POWER_BUTTON: u32 = 9;
}

/// The ranges of RAM for this many bytes: address and length.
#[must_use]
pub fn ram(bytes: u64) -> Vec<(GuestAddress, usize)> {
    let range = |address: u64, bytes: u64| {
        // A spec's memory is at most 512 GiB: it fits.
        (GuestAddress(address), usize::try_from(bytes).unwrap_or(usize::MAX))
    };
    let below = bytes.min(HOLE);
    let above = bytes - below;
    let mut ranges = vec![range(0, below)];
    if above > 0 {
        ranges.push(range(HOLE_END, above));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_the_hole_free() {
        const GIB: u64 = 1 << 30;
        for (bytes, expected) in [
            (GIB, vec![(0, GIB)]),
            (3 * GIB, vec![(0, 3 * GIB)]),
            (3 * GIB + 4096, vec![(0, 3 * GIB), (4 * GIB, 4096)]),
            (8 * GIB, vec![(0, 3 * GIB), (4 * GIB, 5 * GIB)]),
        ] {
            let ranges: Vec<_> = ram(bytes).iter().map(|(a, n)| (a.0, *n as u64)).collect();
            assert_eq!(ranges, expected);
        }
    }

    #[test]
    fn what_a_kernel_starts_from_does_not_overlap() {
        let pieces = [
            (GDT, 4 * 8),
            (PVH_START_INFO, 56),
            (PVH_MODULES, 32),
            (PVH_MEMORY_MAP, 64 * 24),
            (BOOT_PARAMS, 4096),
            (PAGE_TABLES, 6 * 4096),
            (CMDLINE, 64 << 10),
            (LOW_RAM_END, 0),
        ];
        assert!(pieces.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    }

    #[test]
    fn windows_do_not_overlap() {
        assert_eq!(u64::from(PCI_BARS) + u64::from(PCI_BARS_BYTES), ECAM);
        assert!(ECAM + (256 << 20) <= u64::from(IOAPIC));
        const { assert!(TASK_STATE + 0x3000 <= HOLE_END) };
    }
}
