//! The console ring as its reader sees it. The other side is a VMM that a guest may have taken
//! over, so nothing in the file is believed.
//!
//! ```text
//!  0        8          16            4096                        4096 + capacity
//!  | magic  | capacity | total       | data: byte n of the log stands at n % capacity |
//! ```
//!
//! | What the writer may do | What happens |
//! |------------------------|--------------|
//! | another magic or capacity | they are not read: the capacity is ours |
//! | any `total` | at most one capacity of bytes is read, all from within the data |
//! | cut the file short | what is missing is not read; the file is never mapped, so no SIGBUS |
//! | write while it is read | what it counted as overwritten meanwhile is left out |
//! | `total` back to an earlier value | the reader goes on from the new end |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of log that a ring holds.
pub const CAPACITY: u64 = 256 * 1024;
const TOTAL_AT: u64 = 16;
const DATA_AT: u64 = 4096;

/// A piece of a console's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Bytes ever written before it.
    pub from: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Piece {
    /// Where it ends.
    pub fn next(&self) -> u64 {
        self.from.wrapping_add(self.data.len() as u64)
    }
}

/// Opens a ring for reading and writing, or makes it.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() != DATA_AT + CAPACITY {
        file.set_len(0)?;
        file.set_len(DATA_AT + CAPACITY)?;
        let mut header = [0; 24];
        header[..8].copy_from_slice(b"ZOSRING1");
        header[8..16].copy_from_slice(&CAPACITY.to_le_bytes());
        file.write_all_at(&header, 0)?;
    }
    Ok(file)
}

/// The log from a position on, as far as it is held; at most one capacity.
pub fn read(file: &File, from: u64) -> io::Result<Piece> {
    let end = total(file)?;
    let held = end.min(CAPACITY);
    let wanted = end.checked_sub(from).map_or(0, |length| length.min(held));
    let mut piece = Piece { from: end - wanted, data: bytes(file, end - wanted, wanted)? };
    // The writer may have gone over the oldest meanwhile.
    let oldest = total(file)?.saturating_sub(CAPACITY);
    let lost = oldest.saturating_sub(piece.from).min(piece.data.len() as u64);
    piece.data.drain(..usize::try_from(lost).unwrap_or(usize::MAX));
    piece.from += lost;
    Ok(piece)
}

fn total(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, TOTAL_AT)?;
    Ok(u64::from_le_bytes(bytes))
}

/// `length` bytes of the log from a position on; `length` is at most the capacity.
fn bytes(file: &File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let position = from % CAPACITY;
    let first = length.min(CAPACITY - position);
    let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
    let (before, after) = data.split_at_mut(usize::try_from(first).unwrap_or(0));
    file.read_exact_at(before, DATA_AT + position)?;
    file.read_exact_at(after, DATA_AT)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder.path().join("0.ring")).unwrap();
        (folder, file)
    }

    /// What a good writer does.
    fn append(file: &File, log: &mut Vec<u8>, bytes: &[u8]) {
        for &byte in bytes {
            file.write_all_at(&[byte], DATA_AT + log.len() as u64 % CAPACITY).unwrap();
            log.push(byte);
        }
        file.write_all_at(&(log.len() as u64).to_le_bytes(), TOTAL_AT).unwrap();
    }

    #[test]
    fn what_was_written_is_read_from_any_position() {
        let (_folder, file) = ring();
        let mut log = Vec::new();
        assert_eq!(read(&file, 0).unwrap(), Piece::default());
        append(&file, &mut log, b"hello\n");
        assert_eq!(read(&file, 0).unwrap(), Piece { from: 0, data: b"hello\n".to_vec() });
        assert_eq!(read(&file, 4).unwrap(), Piece { from: 4, data: b"o\n".to_vec() });
        assert_eq!(read(&file, 6).unwrap(), Piece { from: 6, data: vec![] });
        // A position from the time before a reset: the new end.
        assert_eq!(read(&file, 700).unwrap(), Piece { from: 6, data: vec![] });
    }

    #[test]
    fn the_oldest_goes_first_and_a_ring_is_found_again() {
        let (folder, file) = ring();
        let start = CAPACITY - 3;
        file.write_all_at(b"abc", DATA_AT + start).unwrap();
        file.write_all_at(b"def", DATA_AT).unwrap();
        file.write_all_at(&(CAPACITY + 3).to_le_bytes(), TOTAL_AT).unwrap();
        let piece = read(&file, 0).unwrap();
        assert_eq!((piece.from, piece.data.len() as u64), (3, CAPACITY));
        assert!(piece.data.ends_with(b"abcdef"));
        let again = open(&folder.path().join("0.ring")).unwrap();
        assert_eq!(read(&again, start).unwrap().data, b"abcdef");
    }

    #[test]
    fn a_file_cut_short_is_an_error_and_is_made_anew() {
        let (folder, file) = ring();
        file.write_all_at(&9u64.to_le_bytes(), TOTAL_AT).unwrap();
        file.set_len(DATA_AT).unwrap();
        assert!(read(&file, 0).is_err());
        let again = open(&folder.path().join("0.ring")).unwrap();
        assert_eq!(read(&again, 0).unwrap(), Piece::default());
    }

    proptest! {
        #[test]
        fn any_header_is_read_within_bounds(header: [u8; 24], from: u64) {
            let (_folder, file) = ring();
            file.write_all_at(&header, 0).unwrap();
            let piece = read(&file, from).unwrap();
            prop_assert!(piece.data.len() as u64 <= CAPACITY);
            let total = u64::from_le_bytes(header[16..].try_into().unwrap());
            prop_assert_eq!(piece.next(), total);
            prop_assert!(piece.from >= from.min(total));
        }

        #[test]
        fn pieces_one_after_the_other_are_the_log(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let (_folder, file) = ring();
            let (mut log, mut seen, mut at) = (Vec::new(), Vec::new(), 0);
            for bytes in writes {
                append(&file, &mut log, &bytes);
                let piece = read(&file, at).unwrap();
                prop_assert_eq!(piece.from, at);
                at = piece.next();
                seen.extend(piece.data);
            }
            prop_assert_eq!(seen, log);
        }
    }
}
