//! The writer's side of a console ring, as `zos-vmm` has it.
//!
//! ```text
//!  0        8          16            4096                        4096 + capacity
//!  | magic  | capacity | total       | data: byte n of the log stands at n % capacity |
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const TOTAL_AT: u64 = 16;
const DATA_AT: u64 = 4096;

/// A ring that is appended to.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    capacity: u64,
    total: u64,
}

impl Ring {
    /// Goes on where the ring ends.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let mut header = [0; 24];
        file.read_exact_at(&mut header, 0)?;
        let word =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let (capacity, total) = (word(8), word(16));
        if &header[..8] != b"ZOSRING1"
            || file.metadata()?.len() != DATA_AT + capacity
            || capacity == 0
        {
            return Err(io::Error::other("the console is no ring"));
        }
        Ok(Self { file, capacity, total })
    }

    /// Writes bytes, then that they are there.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let at = self.total % self.capacity;
            let room = usize::try_from(self.capacity - at).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.file.write_all_at(now, DATA_AT + at)?;
            self.total += now.len() as u64;
            bytes = rest;
        }
        self.file.write_all_at(&self.total.to_le_bytes(), TOTAL_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written here is what vmd reads, also past the ring's end.
    #[test]
    fn the_reader_reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.ring");
        let mut ring = Ring::new(vmd::ring::open(&path).unwrap()).unwrap();
        ring.append(b"first\n").unwrap();
        let reader = vmd::ring::open(&path).unwrap();
        assert_eq!(vmd::ring::read(&reader, 0).unwrap().data, b"first\n");
        for number in 0..9000 {
            ring.append(format!("this is line {number} of many lines\n").as_bytes()).unwrap();
        }
        let piece = vmd::ring::read(&reader, 0).unwrap();
        assert_eq!(piece.data.len() as u64, vmd::ring::CAPACITY);
        assert!(piece.data.ends_with(b"\nthis is line 8999 of many lines\n"));
        // The next VMM goes on where this one ended.
        let mut next = Ring::new(vmd::ring::open(&path).unwrap()).unwrap();
        next.append(b"next\n").unwrap();
        assert!(vmd::ring::read(&reader, piece.next()).unwrap().data == b"next\n");
        assert!(Ring::new(tempfile::tempfile().unwrap()).is_err());
    }
}
