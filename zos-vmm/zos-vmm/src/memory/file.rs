//! A file read at a position of our own.
//!
//! Passed descriptors may be shared with other VMs that start at the same time; reading with
//! `pread` leaves the shared offset alone.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// A file with its own position.
#[derive(Debug)]
pub struct PositionedFile {
    file: File,
    position: u64,
    length: u64,
}

impl PositionedFile {
    /// Starts at the file's beginning.
    ///
    /// # Errors
    /// The file's length can't be told.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, position: 0, length })
    }

    /// Length in bytes when it was opened.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Read for PositionedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for PositionedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.length.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl ReadVolatile for PositionedFile {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let failed = VolatileMemoryError::IOError;
        let offset = i64::try_from(self.position)
            .map_err(|_| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let target = buffer.ptr_guard_mut();
        // SAFETY: the guard's pointer is writable for `len` bytes for as long as the guard lives,
        // and the memory is the guest's: it is only ever accessed as raw bytes.
        let read = unsafe {
            libc::pread(self.file.as_raw_fd(), target.as_ptr().cast(), buffer.len(), offset)
        };
        let read = usize::try_from(read).map_err(|_| failed(io::Error::last_os_error()))?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reading_leaves_the_shared_offset_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let mut positioned = PositionedFile::new(file.try_clone().unwrap()).unwrap();
        assert_eq!(positioned.seek(SeekFrom::End(-3)).unwrap(), 7);
        let mut bytes = [0u8; 8];
        assert_eq!(positioned.read_volatile(&mut VolatileSlice::from(&mut bytes[..])).unwrap(), 3);
        assert_eq!(&bytes[..3], b"789");
        assert!(positioned.seek(SeekFrom::Current(-11)).is_err());
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "0123456789");
    }
}
