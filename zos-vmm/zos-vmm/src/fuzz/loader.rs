//! Kernels that a twin brings.

use crate::arch::{boot, layout};
use crate::memory::{self, PositionedFile};
use std::io::Write;

/// The bytes as a kernel file: loaded, or refused with words; never outside of memory.
pub(super) fn kernel(bytes: &[u8]) {
    let memory = memory::create(&layout::ram(64 << 20)).unwrap();
    let kernel = rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut kernel = std::fs::File::from(kernel);
    kernel.write_all(bytes).unwrap();
    let kernel = PositionedFile::new(kernel).unwrap();
    if let Err(error) = boot::load(&memory, kernel, None, "console=ttyS0", 1) {
        assert!(!error.to_string().is_empty());
    }
}
