//! Disks by the farmer's word: taken over with all that is on them, and given back.
//!
//! ```text
//!  contents ── what is on it ──▶ plan ── hash ──▶ the farmer ── hash ──▶ lay: header, wipe, table
//!                                                                release: pool emptied ─▶ wiped
//! ```
//! The hash is taken again with the disk open for nobody else, before the first byte is written.

pub mod contents;
mod label;
pub mod lay;
pub mod plan;
pub mod release;
