//! Reading a disk past the page cache, so that what is judged is what the medium holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Direct I/O wants its memory and its offsets in multiples of the disk's block; this fits all.
const ALIGNMENT: usize = 4096;

/// Something of fixed size that can be read anywhere.
pub trait ReadAt {
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Exactly `length` bytes from `offset`; both should be multiples of 4096, but for the end.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// The first bytes, at most `length`.
    fn head(&self, length: usize) -> io::Result<Bytes> {
        self.read_at(0, length.min(usize::try_from(self.size()).unwrap_or(usize::MAX)))
    }

    /// The last bytes: at least `length`, or all.
    fn tail(&self, length: usize) -> io::Result<(u64, Bytes)> {
        let from = self.size().saturating_sub(length as u64);
        let from = from - from % ALIGNMENT as u64;
        let length = usize::try_from(self.size() - from).map_err(io::Error::other)?;
        Ok((from, self.read_at(from, length)?))
    }
}

/// Bytes in memory that direct I/O may fill.
#[derive(Debug)]
pub struct Bytes {
    memory: Vec<u8>,
    from: usize,
    length: usize,
}

impl Bytes {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let from = memory.as_ptr().align_offset(ALIGNMENT);
        Self { from, memory, length }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.length]
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self { memory: bytes.to_vec(), from: 0, length: bytes.len() }
    }
}

/// A part of a disk. What the kernel or a table says of it may be wrong: reads stay on the disk.
#[derive(Debug)]
pub struct Window<'a, D: ?Sized> {
    /// The disk.
    pub disk: &'a D,
    /// Where the part begins.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl<D: ReadAt + ?Sized> ReadAt for Window<'_, D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let at = self.start.checked_add(offset);
        let end = at.and_then(|at| at.checked_add(length as u64));
        match (at, end) {
            (Some(at), Some(end)) if end <= self.disk.size() => self.disk.read_at(at, length),
            _ => Err(io::Error::other("it lies beyond the disk's end")),
        }
    }
}

/// A disk, open for reading only.
#[derive(Debug)]
pub struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    /// Opens a disk (or an image file) of a known size.
    pub fn open(path: &Path, size: u64) -> io::Result<Self> {
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(direct).open(path);
        let file = match opened {
            // What lies in memory has no direct I/O.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(path)?,
            opened => opened?,
        };
        Ok(Self { file, size })
    }
}

impl ReadAt for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = Bytes::new(length);
        let range = bytes.from..bytes.from + length;
        self.file.read_exact_at(&mut bytes.memory[range], offset)?;
        Ok(bytes)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = from.checked_add(length).and_then(|to| self.get(from..to));
        bytes.map(Bytes::from).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
