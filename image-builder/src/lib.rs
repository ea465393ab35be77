//! Builds ZOS: two kernels, an initramfs, and every form in which a machine can boot them.
//!
//! ```text
//!  inputs.toml ─update▶ inputs.lock ─fetch▶ cache ┬▶ kernel (node, guest) ◀─ kernel-config/*.config
//!                                                 ├▶ foreign tools + libraries (elf)
//!                                                 ├▶ firmware ◀─ kernel-config/firmware.toml, checked against the kernel
//!                                                 └▶ microcode
//!  our programs (cargo, static musl) ─────────────┐
//!                                                 ▼
//!                       root (what lies where) ─▶ cpio ─▶ initramfs.img ┬▶ uki ─▶ zos.efi ─▶ usb ─▶ zos-usb.img
//!                                                                       └▶ pxe/
//!                                                 manifest.json: sizes, hashes, versions, inputs; the size gate
//! ```
//!
//! The same inputs give the same bytes: no clock, no random number and no order of a directory gets in.
//! What is absent: no shell pipeline, no loop device, no root privilege, and nothing is installed on the machine.
#![forbid(unsafe_code)]

pub mod apt;
pub mod arch;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod elf;
pub mod error;
pub mod fat;
pub mod fetch;
pub mod firmware;
pub mod image;
pub mod initramfs;
pub mod inputs;
pub mod kernel;
pub mod layout;
pub mod manifest;
pub mod programs;
pub mod progress;
pub mod project;
pub mod pxe;
pub mod root;
pub mod tool;
pub mod uki;
pub mod update;
pub mod usb;

pub use error::{Error, Result};
