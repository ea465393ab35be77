//! What differs between processors, chosen at compile time. Everything outside is the same code.
//!
//! An architecture gives: [`layout`] (the guest-physical address space), [`chip`] (interrupt
//! controller and timers in KVM), [`boot`] (kernel, tables, what the first instruction finds),
//! [`vcpu`] (registers and CPU features), [`Platform`] (ports: serial, power, debug).

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{Platform, boot, chip, layout, vcpu};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("zos-vmm runs on x86_64; another architecture gives a module like arch/x86_64");
