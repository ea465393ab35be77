//! The console ring: a file shared with its readers, which outlives VMM and `vmd`.
//!
//! ```text
//!  0        8          16            4096                        4096 + capacity
//!  | magic  | capacity | total       | data: byte n of the log stands at n % capacity |
//!  ZOSRING1   u64 LE     u64 LE, stored after the data it counts (release)
//! ```
//!
//! A ring that already has a valid header is continued, so that the log of a restarted VM follows
//! the one before.

use std::fs::File;
use std::sync::atomic::Ordering;
use vm_memory::{
    Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileMemoryError, VolatileSlice,
};

const MAGIC: [u8; 8] = *b"ZOSRING1";
const CAPACITY_AT: usize = 8;
const TOTAL_AT: usize = 16;
const DATA_AT: usize = 4096;
/// Data bytes of a ring without a header.
const CAPACITY: usize = 256 << 10;

/// The writer of a ring.
#[derive(Debug)]
pub struct Ring {
    mapping: MmapRegion<()>,
    capacity: usize,
    total: u64,
}

/// Why a file can't be a ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Its length.
    #[error("the console file has {0} bytes: a ring needs more than 4096")]
    Short(u64),
    /// Mapping it.
    #[error("map the console file")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// Telling its length.
    #[error("read the console file's length")]
    Length(#[source] std::io::Error),
    /// Outside of the mapping.
    #[error("touch the console ring")]
    Access(#[from] VolatileMemoryError),
}

impl Ring {
    /// Takes over a file: continues its ring, or starts one when its header is missing or wrong.
    ///
    /// # Errors
    /// The file is too short or can't be mapped.
    pub fn open(file: File) -> Result<Self, RingError> {
        let length = file.metadata().map_err(RingError::Length)?.len();
        let size = usize::try_from(length).map_err(|_| RingError::Short(length))?;
        if size <= DATA_AT {
            return Err(RingError::Short(length));
        }
        let mapping =
            MmapRegion::from_file(FileOffset::new(file, 0), size).map_err(RingError::Map)?;
        let mut ring = Self { capacity: CAPACITY.min(size - DATA_AT), total: 0, mapping };
        if !ring.adopt_header(size)? {
            let slice = ring.mapping.as_volatile_slice();
            slice.store(0u64, TOTAL_AT, Ordering::Relaxed)?;
            slice.store((ring.capacity as u64).to_le(), CAPACITY_AT, Ordering::Relaxed)?;
            slice.subslice(0, MAGIC.len())?.copy_from(&MAGIC);
        }
        Ok(ring)
    }

    /// Whether the header is one to go on with.
    fn adopt_header(&mut self, size: usize) -> Result<bool, RingError> {
        let slice = self.mapping.as_volatile_slice();
        let mut magic = [0u8; MAGIC.len()];
        slice.subslice(0, MAGIC.len())?.copy_to(&mut magic);
        let capacity = u64::from_le(slice.load(CAPACITY_AT, Ordering::Relaxed)?);
        let Ok(capacity) = usize::try_from(capacity) else { return Ok(false) };
        if magic != MAGIC || capacity == 0 || capacity > size - DATA_AT {
            return Ok(false);
        }
        self.capacity = capacity;
        self.total = u64::from_le(slice.load(TOTAL_AT, Ordering::Acquire)?);
        Ok(true)
    }

    /// Appends to the log.
    pub fn append(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.capacity) {
            // Within bounds by `open`; an error here could only be a bug, and costs log, not life.
            let _ = self.append_piece(piece);
        }
    }

    fn append_piece(&mut self, piece: &[u8]) -> Result<(), VolatileMemoryError> {
        let slice = self.mapping.as_volatile_slice();
        let data: VolatileSlice<'_> = slice.subslice(DATA_AT, self.capacity)?;
        let position = usize::try_from(self.total % self.capacity as u64).unwrap_or(0);
        let first = piece.len().min(self.capacity - position);
        data.subslice(position, first)?.copy_from(&piece[..first]);
        data.subslice(0, piece.len() - first)?.copy_from(&piece[first..]);
        self.total = self.total.wrapping_add(piece.len() as u64);
        slice.store(self.total.to_le(), TOTAL_AT, Ordering::Release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    fn file(length: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length as u64).unwrap();
        file
    }

    fn word(file: &File, at: usize) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn a_hostile_header_is_replaced() {
        for capacity in [0, 1 << 40, u64::MAX, (1 << 20) + 1] {
            let file = file(DATA_AT + (1 << 20));
            file.write_all_at(&MAGIC, 0).unwrap();
            file.write_all_at(&u64::to_le_bytes(capacity), 8).unwrap();
            file.write_all_at(&[0xff; 8], 16).unwrap();
            let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
            ring.append(b"x");
            assert_eq!((word(&file, 8), word(&file, 16)), (CAPACITY as u64, 1));
        }
    }

    #[test]
    fn a_short_file_is_refused() {
        assert!(matches!(Ring::open(file(4096)), Err(RingError::Short(4096))));
    }

    proptest! {
        /// A reader that knows only the format finds the end of what was written, over restarts.
        #[test]
        fn the_last_bytes_are_there(
            capacity in 1usize..50,
            writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..12),
        ) {
            let file = file(DATA_AT + capacity);
            let mut log = Vec::new();
            for bytes in &writes {
                Ring::open(file.try_clone().unwrap()).unwrap().append(bytes);
                log.extend_from_slice(bytes);
            }
            Ring::open(file.try_clone().unwrap()).unwrap();
            let total = usize::try_from(word(&file, 16)).unwrap();
            prop_assert_eq!(total, log.len());
            let mut data = vec![0; capacity];
            file.read_exact_at(&mut data, DATA_AT as u64).unwrap();
            for at in log.len().saturating_sub(capacity)..log.len() {
                prop_assert_eq!(data[at % capacity], log[at]);
            }
        }
    }
}
