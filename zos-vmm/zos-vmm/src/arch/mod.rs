//! What differs between processors, chosen at compile time. Everything outside is the same code.
//!
//! An architecture gives: [`layout`] (the guest-physical address space), [`chip`] (the VM, its
//! interrupt controllers and timers in KVM), [`boot`] (kernel, tables, what the first instruction
//! finds), [`vcpu`] (registers, CPU features, exits of its own), [`Platform`] (serial port, power).

#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::{Platform, boot, chip, layout, vcpu};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{Platform, boot, chip, layout, vcpu};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("zos-vmm runs on x86_64 and aarch64; another one gives a module like arch/x86_64");
