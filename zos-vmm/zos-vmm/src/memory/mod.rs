//! The guest's memory: one shared memfd, mapped once, never unmapped while the VM lives.
//!
//! ```text
//!  guest-physical ranges (arch::layout) ──▶ memfd, ranges one behind the other ──▶ mappings here
//!                                                                               └▶ KVM memory slots
//! ```
//!
//! A memfd, so that a vhost-user process can share it and a kexec can keep it one day.
#![allow(unsafe_code)]

mod file;
mod iovec;

pub use file::PositionedFile;
pub use iovec::{IoVecError, IoVecs};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::File;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

/// The guest's memory. Cloning shares it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Why the guest's memory couldn't be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The memfd.
    #[error("make a memory file of {bytes} bytes for the guest (RLIMIT_FSIZE must allow it)")]
    File {
        /// Its size.
        bytes: u64,
        /// Cause.
        source: rustix::io::Errno,
    },
    /// Mapping it.
    #[error("map the guest's memory")]
    Map(#[source] vm_memory::mmap::FromRangesError),
    /// Telling KVM of it.
    #[error("give the guest its memory at {address:#x}")]
    Slot {
        /// Guest-physical address.
        address: u64,
        /// Cause.
        source: kvm_ioctls::Error,
    },
}

/// Makes the memory for these guest-physical ranges (address, bytes).
///
/// # Errors
/// No memory file, or no room in the address space.
pub fn create(ranges: &[(GuestAddress, usize)]) -> Result<GuestMemory, MemoryError> {
    let bytes: u64 = ranges.iter().map(|(_, size)| *size as u64).sum();
    let failed = |source| MemoryError::File { bytes, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("guest-memory", flags).map_err(failed)?;
    ftruncate(&memfd, bytes).map_err(failed)?;
    // A vhost-user process that has it, too, can't pull it away beneath us.
    let size_stays = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memfd, size_stays).map_err(failed)?;
    let file = File::from(memfd);
    let mut offset = 0;
    let mut files = Vec::with_capacity(ranges.len());
    for (address, size) in ranges {
        let file = file.try_clone().map_err(|_| failed(rustix::io::Errno::MFILE))?;
        files.push((*address, *size, Some(FileOffset::new(file, offset))));
        offset += *size as u64;
    }
    let memory = GuestMemory::from_ranges_with_files(files).map_err(MemoryError::Map)?;
    memory.iter().for_each(advise_huge_pages);
    Ok(memory)
}

/// Asks for huge pages: fewer faults while the guest starts. A refusal costs only time.
fn advise_huge_pages(region: &GuestRegionMmap<()>) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the range is exactly one mapping of ours, and this advice doesn't change its content.
    let _ = unsafe { madvise(region.as_ptr().cast(), region.size(), Advice::LinuxHugepage) };
}

/// Gives the memory to KVM, a slot per range.
///
/// # Errors
/// KVM refuses a slot.
pub fn register(vm: &kvm_ioctls::VmFd, memory: &GuestMemory) -> Result<(), MemoryError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let address = region.start_addr().0;
        let mapping = kvm_bindings::kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: address,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the mapping is valid for its whole length, overlaps no other slot, and outlives
        // the VM: `Machine` holds a clone of the memory beside the VM's descriptor.
        unsafe { vm.set_user_memory_region(mapping) }
            .map_err(|source| MemoryError::Slot { address, source })?;
    }
    Ok(())
}
