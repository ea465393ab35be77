//! Kernel, initramfs, command line and tables into memory (Linux, Documentation/arch/x86/boot.rst).
//!
//! ```text
//!  bzImage: protected-mode part at 16 MiB    ─▶ 64-bit entry + 0x200   boot_params
//!  ELF, where its headers say: without note  ─▶ 64-bit, its entry      boot_params
//!                              with PVH note ─▶ 32-bit, the note's     start information
//!  initramfs: as high as fits, below what the kernel can reach
//!  both tell: memory map, command line, initramfs, address of the ACPI root
//! ```
//!
//! | A stranger's kernel may | What happens |
//! |---|---|
//! | be cut off, or no kernel | refused, with words |
//! | have headers that load without end | refused by [`super::elf`] before anything is loaded |
//! | want more memory than there is, by any field | refused |
//! | load over the tables below 1 MiB | they are written after it |

use super::{acpi, elf, layout, pvh, tables};
use crate::memory::{GuestMemory, PositionedFile};
use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, Elf, Error as LoaderError, KernelLoader, PvhBootCapability};
use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryRegion,
};

/// Entry of the 64-bit boot protocol, behind the start of a bzImage's protected-mode part.
const ENTRY_64: u64 = 0x200;
/// A boot loader without an assigned number.
const LOADER_UNKNOWN: u8 = 0xff;
const XLF_KERNEL_64: u16 = 1;
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
const ELF_ALIGNMENT: u32 = 0x100_0000;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub instruction: u64,
    /// How it finds the rest.
    pub protocol: Protocol,
}

/// How a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux's 64-bit protocol: RSI names `boot_params`.
    Linux64,
    /// PVH: 32-bit, paging off, EBX names the start information.
    Pvh,
}

/// Why a kernel can't be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Reading the kernel.
    #[error("read the kernel")]
    Read(#[source] vm_memory::VolatileMemoryError),
    /// Not a kernel.
    #[error("load the kernel: it must be an x86_64 bzImage or ELF that fits into the memory")]
    Kernel(#[source] LoaderError),
    /// An ELF that can't be one.
    #[error("load the kernel: {0}")]
    Elf(&'static str),
    /// It doesn't fit.
    #[error("the kernel needs memory up to {needs:#x}, the VM's ends at {end:#x}: give it more")]
    Memory {
        /// First address behind what the kernel needs.
        needs: u64,
        /// First address behind the RAM that it may use.
        end: u64,
    },
    /// A 32-bit one.
    #[error("the kernel has no 64-bit entry point: build it with CONFIG_X86_64")]
    No64Bit,
    /// No room.
    #[error("an initramfs of {bytes} bytes doesn't fit beside the kernel: give the VM more memory")]
    Initramfs {
        /// Its length.
        bytes: u64,
    },
    /// Writing the tables.
    #[error("write the boot tables")]
    Write(#[from] GuestMemoryError),
}

/// Loads everything.
///
/// # Errors
/// The kernel is none, or doesn't fit.
pub fn load(
    memory: &GuestMemory,
    kernel: PositionedFile,
    initramfs: Option<PositionedFile>,
    cmdline: &str,
    cpus: u16,
) -> Result<Entry, BootError> {
    let loaded = load_kernel(memory, kernel)?;
    let mut params = boot_params { hdr: loaded.header, ..Default::default() };
    let mut module = None;
    if let Some(mut image) = initramfs {
        let address = initramfs_address(memory, &loaded, image.length())?;
        let bytes = usize::try_from(image.length()).unwrap_or(usize::MAX);
        memory.read_exact_volatile_from(GuestAddress(address.into()), &mut image, bytes)?;
        params.hdr.ramdisk_image = address;
        params.hdr.ramdisk_size = u32::try_from(bytes).unwrap_or(0);
        module = Some((address.into(), bytes as u64));
    }
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    memory.write_slice(&text, GuestAddress(layout::CMDLINE))?;
    params.hdr.cmd_line_ptr = u32::try_from(layout::CMDLINE).unwrap_or(0);
    params.hdr.cmdline_size = u32::try_from(cmdline.len()).unwrap_or(0);
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    params.acpi_rsdp_addr = layout::ACPI;
    let map = memory_map(memory);
    for (address, bytes, kind) in map.iter().copied() {
        let index = usize::from(params.e820_entries);
        params.e820_table[index] = boot_e820_entry { addr: address, size: bytes, r#type: kind };
        params.e820_entries += 1;
    }
    memory.write_slice(&acpi::tables(cpus), GuestAddress(layout::ACPI))?;
    match loaded.protocol {
        Protocol::Linux64 => {
            memory.write_slice(params.as_slice(), GuestAddress(layout::BOOT_PARAMS))?;
        }
        Protocol::Pvh => pvh::write(memory, module, &map)?,
    }
    tables::write(memory, loaded.protocol)?;
    Ok(Entry { instruction: loaded.entry, protocol: loaded.protocol })
}

struct Loaded {
    entry: u64,
    protocol: Protocol,
    header: setup_header,
    /// First address behind what the kernel needs while it unpacks itself.
    end: u64,
}

fn load_kernel(memory: &GuestMemory, mut kernel: PositionedFile) -> Result<Loaded, BootError> {
    use std::io::Seek;
    use vm_memory::{ReadVolatile, VolatileSlice};
    let mut magic = [0u8; 4];
    kernel
        .read_exact_volatile(&mut VolatileSlice::from(&mut magic[..]))
        .map_err(BootError::Read)?;
    let _ = kernel.rewind();
    let loaded =
        if magic == ELF_MAGIC { load_elf(memory, kernel)? } else { load_bzimage(memory, kernel)? };
    let end = low_ram_end(memory);
    if loaded.end > end {
        return Err(BootError::Memory { needs: loaded.end, end });
    }
    Ok(loaded)
}

fn load_elf(memory: &GuestMemory, mut kernel: PositionedFile) -> Result<Loaded, BootError> {
    let (length, ram_end) = (kernel.length(), low_ram_end(memory));
    elf::check(&mut kernel, length, ram_end).map_err(BootError::Elf)?;
    let high = Some(GuestAddress(layout::HIGH_RAM));
    let loaded = Elf::load(memory, None, &mut kernel, high).map_err(BootError::Kernel)?;
    let (entry, protocol) = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => (entry.raw_value(), Protocol::Pvh),
        _ => (loaded.kernel_load.raw_value(), Protocol::Linux64),
    };
    if !(layout::HIGH_RAM..ram_end).contains(&entry) {
        return Err(BootError::Elf("its entry lies outside of the memory"));
    }
    // An ELF kernel has no header of its own: make the one that its start code reads.
    let header = setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        kernel_alignment: ELF_ALIGNMENT,
        ..Default::default()
    };
    Ok(Loaded { entry, protocol, header, end: loaded.kernel_end })
}

fn load_bzimage(memory: &GuestMemory, mut kernel: PositionedFile) -> Result<Loaded, BootError> {
    let (at, high) = (GuestAddress(layout::KERNEL), GuestAddress(layout::HIGH_RAM));
    let loaded = BzImage::load(memory, Some(at), &mut kernel, Some(high));
    let loaded = loaded.map_err(BootError::Kernel)?;
    let header = loaded.setup_header.unwrap_or_default();
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::No64Bit);
    }
    let start = layout::KERNEL.max(header.pref_address);
    let end = loaded.kernel_end.max(start.saturating_add(header.init_size.into()));
    Ok(Loaded { entry: layout::KERNEL + ENTRY_64, protocol: Protocol::Linux64, header, end })
}

/// First address behind the RAM below the hole, which is the first region.
fn low_ram_end(memory: &GuestMemory) -> u64 {
    memory.iter().next().map_or(0, GuestMemoryRegion::len)
}

/// The highest page that leaves room for the initramfs, in RAM that the kernel can reach.
fn initramfs_address(memory: &GuestMemory, loaded: &Loaded, bytes: u64) -> Result<u32, BootError> {
    let no_room = BootError::Initramfs { bytes };
    let ram_end = low_ram_end(memory);
    let reach = match loaded.header.initrd_addr_max {
        0 => layout::HOLE,
        last => u64::from(last) + 1,
    };
    let Some(start) = ram_end.min(reach).checked_sub(bytes) else { return Err(no_room) };
    let start = start & !0xfff;
    if start < loaded.end {
        return Err(no_room);
    }
    u32::try_from(start).map_err(|_| no_room)
}

/// Address, bytes, kind.
fn memory_map(memory: &GuestMemory) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::LOW_RAM_END, E820_RAM),
        (layout::LOW_RAM_END, 0xa_0000 - layout::LOW_RAM_END, E820_RESERVED),
        (layout::ACPI, layout::ACPI_END - layout::ACPI, E820_ACPI),
        (layout::ECAM, layout::ECAM_BYTES, E820_RESERVED),
    ];
    for region in memory.iter() {
        let start = region.start_addr().raw_value().max(layout::HIGH_RAM);
        let end = region.start_addr().raw_value() + region.len();
        map.push((start, end - start, E820_RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn memory() -> GuestMemory {
        crate::memory::create(&layout::ram(64 << 20)).unwrap()
    }

    fn file(bytes: &[u8]) -> PositionedFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        PositionedFile::new(file).unwrap()
    }

    /// The smallest thing with a bzImage's header.
    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[0x1f1] = 1;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        bytes[0x211] = 1;
        bytes[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
        bytes[0x236] = 1;
        bytes[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        bytes
    }

    #[test]
    fn a_kernel_finds_what_it_needs() {
        let memory = memory();
        let entry = load(&memory, file(&image()), Some(file(&[7; 5000])), "quiet", 2).unwrap();
        assert_eq!(entry, Entry { instruction: 0x100_0200, protocol: Protocol::Linux64 });
        let mut params = boot_params::default();
        memory.read_slice(params.as_mut_slice(), GuestAddress(layout::BOOT_PARAMS)).unwrap();
        let (address, bytes) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
        assert_eq!((address, bytes), ((64 << 20) - 8192, 5000));
        assert_eq!(memory.read_obj::<u8>(GuestAddress(u64::from(address) + 4999)).unwrap(), 7);
        let mut text = [0; 6];
        memory.read_slice(&mut text, GuestAddress(params.hdr.cmd_line_ptr.into())).unwrap();
        assert_eq!(&text, b"quiet\0");
        let mut root = [0; 8];
        memory.read_slice(&mut root, GuestAddress(params.acpi_rsdp_addr)).unwrap();
        assert_eq!(&root, b"RSD PTR ");
    }

    #[test]
    fn an_elf_starts_by_its_note_or_by_its_header() {
        for (pvh, instruction, protocol) in
            [(true, 0x100_0040, Protocol::Pvh), (false, 0x100_0000, Protocol::Linux64)]
        {
            let (memory, kernel) = (memory(), elf::tests::kernel(pvh));
            let entry = load(&memory, file(&kernel), Some(file(&[7; 5000])), "quiet", 1).unwrap();
            assert_eq!(entry, Entry { instruction, protocol });
            let word = |at: u64| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
            let is_pvh = word(layout::PVH_START_INFO) == 0x336e_c578;
            let is_linux = word(layout::BOOT_PARAMS + 0x202) == HEADER_MAGIC;
            assert_eq!((is_pvh, is_linux), (pvh, !pvh));
        }
    }

    #[test]
    fn what_cannot_boot_says_why() {
        let mut old = image();
        old[0x236] = 0;
        let changed = |at: usize, value: &[u8]| {
            let mut bytes = image();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        let mut far = elf::tests::kernel(true);
        far[0x813] = 0xff;
        for (kernel, initramfs, words) in [
            (vec![0; 8192], 0, "must be an x86_64 bzImage or ELF"),
            (vec![1], 0, "read the kernel"),
            (old, 0, "CONFIG_X86_64"),
            (image(), 60 << 20, "more memory"),
            (changed(0x260, &u32::MAX.to_le_bytes()), 0, "needs memory up to"),
            (changed(0x258, &u64::MAX.to_le_bytes()), 0, "needs memory up to"),
            (image()[..0x300].to_vec(), 0, "must be an x86_64 bzImage or ELF"),
            (elf::tests::kernel(true)[..100].to_vec(), 0, "cut off"),
            (far, 0, "outside of the memory"),
        ] {
            let initramfs = (initramfs > 0).then(|| file(&vec![0; initramfs]));
            let error = load(&memory(), file(&kernel), initramfs, "", 1).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_memory_map_has_no_overlaps() {
        let memory = crate::memory::create(&layout::ram(4 << 30)).unwrap();
        let mut map = memory_map(&memory);
        map.sort_unstable();
        assert!(map.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        let ram: u64 = map.iter().filter(|(_, _, kind)| *kind == E820_RAM).map(|e| e.1).sum();
        assert!(ram > (4 << 30) - (1 << 20));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A kernel file is a stranger's: any header is refused or loaded, never a panic, and what
        /// is loaded starts in memory.
        #[test]
        fn any_header(
            changes in prop::collection::vec((0usize..0x90, any::<u8>()), 0..8),
            is_elf in any::<bool>(),
            pvh in any::<bool>(),
            length in 0usize..0x3000,
        ) {
            let mut bytes = if is_elf { elf::tests::kernel(pvh) } else { image() };
            for (at, value) in changes {
                // The headers: of a bzImage; of an ELF with its two segments; of the note.
                let at = match (is_elf, at < 0x18) {
                    (false, _) => 0x1f1 + at,
                    (true, true) => 0x800 + at,
                    (true, false) => at,
                };
                bytes[at] = value;
            }
            bytes.truncate(length);
            if let Ok(entry) = load(&memory(), file(&bytes), Some(file(&[0; 100])), "", 1) {
                prop_assert!((layout::HIGH_RAM..64 << 20).contains(&entry.instruction));
            }
        }
    }
}
