//! The guest-physical address space.
//!
//! ```text
//!  0700_0000 .. 0800_0000   GIC: redistributors, 128 KiB for each vCPU      128 x 128 KiB = 16 MiB
//!  0800_0000 .. 0801_0000   GIC: distributor                                64 KiB
//!  0802_0000 .. 0804_0000   GIC: ITS (control, translation)                 128 KiB
//!  0900_0000                PL011 serial port  ┐
//!  0901_0000                PL031 clock        ├ 4 KiB each, between 144 and 256 MiB
//!  0902_0000                PL061 power button ┘
//!  1000_0000 .. 3000_0000   PCI: BARs of 32 bits                            256 .. 768 MiB
//!  3000_0000 .. 4000_0000   PCI: ECAM, of which bus 0 exists                768 MiB .. 1 GiB
//!  4000_0000 .. 4020_0000   RAM: device tree                                first 2 MiB
//!  4020_0000 ..             RAM: kernel (+ text_offset), initramfs at the end
//! ```
//!
//! RAM ends at most at 1 GiB + 512 GiB: below 2^40, the smallest address space that a server's
//! processor gives a guest.

use vm_memory::GuestAddress;

/// Redistributors of the GIC, one after another.
pub const GIC_REDISTRIBUTORS: u64 = 0x0700_0000;
/// Bytes of one (GICv3: RD_base and SGI_base frame).
pub const GIC_REDISTRIBUTOR_BYTES: u64 = 128 << 10;
/// Distributor of the GIC.
pub const GIC_DISTRIBUTOR: u64 = 0x0800_0000;
/// Its bytes.
pub const GIC_DISTRIBUTOR_BYTES: u64 = 64 << 10;
/// Interrupt translation service of the GIC.
pub const GIC_ITS: u64 = 0x0802_0000;
/// Its bytes.
pub const GIC_ITS_BYTES: u64 = 128 << 10;
/// Serial port.
pub const SERIAL: u64 = 0x0900_0000;
/// Clock.
pub const CLOCK: u64 = 0x0901_0000;
/// Lines of which one is the power button.
pub const BUTTON: u64 = 0x0902_0000;
/// Bytes of each of the three.
pub const SMALL_BYTES: u64 = 4 << 10;
/// Window of 32-bit BARs.
pub const PCI_BARS: u32 = 0x1000_0000;
/// Its size: 512 MiB.
pub const PCI_BARS_BYTES: u32 = 512 << 20;
/// Window of ECAM.
pub const ECAM: u64 = 0x3000_0000;
/// The part of it that exists: one bus.
pub const ECAM_BYTES: u64 = 1 << 20;
/// RAM.
pub const RAM: u64 = 1 << 30;
/// Device tree.
pub const FDT: u64 = RAM;
/// Most bytes of a device tree (Linux, Documentation/arch/arm64/booting.rst).
pub const FDT_BYTES: u64 = 2 << 20;
/// Where a kernel's `text_offset` counts from.
pub const KERNEL: u64 = FDT + FDT_BYTES;

/// Interrupt lines. A shared one (SPI) `n` is the GIC's `n + 32`, a private one (PPI) its `n + 16`.
pub mod line {
    /// SPI of the serial port.
    pub const SERIAL: u32 = 1;
    /// SPI of the clock's alarm, which never rings.
    pub const CLOCK: u32 = 2;
    /// SPI of the power button.
    pub const BUTTON: u32 = 3;
    /// Interrupts of the GIC: 32 of each vCPU, 32 shared.
    pub const COUNT: u32 = 64;
    /// PPIs of the timer as KVM wires them: secure, non-secure, virtual, hypervisor.
    pub const TIMER: [u32; 4] = [13, 14, 11, 10];
    /// PPI of the GIC's maintenance.
    pub const MAINTENANCE: u32 = 9;
}

/// The affinity fields of a vCPU's MPIDR as KVM numbers them: 16 vCPUs to a group, because a GIC
/// sends an interrupt to at most 16 processors at once.
#[must_use]
pub fn affinity(index: u16) -> u64 {
    let index = u64::from(index);
    index & 0xf | (index >> 4 & 0xff) << 8
}

/// The ranges of RAM for this many bytes: address and length.
#[must_use]
pub fn ram(bytes: u64) -> Vec<(GuestAddress, usize)> {
    // A spec's memory is at most 512 GiB: it fits.
    vec![(GuestAddress(RAM), usize::try_from(bytes).unwrap_or(usize::MAX))]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn windows_do_not_overlap() {
        let windows = [
            (GIC_REDISTRIBUTORS, 128 * GIC_REDISTRIBUTOR_BYTES),
            (GIC_DISTRIBUTOR, GIC_DISTRIBUTOR_BYTES),
            (GIC_ITS, GIC_ITS_BYTES),
            (SERIAL, SMALL_BYTES),
            (CLOCK, SMALL_BYTES),
            (BUTTON, SMALL_BYTES),
            (PCI_BARS.into(), PCI_BARS_BYTES.into()),
            (ECAM, 256 * MIB),
            (RAM, 512 << 30),
        ];
        assert!(windows.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(windows[..3].iter().all(|(start, bytes)| start + bytes <= 144 * MIB));
        assert!(
            windows[3..6]
                .iter()
                .all(|(start, bytes)| { 144 * MIB <= *start && start + bytes <= 256 * MIB })
        );
        // A redistributor and an ITS start on 64 KiB; a kernel on 2 MiB.
        assert!(windows[..3].iter().all(|(start, _)| start.is_multiple_of(64 << 10)));
        const { assert!(KERNEL.is_multiple_of(2 << 20) && ECAM_BYTES <= 256 << 20) };
        assert!(windows.iter().all(|(start, bytes)| start + bytes <= 1 << 40));
    }

    #[test]
    fn every_vcpu_has_an_affinity_of_its_own() {
        let all: std::collections::BTreeSet<u64> = (0..128).map(affinity).collect();
        assert_eq!((all.len(), affinity(15), affinity(16), affinity(127)), (128, 15, 0x100, 0x70f));
        assert!(all.iter().all(|affinity| affinity & 0xff < 16));
    }

    #[test]
    fn ram_is_one_piece() {
        assert_eq!(ram(8 << 30), [(GuestAddress(1 << 30), 8 << 30)]);
    }
}
