//! One request, from its chain to its status.
//!
//! ```text
//!  chain ─ load ─▶ Loaded::Answer(status)      wrong, or done without the disk
//!              └─▶ Loaded::Work ─▶ operation() ── engine ──▶ settle(result)
//!                                       ▲                       ├─▶ Again: what is left of it
//!                                       └───────────────────────┘
//!                                                               └─▶ Done(status)
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a header or data in any split of buffers | legal (virtio 1.2, 2.7.4): read as one stream |
//! | sectors past the end, sums that wrap | status IOERR, nothing read or written |
//! | lengths that are no whole sectors | status IOERR |
//! | a write, discard or zeroing of a read-only disk | status IOERR, nothing written |
//! | an unknown type, unknown flags of a segment | status UNSUPP |
//! | segments that it changes while they are worked on | copied first, all checked before the first |
//! | no status byte | given back with nothing written |

use super::bounce::Bounce;
use super::disk::{Clear, Disk, Range, SECTOR};
use super::engine::Operation;
use crate::memory::{GuestMemory, IoVecs};
use crate::virtio::Chain;
use crate::virtio::chain::StatusByte;
use std::io;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;
const HEADER_BYTES: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`: sector u64, sectors u32, flags u32.
const SEGMENT_BYTES: usize = 16;
const FLAG_UNMAP: u32 = 1;
/// Most segments of a request, and most sectors of one. A discard touches no data; zeros may have to
/// be written, for which other requests shouldn't wait long.
pub(super) const SEGMENTS: usize = 16;
pub(super) const DISCARD_SECTORS: u32 = 1 << 21;
pub(super) const ZERO_SECTORS: u32 = 1 << 17;
/// How often an interrupted call is made again.
const ATTEMPTS: u8 = 16;

/// The status byte's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What a request wants of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Read { at: u64 },
    Write { at: u64, durable: bool },
    Flush,
    Discard,
    WriteZeroes,
}

/// What is to be done about a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// The disk has to do it.
    Work,
    /// Nothing more.
    Answer(Status),
}

/// What is to be done after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Another one, for what is left.
    Again,
    /// Nothing more.
    Done(Status),
}

/// A request and all that it points to. It is used again for others.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) chain: Chain,
    pub(super) work: Work,
    /// Which flush it has to be done before, counted by the part.
    pub(super) turn: u64,
    /// Some while its data goes through an aligned buffer.
    pub(super) bounce: Option<Bounce>,
    status: Option<StatusByte>,
    /// Writable bytes when it came, without the status.
    room: usize,
    bytes: u64,
    attempts: u8,
    segments: Vec<(Clear, Range)>,
    segment: usize,
}

impl Request {
    pub(super) fn new(memory: &GuestMemory) -> Self {
        Self {
            chain: Chain::new(memory),
            work: Work::Flush,
            turn: 0,
            bounce: None,
            status: None,
            room: 0,
            bytes: 0,
            attempts: 0,
            segments: Vec::new(),
            segment: 0,
        }
    }

    /// Understands its chain. `durable`: writes are to last without a flush.
    pub(super) fn load(&mut self, disk: &Disk, durable: bool) -> Loaded {
        (self.attempts, self.segment, self.bytes) = (0, 0, 0);
        self.segments.clear();
        self.status = self.chain.take_status();
        self.room = self.chain.writable.bytes();
        if self.status.is_none() {
            return Loaded::Answer(Status::IoError);
        }
        self.understand(disk, durable).unwrap_or(Loaded::Answer(Status::IoError))
    }

    fn understand(&mut self, disk: &Disk, durable: bool) -> Option<Loaded> {
        let Chain { readable, writable, .. } = &mut self.chain;
        let mut header = [0; HEADER_BYTES];
        if readable.take(&mut header) != HEADER_BYTES {
            return None;
        }
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let changes =
            matches!(u32::from_le_bytes([a, b, c, d]), T_OUT | T_DISCARD | T_WRITE_ZEROES);
        if changes && disk.readonly {
            return None;
        }
        self.work = match u32::from_le_bytes([a, b, c, d]) {
            T_IN => {
                self.bytes = u64::try_from(writable.bytes()).ok()?;
                Work::Read { at: locate(disk, sector, self.bytes)? }
            }
            T_OUT => {
                self.bytes = u64::try_from(readable.bytes()).ok()?;
                Work::Write { at: locate(disk, sector, self.bytes)?, durable }
            }
            T_FLUSH if disk.readonly => return Some(Loaded::Answer(Status::Ok)),
            T_FLUSH => Work::Flush,
            T_GET_ID => {
                writable.fill(&disk.serial);
                return Some(Loaded::Answer(Status::Ok));
            }
            T_DISCARD if disk.can_discard => Work::Discard,
            T_WRITE_ZEROES if disk.can_zero => Work::WriteZeroes,
            _ => return Some(Loaded::Answer(Status::Unsupported)),
        };
        let nothing = match self.work {
            Work::Read { .. } | Work::Write { .. } => self.bytes == 0,
            Work::Flush => false,
            Work::Discard | Work::WriteZeroes => {
                match self.read_segments(disk)? {
                    Status::Ok => {}
                    other => return Some(Loaded::Answer(other)),
                }
                self.segments.is_empty()
            }
        };
        Some(if nothing { Loaded::Answer(Status::Ok) } else { Loaded::Work })
    }

    /// Copies the segments and checks every one.
    fn read_segments(&mut self, disk: &Disk) -> Option<Status> {
        let readable = &mut self.chain.readable;
        let count = readable.bytes() / SEGMENT_BYTES;
        if !readable.bytes().is_multiple_of(SEGMENT_BYTES) || !(1..=SEGMENTS).contains(&count) {
            return None;
        }
        let is_discard = self.work == Work::Discard;
        let most = if is_discard { DISCARD_SECTORS } else { ZERO_SECTORS };
        for _ in 0..count {
            let mut segment = [0; SEGMENT_BYTES];
            readable.take(&mut segment);
            let [sector @ .., a, b, c, d, e, f, g, h] = segment;
            let sectors = u32::from_le_bytes([a, b, c, d]);
            let flags = u32::from_le_bytes([e, f, g, h]);
            // A discard with the flag is as wrong as one with a flag that nobody knows.
            if flags & !FLAG_UNMAP != 0 || is_discard && flags != 0 {
                return Some(Status::Unsupported);
            }
            if sectors > most {
                return None;
            }
            let bytes = u64::from(sectors) * SECTOR;
            let offset = locate(disk, u64::from_le_bytes(sector), bytes)?;
            let how = match (is_discard, flags) {
                (true, _) => disk.discard(),
                (false, FLAG_UNMAP) => Clear::Hole,
                (false, _) => Clear::Zeros,
            };
            if bytes > 0 {
                self.segments.push((how, Range { offset, bytes }));
            }
            // Zeros on a device may have to be written.
            self.bytes += if disk.is_device && !is_discard { bytes } else { 0 };
        }
        Some(Status::Ok)
    }

    /// Bytes that it costs its disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a flush that comes later has to wait for it.
    pub(super) fn is_change(&self) -> bool {
        !matches!(self.work, Work::Read { .. } | Work::Flush)
    }

    /// What has to be done next.
    pub(super) fn operation(&self) -> Operation {
        match self.work {
            Work::Read { at } => Operation::Read(at),
            Work::Write { at, durable } => Operation::Write { at, durable },
            Work::Flush => Operation::Flush,
            Work::Discard | Work::WriteZeroes => {
                let segment = self.segments.get(self.segment);
                segment.map_or(Operation::Flush, |(how, range)| Operation::Clear(*how, *range))
            }
        }
    }

    /// Where its data stands that is left.
    pub(super) fn pieces(&self) -> &IoVecs {
        match (&self.bounce, self.work) {
            (Some(bounce), _) => bounce.pieces(),
            (None, Work::Read { .. }) => &self.chain.writable,
            (None, _) => &self.chain.readable,
        }
    }

    /// Whether its data can't go to a disk that wants it aligned.
    pub(super) fn is_unaligned(&self, disk: &Disk) -> bool {
        let transfers = matches!(self.work, Work::Read { .. } | Work::Write { .. });
        let wrong = |align| transfers && !self.pieces().is_aligned(align);
        self.bounce.is_none() && disk.direct.is_some_and(wrong)
    }

    /// Fills the aligned buffer, if it has one, for the next operation.
    pub(super) fn prepare(&mut self) {
        let Some(bounce) = &mut self.bounce else { return };
        match self.work {
            Work::Read { .. } => bounce.empty(self.chain.writable.bytes()),
            _ => bounce.fill(&self.chain.readable),
        }
    }

    /// Takes a call's result.
    pub(super) fn settle(&mut self, disk: &Disk, result: io::Result<usize>) -> Step {
        let count = match result {
            Ok(count) => count,
            Err(error) => return self.failed(disk, &error),
        };
        match &mut self.work {
            Work::Read { at } => {
                match &self.bounce {
                    Some(bounce) => bounce.copy_out(&mut self.chain.writable, count),
                    None => self.chain.writable.advance(count),
                }
                *at += count as u64;
                rest(count, self.chain.writable.bytes())
            }
            // A part was done: go on behind it, so that nothing is done twice.
            Work::Write { at, .. } => {
                self.chain.readable.advance(count);
                *at += count as u64;
                rest(count, self.chain.readable.bytes())
            }
            Work::Flush => Step::Done(Status::Ok),
            Work::Discard | Work::WriteZeroes => {
                self.segment += 1;
                let more = self.segment < self.segments.len();
                if more { Step::Again } else { Step::Done(Status::Ok) }
            }
        }
    }

    fn failed(&mut self, disk: &Disk, error: &io::Error) -> Step {
        use io::ErrorKind::{Interrupted, Unsupported, WouldBlock};
        match error.kind() {
            Interrupted | WouldBlock if self.attempts < ATTEMPTS => {
                self.attempts += 1;
                Step::Again
            }
            Unsupported => {
                let is_discard = self.work == Work::Discard;
                let Some((how, _)) = self.segments.get_mut(self.segment) else {
                    return Step::Done(Status::IoError);
                };
                match disk.instead_of(*how, is_discard) {
                    // Each way leads to another at most once: zeros on a device never fail so.
                    Some(other) if self.attempts < ATTEMPTS => {
                        self.attempts += 1;
                        *how = other;
                        Step::Again
                    }
                    _ => Step::Done(Status::Unsupported),
                }
            }
            _ => Step::Done(Status::IoError),
        }
    }

    /// Writes its status; tells how many bytes were written for the driver.
    pub(super) fn answer(&mut self, status: Status) -> usize {
        let Some(byte) = self.status.take() else { return 0 };
        // What a failed read left in the buffers is undefined, but it counts as written.
        let written = self.room - self.chain.writable.bytes();
        self.chain.set_status(&byte, status as u8);
        written + 1
    }
}

/// A transfer went on by `count` bytes: nothing at all is the file's end.
fn rest(count: usize, left: usize) -> Step {
    match (count, left) {
        (_, 0) => Step::Done(Status::Ok),
        (0, _) => Step::Done(Status::IoError),
        _ => Step::Again,
    }
}

/// The byte offset of a range that lies wholly on the disk.
fn locate(disk: &Disk, sector: u64, bytes: u64) -> Option<u64> {
    let end = sector.checked_add(bytes / SECTOR)?;
    let offset = (bytes.is_multiple_of(SECTOR) && end <= disk.sectors).then(|| sector * SECTOR)?;
    // The guest was told of the block size; only direct I/O can't do without it.
    let block = if disk.direct.is_some() { u64::from(disk.shape.block) } else { SECTOR };
    (offset.is_multiple_of(block) && bytes.is_multiple_of(block)).then_some(offset)
}
