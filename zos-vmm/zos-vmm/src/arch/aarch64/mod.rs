//! aarch64: Linux's Image, a device tree, GICv3 with ITS, PSCI; the timer, GIC and PSCI in KVM.
//!
//! What needs no KVM of this kind is compiled for tests on any host.

// On another host only tests use these modules.
#![cfg_attr(not(target_arch = "aarch64"), allow(dead_code, unreachable_pub))]

pub mod boot;
#[cfg(target_arch = "aarch64")]
pub mod chip;
mod fdt;
pub mod layout;
mod pl011;
mod pl061;
#[cfg(target_arch = "aarch64")]
mod platform;
#[cfg(target_arch = "aarch64")]
pub mod vcpu;

#[cfg(target_arch = "aarch64")]
pub use platform::Platform;

/// A register of a PrimeCell's identification: a byte in each word.
fn identification(ids: &[u8; 8], offset: u64) -> u32 {
    let byte = usize::try_from(offset / 4).ok().and_then(|index| ids.get(index));
    byte.copied().map_or(0, u32::from)
}
