//! x86_64: Linux's 64-bit boot protocol, ACPI without legacy hardware, in-kernel APICs.

mod acpi;
pub mod boot;
pub mod chip;
pub mod layout;
mod platform;
mod tables;
pub mod vcpu;

pub use platform::Platform;
