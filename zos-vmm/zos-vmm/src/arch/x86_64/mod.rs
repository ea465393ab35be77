//! x86_64: Linux's 64-bit boot protocol and PVH, ACPI without legacy hardware, in-kernel APICs.

mod acpi;
pub mod boot;
pub mod chip;
mod elf;
pub mod layout;
mod platform;
mod pvh;
mod tables;
pub mod vcpu;

pub use platform::Platform;
