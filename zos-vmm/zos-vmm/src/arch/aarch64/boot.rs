//! Kernel, initramfs and device tree into memory (Linux, Documentation/arch/arm64/booting.rst).
//!
//! ```text
//!  device tree at the start of RAM │ Image at 2 MiB + text_offset, image_size bytes │ ... │ initramfs
//! ```
//!
//! | A stranger's kernel may | What happens |
//! |---|---|
//! | be no Image, be cut off, be compressed | refused, with words |
//! | name an offset or a size beyond the memory | refused before a byte is read |
//! | be big-endian | refused |

use super::{fdt, layout};
use crate::memory::{GuestMemory, PositionedFile};
use std::io::Read;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub instruction: u64,
    /// The device tree.
    pub device_tree: u64,
}

/// Why a kernel can't be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Not a kernel.
    #[error("load the kernel: it must be an arm64 Image, but {0}")]
    Kernel(&'static str),
    /// It doesn't fit.
    #[error("the kernel needs memory up to {needs:#x}, the VM's ends at {end:#x}: give it more")]
    Memory {
        /// First address behind the kernel.
        needs: u64,
        /// First address behind RAM.
        end: u64,
    },
    /// No room.
    #[error("an initramfs of {bytes} bytes doesn't fit beside the kernel: give the VM more memory")]
    Initramfs {
        /// Its length.
        bytes: u64,
    },
    /// The device tree.
    #[error("make the device tree")]
    Tree(#[source] vm_fdt::Error),
    /// Random numbers.
    #[error("draw a seed for the guest")]
    Seed(#[source] rustix::io::Errno),
    /// Reading the files, writing the memory.
    #[error("read kernel and initramfs into the memory")]
    Write(#[from] GuestMemoryError),
}

/// An Image's header (64 bytes at its start).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the image wants to stand, counted from a border of 2 MiB.
    pub text_offset: u64,
    /// Bytes that it needs, those behind its file's end included.
    pub image_size: u64,
}

const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"ARM\x64";
const BIG_ENDIAN: u64 = 1;
/// The header's words for kernels of before 3.17, which tell no size.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// No kernel is larger; what says so is no kernel.
const MOST_BYTES: u64 = 1 << 30;

/// Reads a header.
///
/// # Errors
/// What is wrong with it.
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, BootError> {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    if bytes[..2] == [0x1f, 0x8b] {
        return Err(BootError::Kernel("it is compressed: unpack it"));
    }
    if bytes[56..60] != MAGIC {
        return Err(BootError::Kernel("it has no Image header"));
    }
    let (text_offset, image_size, flags) = (word(8), word(16), word(24));
    if flags & BIG_ENDIAN != 0 {
        return Err(BootError::Kernel("it is big-endian"));
    }
    if text_offset >= MOST_BYTES || image_size >= MOST_BYTES {
        return Err(BootError::Kernel("its header tells a size of more than 1 GiB"));
    }
    let text_offset = if image_size == 0 { OLD_TEXT_OFFSET } else { text_offset };
    Ok(Header { text_offset, image_size })
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
    let ram_bytes: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
    let ram_end = layout::RAM + ram_bytes;
    let (instruction, kernel_end) = load_kernel(memory, kernel, ram_end)?;
    let initramfs = match initramfs {
        None => None,
        Some(mut image) => {
            let bytes = image.length();
            let no_room = BootError::Initramfs { bytes };
            let start = ram_end.checked_sub(bytes).map(|start| start & !0xfff);
            let Some(start) = start.filter(|start| *start >= kernel_end) else {
                return Err(no_room);
            };
            let length = usize::try_from(bytes).map_err(|_| no_room)?;
            memory.read_exact_volatile_from(GuestAddress(start), &mut image, length)?;
            Some((start, bytes))
        }
    };
    let mut seed = [0; 64];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(BootError::Seed)?;
    let contents = fdt::Contents { cpus, ram_bytes, cmdline, initramfs, seed: &seed };
    let tree = fdt::tree(&contents).map_err(BootError::Tree)?;
    if tree.len() as u64 > layout::FDT_BYTES {
        return Err(BootError::Tree(vm_fdt::Error::TotalSizeTooLarge));
    }
    memory.write_slice(&tree, GuestAddress(layout::FDT))?;
    Ok(Entry { instruction, device_tree: layout::FDT })
}

/// First instruction, and first address behind what the kernel needs.
fn load_kernel(
    memory: &GuestMemory,
    mut kernel: PositionedFile,
    ram_end: u64,
) -> Result<(u64, u64), BootError> {
    let mut start = [0; HEADER_BYTES];
    kernel.read_exact(&mut start).map_err(|_| BootError::Kernel("it is cut off"))?;
    let header = header(&start)?;
    // The bytes above 1 GiB need no look: `needs` is beyond them or the file is none of a kernel.
    let length = kernel.length().min(MOST_BYTES);
    let at = layout::KERNEL + header.text_offset;
    let needs = at + length.max(header.image_size);
    if needs > ram_end {
        return Err(BootError::Memory { needs, end: ram_end });
    }
    let behind = usize::try_from(length).unwrap_or(0).saturating_sub(HEADER_BYTES);
    memory.write_slice(&start, GuestAddress(at))?;
    let rest = GuestAddress(at + HEADER_BYTES as u64);
    memory.read_exact_volatile_from(rest, &mut kernel, behind)?;
    Ok((at, needs))
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

    /// The smallest thing with an Image's header.
    fn image() -> Vec<u8> {
        let mut bytes = vec![3; 8192];
        bytes[..HEADER_BYTES].fill(0);
        bytes[16..24].copy_from_slice(&0x1_0000u64.to_le_bytes());
        bytes[24] = 0b1010;
        bytes[56..60].copy_from_slice(&MAGIC);
        bytes
    }

    #[test]
    fn a_kernel_finds_what_it_needs() {
        let memory = memory();
        let entry = load(&memory, file(&image()), Some(file(&[7; 5000])), "quiet", 2).unwrap();
        assert_eq!(entry, Entry { instruction: 0x4020_0000, device_tree: 0x4000_0000 });
        let byte = |at: u64| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!((byte(0x4020_0000 + 56), byte(0x4020_0000 + 8191)), (b'A', 3));
        let end = layout::RAM + (64 << 20);
        assert_eq!((byte(end - 8192), byte(end - 8192 + 4999), byte(end - 8192 + 5000)), (7, 7, 0));
        let magic: u32 = memory.read_obj(GuestAddress(entry.device_tree)).unwrap();
        assert_eq!(u32::from_be(magic), 0xd00d_feed);
    }

    #[test]
    fn what_cannot_boot_says_why() {
        let changed = |at: usize, value: &[u8]| {
            let mut bytes = image();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        for (kernel, initramfs, words) in [
            (vec![0; 8192], 0, "no Image header"),
            (image()[..60].to_vec(), 0, "cut off"),
            (changed(0, &[0x1f, 0x8b]), 0, "compressed"),
            (changed(24, &[1]), 0, "big-endian"),
            (changed(8, &u64::MAX.to_le_bytes()), 0, "more than 1 GiB"),
            (changed(16, &u64::MAX.to_le_bytes()), 0, "more than 1 GiB"),
            (changed(16, &(63u64 << 20).to_le_bytes()), 0, "needs memory up to"),
            (image(), 62 << 20, "more memory"),
        ] {
            let initramfs = (initramfs > 0).then(|| file(&vec![0; initramfs]));
            let error = load(&memory(), file(&kernel), initramfs, "", 1).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A kernel file is a stranger's: any header is refused or loaded, never a panic.
        #[test]
        fn any_header(
            changes in prop::collection::vec((0usize..HEADER_BYTES, any::<u8>()), 0..24),
            length in 0usize..8192,
        ) {
            let mut bytes = image();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(length);
            let _ = load(&memory(), file(&bytes), Some(file(&[0; 100])), "", 1);
        }
    }
}
