//! A disk is given back: nothing that was on it can be read any more.
//!
//! ```text
//!  header "wiping" ─▶ discard, or zeros over all where the disk knows no discard ─▶ zeros over both ends ─▶ header "released"
//!       │ a cut: wiped again from the start                                               │ 4 KiB at 512 KiB stay
//! ```
//! That header stays so that no boot adopts the disk again while it waits to be taken out. No other
//! system takes it for anything.

use std::fs::File;
use std::io;

use zos_host::block;

use super::lay;
use crate::disk::header;
use crate::disk::judge::ENDS;

/// Bytes that are wiped between two words about it.
const PIECE: u64 = 256 << 20;

/// Wipes a disk but for the pool header; durable when it returns.
pub fn wipe(file: &File, size: u64, told: &dyn Fn(u8)) -> io::Result<()> {
    let from = header::AT + header::SIZE as u64;
    let (mut zeros, mut at) = (false, from);
    let aligned = size / 4096 * 4096;
    while at < aligned {
        told(u8::try_from(at / (size / 100)).unwrap_or(100));
        let length = PIECE.min(aligned - at);
        let discarded = if zeros { Ok(()) } else { block::discard(file, at, length) };
        zeros |= discarded.is_err();
        if zeros {
            block::zero(file, at, length)?;
        }
        at += length;
    }
    // What was discarded need not read as zeros: the ends do, and show no mark to anybody.
    lay::zero(file, from, ENDS.min(size) - from)?;
    lay::zero(file, size.saturating_sub(ENDS).max(from), ENDS.min(size - from))?;
    lay::zero(file, 4096, header::AT - 4096)?;
    lay::zero(file, 0, 4096)?;
    lay::Target::sync(file)
}
