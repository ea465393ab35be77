//! zos-vmm: runs one VM. In the jail it takes a spec and named descriptors, and opens nothing.
//!
//! ```text
//!  main: cli ─▶ spec ─▶ Resources (open) ─▶ jail ─▶ Machine (built) ─▶ threads ─▶ wait ─▶ report
//!
//!  threads:   main (signals, end)   api   a vCPU each   a worker for each device
//!  floors:    control ▶ machine ▶ vcpu ▶ arch::Platform, pci ▶ virtio ▶ memory
//! ```
//!
//! Everything that a guest writes is hostile: registers, rings, descriptors, the kernel image.
//! Each module says in a table what a guest may try there, and what happens.
//!
//! What is absent: firmware and an instruction emulator of ours (Linux is booted directly), any
//! legacy interrupt of PCI (MSI-X only); in the jail a thread made after the start, and a path opened
//! after it. A developer's VMM with an API socket makes machines one after another, and needs both.

// Unsafe code stands in the modules that allow it by name: memory, the tap's ioctls, taking over
// passed descriptors, KVM's descriptor, the keeper's fork.
#![deny(unsafe_code)]

pub mod api;
pub mod arch;
pub mod console;
pub mod control;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod hypervisor;
pub mod jail;
pub mod keeper;
pub mod lifecycle;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod rate;
pub mod resources;
pub mod sockets;
pub mod stats;
pub mod vcpu;
pub mod virtio;
