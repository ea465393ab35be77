//! What a disk was told, in its order: the log of QEMU's `blklogwrites`, in the form of Linux's `dm-log-writes`.
//!
//! ```text
//!  sector 0     magic u64 ‖ version u64 ‖ entries u64 ‖ sector size u32      (all little-endian)
//!  an entry     sector u64 ‖ sectors u64 ‖ flags u64 ‖ length u64, filled up to a sector ‖ its data, unless it discards
//! ```
//! An entry stands here once the disk has done it: a request is answered after its entry is written. While QEMU runs the log
//! grows; an entry whose place is taken and whose bytes aren't there yet is a hole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of a sector of the log, as [`crate::Disk::recorded`] asks QEMU for.
pub const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// Why a log can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file says no.
    #[error("read the log")]
    Read(#[from] io::Error),
    /// It begins with other bytes.
    #[error("this is no log of writes in sectors of {SECTOR} bytes")]
    Form,
    /// An entry makes no sense.
    #[error("entry {0} of the log: {1}")]
    Entry(usize, &'static str),
}

/// What the disk was told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing but what the flags say.
    None,
    /// Write the bytes that lie here in the log.
    Write {
        /// Where, in bytes from the log's begin.
        data: u64,
    },
    /// Forget what lies there.
    Discard,
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where on the disk, in bytes.
    pub at: u64,
    /// How many bytes.
    pub size: u64,
    /// What.
    pub kind: Kind,
    /// All that was answered before this is on the medium after it.
    pub flush: bool,
    /// It was answered when it was on the medium itself.
    pub fua: bool,
}

/// Where the reading of a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With its last byte.
    Whole,
    /// At a hole, or inside an entry: more is being written.
    Growing,
}

/// Bytes that can be read anywhere.
pub trait Source {
    /// How many there are.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from an offset.
    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl Source for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).map_err(io::Error::other)?;
        let bytes = from.checked_add(buffer.len()).and_then(|to| self.get(from..to));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A log as far as it was read.
#[derive(Clone, Debug)]
pub struct Log {
    /// The requests in their order.
    pub entries: Vec<Entry>,
    disk: u64,
    next: u64,
}

impl Log {
    /// A log of a disk of this size, nothing read yet.
    #[must_use]
    pub fn of(disk: u64) -> Self {
        Self { entries: Vec::new(), disk, next: SECTOR }
    }

    /// Reads on from where the last reading ended.
    pub fn read_on(&mut self, source: &(impl Source + ?Sized)) -> Result<End, LogError> {
        let size = source.size()?;
        if self.entries.is_empty() && size >= SECTOR {
            check_begin(source)?;
        }
        loop {
            if self.next >= size {
                // An empty file is that of a disk that isn't there yet.
                return Ok(if self.next == size || size == 0 { End::Whole } else { End::Growing });
            }
            let Some(behind) = self.next.checked_add(SECTOR).filter(|behind| *behind <= size)
            else {
                return Ok(End::Growing);
            };
            let mut head = [0; 32];
            source.read(&mut head, self.next)?;
            if head == [0; 32] {
                return Ok(End::Growing);
            }
            let entry = self.entry(&head, behind)?;
            let end = match entry.kind {
                Kind::Write { data } => data.saturating_add(entry.size),
                Kind::None | Kind::Discard => behind,
            };
            if end > size {
                return Ok(End::Growing);
            }
            self.next = end;
            self.entries.push(entry);
        }
    }

    fn entry(&self, head: &[u8; 32], behind: u64) -> Result<Entry, LogError> {
        let wrong = |why| LogError::Entry(self.entries.len(), why);
        let [sector, sectors, flags] = [0, 8, 16].map(|at| number(head, at));
        if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 {
            return Err(wrong("flags that nobody knows"));
        }
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR);
        let (Some(at), Some(size)) = (bytes(sector), bytes(sectors)) else {
            return Err(wrong("a place beyond any disk"));
        };
        if at.checked_add(size).is_none_or(|end| end > self.disk) {
            return Err(wrong("a place beyond the disk's end"));
        }
        let kind = if flags & DISCARD != 0 {
            Kind::Discard
        } else if size == 0 {
            Kind::None
        } else {
            Kind::Write { data: behind }
        };
        Ok(Entry { at, size, kind, flush: flags & FLUSH != 0, fua: flags & FUA != 0 })
    }
}

/// QEMU writes the begin with the first flush: until then there are zeros.
fn check_begin(source: &(impl Source + ?Sized)) -> Result<(), LogError> {
    let mut head = [0; 28];
    source.read(&mut head, 0)?;
    let sector = u32::from_le_bytes([head[24], head[25], head[26], head[27]]);
    let known = number(&head, 0) == MAGIC && number(&head, 8) == 1 && u64::from(sector) == SECTOR;
    if known || head == [0; 28] { Ok(()) } else { Err(LogError::Form) }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISK: u64 = 1 << 20;

    /// A log as QEMU writes it.
    pub(in super::super) struct Writer(pub(in super::super) Vec<u8>);

    impl Writer {
        pub(in super::super) fn new() -> Self {
            let mut begin = [MAGIC, 1, 0].map(u64::to_le_bytes).concat();
            begin.extend(512_u32.to_le_bytes());
            begin.resize(512, 0);
            Self(begin)
        }

        pub(in super::super) fn entry(&mut self, sector: u64, sectors: u64, flags: u64) {
            self.0.extend([sector, sectors, flags, 0].map(u64::to_le_bytes).concat());
            self.0.resize(self.0.len().next_multiple_of(512), 0);
        }

        pub(in super::super) fn write(&mut self, sector: u64, bytes: &[u8]) {
            self.entry(sector, bytes.len() as u64 / 512, 0);
            self.0.extend(bytes);
        }

        pub(in super::super) fn flush(&mut self) {
            self.entry(0, 0, FLUSH);
        }

        pub(in super::super) fn discard(&mut self, sector: u64, sectors: u64) {
            self.entry(sector, sectors, DISCARD);
        }
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Entry>, End), LogError> {
        let mut log = Log::of(DISK);
        let end = log.read_on(bytes)?;
        Ok((log.entries, end))
    }

    #[test]
    fn what_qemu_writes_is_read() {
        let mut log = Writer::new();
        log.write(3, &[7; 1024]);
        log.flush();
        log.discard(8, 16);
        log.entry(9, 1, FUA);
        log.0.extend([1; 512]);
        let (entries, end) = read(&log.0).unwrap();
        let plain = Entry { at: 0, size: 0, kind: Kind::None, flush: false, fua: false };
        assert_eq!(end, End::Whole);
        assert_eq!(
            entries,
            [
                Entry { at: 1536, size: 1024, kind: Kind::Write { data: 1024 }, ..plain },
                Entry { flush: true, ..plain },
                Entry { at: 4096, size: 8192, kind: Kind::Discard, ..plain },
                Entry { at: 4608, size: 512, kind: Kind::Write { data: 3584 }, fua: true, ..plain },
            ]
        );
    }

    #[test]
    fn a_log_that_grows_is_read_on() {
        let mut log = Writer::new();
        log.write(0, &[1; 512]);
        let hole = log.0.len();
        log.write(1, &[2; 512]);
        log.flush();
        let whole = log.0.clone();
        log.0[hole..hole + 512].fill(0);
        let mut reader = Log::of(DISK);
        for length in 0..log.0.len() {
            if reader.read_on(&log.0[..length]).unwrap() == End::Whole {
                assert!([0, 512, hole].contains(&length), "{length}");
            }
        }
        assert_eq!((reader.read_on(&log.0[..]).unwrap(), reader.entries.len()), (End::Growing, 1));
        assert_eq!((reader.read_on(&whole[..]).unwrap(), reader.entries.len()), (End::Whole, 3));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |sector, sectors, flags, why| {
            let mut log = Writer::new();
            log.flush();
            log.entry(sector, sectors, flags);
            let error = read(&log.0).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("entry 1"), "{error}");
        };
        check(0, 1, 16, "flags");
        check(u64::MAX, 1, 0, "beyond any disk");
        check(1, u64::MAX, 0, "beyond any disk");
        check(DISK / 512, 1, 0, "disk's end");
        check(u64::MAX / 512, 1, DISCARD, "disk's end");
        assert!(matches!(read(&[9; 4096]), Err(LogError::Form)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            junk: Vec<u8>,
            heads in prop::collection::vec((0..4096_u64, 0..64_u64, 0..32_u64), 0..20),
        ) {
            let mut log = Writer::new();
            for (sector, sectors, flags) in heads {
                log.entry(sector, sectors, flags);
            }
            log.0.extend(junk);
            if let Ok((entries, _)) = read(&log.0) {
                for entry in entries {
                    prop_assert!(entry.at + entry.size <= DISK);
                    if let Kind::Write { data } = entry.kind {
                        prop_assert!(data + entry.size <= log.0.len() as u64);
                    }
                }
            }
        }

        #[test]
        fn any_changed_byte_is_read_without_a_panic(at in 0..4096_usize, byte: u8) {
            let mut log = Writer::new();
            log.write(0, &[1; 1536]);
            log.flush();
            log.discard(5, 5);
            let at = at % log.0.len();
            log.0[at] = byte;
            let _ = read(&log.0);
        }
    }
}
