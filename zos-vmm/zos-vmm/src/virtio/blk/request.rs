//! One request, from its chain to its status.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a header or data in any split of buffers | legal (virtio 1.2, 2.7.4): read as one stream |
//! | sectors past the end, sums that wrap | status IOERR, nothing read or written |
//! | lengths that are no whole sectors | status IOERR |
//! | a write to a read-only disk | status IOERR, nothing written |
//! | an unknown type | status UNSUPP |
//! | no status byte | given back with nothing written |

use crate::virtio::Chain;
use std::fs::File;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const HEADER_BYTES: usize = 16;
const SECTOR: u64 = 512;

/// The status byte's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What requests are done on.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) file: File,
    pub(super) readonly: bool,
    pub(super) sectors: u64,
    pub(super) serial: [u8; 20],
}

impl Executor {
    /// Does a request; tells how many bytes were written for the driver, the status included.
    pub(super) fn execute(&self, chain: &mut Chain) -> usize {
        let Some(status_byte) = chain.take_status() else { return 0 };
        let room = chain.writable.bytes();
        let status = self.perform(chain).unwrap_or(Status::IoError);
        // What a failed read left in the buffers is undefined, but it counts as written.
        let written = room - chain.writable.bytes();
        chain.set_status(&status_byte, status as u8);
        written + 1
    }

    fn perform(&self, chain: &mut Chain) -> Option<Status> {
        let mut header = [0; HEADER_BYTES];
        if chain.readable.take(&mut header) != HEADER_BYTES {
            return None;
        }
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([a, b, c, d]) {
            T_IN => {
                let offset = self.locate(sector, chain.writable.bytes())?;
                chain.writable.read_all_at(&self.file, offset).ok()?;
            }
            T_OUT if self.readonly => return None,
            T_OUT => {
                let offset = self.locate(sector, chain.readable.bytes())?;
                chain.readable.write_all_at(&self.file, offset).ok()?;
            }
            T_FLUSH if self.readonly => {}
            T_FLUSH => rustix::fs::fdatasync(&self.file).ok()?,
            T_GET_ID => {
                chain.writable.fill(&self.serial);
            }
            _ => return Some(Status::Unsupported),
        }
        Some(Status::Ok)
    }

    /// The byte offset of a transfer that lies wholly on the disk.
    fn locate(&self, sector: u64, bytes: usize) -> Option<u64> {
        let bytes = u64::try_from(bytes).ok()?;
        let end = sector.checked_add(bytes / SECTOR)?;
        (bytes.is_multiple_of(SECTOR) && end <= self.sectors).then(|| sector * SECTOR)
    }
}
