//! A disk's bytes: reading them, what they mean, and what they make the disk.
//!
//! ```text
//!  read ─▶ gpt, header, signature ─▶ judge ─▶ Verdict: ours | foreign | blank | ...
//!                                      └────▶ sample: a blank disk is empty, or isn't
//! ```
//! Nothing here writes.

pub mod fingerprint;
pub mod gpt;
pub mod header;
pub mod judge;
pub mod marks;
pub mod read;
pub mod signature;
