//! Power cuts: everything that a node's disks were told is recorded, cut anywhere, and what is left is looked at.
//!
//! ```text
//!  a node in QEMU ── blklogwrites ──▶ log ─┐                          medium: all up to the last flush,
//!      │ asked, acknowledged               ├─ cut (a seed) ─▶ replay ─▶ and what chance leaves of the rest
//!      └────────────────── facts ──────────┘                                │
//!                            └───────────── judge ◀── found ◀── check: judge, settle, mount, stores, sweep
//! ```
//! With two disks each has its log, and `order` knows what is a cut of both at one moment.
//! What it proves and what not stands in docs/storage.md. Killing QEMU instead would prove little: what this computer has
//! cached outlives that, so a flush that is missing would not be missed.

pub mod chance;
pub mod check;
pub mod facts;
pub mod failed;
pub mod log;
pub mod medium;
pub mod order;
pub mod recording;
pub mod replay;
pub mod run;
pub mod scenario;
mod state;
mod volumes;

/// A folder for media, in memory where there is room in it.
pub fn place() -> anyhow::Result<tempfile::TempDir> {
    use anyhow::Context as _;
    let memory = std::path::Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let made = if memory.is_dir() {
        builder.prefix("zos-cuts-").tempdir_in(memory)
    } else {
        builder.prefix("zos-cuts-").tempdir()
    };
    made.context("make a folder for media")
}
