//! Pieces of guest memory for the kernel to read into or write from, without a copy of ours.
//!
//! Every piece was checked against the guest's memory when it was pushed. The list has a fixed
//! most: what a guest makes us allocate doesn't depend on what it writes.
#![allow(unsafe_code)]

use super::GuestMemory;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Most pieces of one call (`IOV_MAX` of Linux).
const MOST: usize = 1024;
/// Pieces for which a list that was used keeps room.
const USUAL: usize = 128;

/// A list of pieces, kept by a worker and used again for each request.
#[derive(Debug)]
pub struct IoVecs {
    // Holds the mapping that the pieces point into.
    memory: GuestMemory,
    pieces: Vec<libc::iovec>,
    bytes: usize,
}

/// Why a piece can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoVecError {
    /// Not wholly in the guest's memory.
    #[error("a buffer lies outside the guest's memory")]
    Outside,
    /// More pieces than one call can take.
    #[error("a request has more than 1024 pieces")]
    TooMany,
}

// SAFETY: the pointers lead into a mapping that `memory` keeps alive and that any thread may
// access as raw bytes; nothing else here is bound to a thread.
unsafe impl Send for IoVecs {}

impl IoVecs {
    /// An empty list over this memory.
    #[must_use]
    pub fn new(memory: GuestMemory) -> Self {
        Self { memory, pieces: Vec::new(), bytes: 0 }
    }

    /// Forgets every piece.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    /// Sum of the pieces' lengths.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Appends a range of guest memory; one that crosses a gap's edge becomes several pieces.
    ///
    /// # Errors
    /// The range isn't memory, or the list is full. The list may then hold a part of it.
    pub fn push(&mut self, address: GuestAddress, length: usize) -> Result<(), IoVecError> {
        if length == 0 {
            return Ok(());
        }
        for slice in GuestMemoryBackend::get_slices(&self.memory, address, length) {
            let slice = slice.map_err(|_| IoVecError::Outside)?;
            if self.pieces.len() == MOST {
                return Err(IoVecError::TooMany);
            }
            let base = slice.ptr_guard_mut().as_ptr();
            self.pieces.push(libc::iovec { iov_base: base.cast(), iov_len: slice.len() });
            self.bytes += slice.len();
        }
        Ok(())
    }

    /// Appends another list's pieces.
    ///
    /// # Errors
    /// This list would be full; then nothing was appended.
    pub fn append(&mut self, other: &IoVecs) -> Result<(), IoVecError> {
        if self.pieces.len() + other.pieces.len() > MOST {
            return Err(IoVecError::TooMany);
        }
        self.pieces.extend_from_slice(&other.pieces);
        self.bytes += other.bytes;
        Ok(())
    }

    /// Drops `count` bytes at the front.
    pub fn advance(&mut self, count: usize) {
        let mut rest = count.min(self.bytes);
        self.bytes -= rest;
        let whole = self
            .pieces
            .iter()
            .take_while(|piece| {
                let fits = piece.iov_len <= rest;
                rest -= if fits { piece.iov_len } else { 0 };
                fits
            })
            .count();
        self.pieces.drain(..whole);
        if let Some(first) = self.pieces.first_mut() {
            // `rest` is smaller than this piece, so the pointer stays inside it.
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(rest).cast();
            first.iov_len -= rest;
        }
    }

    /// Drops `count` bytes at the end.
    pub fn shorten(&mut self, count: usize) {
        let mut rest = count.min(self.bytes);
        self.bytes -= rest;
        while let Some(last) = self.pieces.last_mut() {
            if last.iov_len > rest {
                last.iov_len -= rest;
                break;
            }
            rest -= last.iov_len;
            self.pieces.pop();
        }
    }

    /// Gives the host's pages that lie wholly in the first piece back to the host, at most `most`
    /// bytes, and drops what was looked at. They read as zeros afterwards. Tells how many bytes
    /// went back.
    pub fn discard(&mut self, most: usize) -> usize {
        let Some(first) = self.pieces.first() else { return 0 };
        let (base, page) = (first.iov_base.cast::<u8>(), page_size());
        let start = base.addr();
        let whole = first.iov_len;
        // A cut lies between two pages, so that none is lost there.
        let end = start + whole.min((start + most.max(page)) / page * page - start);
        let (from, to) = (start.next_multiple_of(page), end / page * page);
        let count = to.saturating_sub(from);
        self.advance(end - start);
        if count == 0 {
            return 0;
        }
        let target = base.wrapping_add(from - start).cast();
        // SAFETY: the range is inside the piece, which is mapped for its length (see `push`); the
        // mapping stays, and whoever has it takes its content for raw bytes that change any time.
        match unsafe { rustix::mm::madvise(target, count, rustix::mm::Advice::LinuxRemove) } {
            Ok(()) => count,
            Err(_) => 0,
        }
    }

    /// Copies bytes out of the front and drops them; tells how many there were.
    pub fn take(&mut self, target: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let count = piece.iov_len.min(target.len() - done);
            // SAFETY: the piece is mapped for its length (checked by `push`, only ever shortened),
            // the target has room for `count` bytes, and the two can't overlap: `target` is ours.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    piece.iov_base.cast::<u8>(),
                    target[done..].as_mut_ptr(),
                    count,
                );
            }
            done += count;
        }
        self.advance(done);
        done
    }

    /// Copies bytes into the front and drops that room; tells how many found room.
    pub fn fill(&mut self, source: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let count = piece.iov_len.min(source.len() - done);
            // SAFETY: as in `take`, the other way round.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    source[done..].as_ptr(),
                    piece.iov_base.cast::<u8>(),
                    count,
                );
            }
            done += count;
        }
        self.advance(done);
        done
    }

    /// Writes bytes at an offset without dropping anything; what lies behind the end is ignored.
    pub fn put(&self, offset: usize, source: &[u8]) {
        let (mut skip, mut rest) = (offset, source);
        for piece in &self.pieces {
            if skip >= piece.iov_len {
                skip -= piece.iov_len;
                continue;
            }
            let count = rest.len().min(piece.iov_len - skip);
            // SAFETY: `skip + count` is within the piece, which is mapped for its length.
            unsafe {
                let target = piece.iov_base.cast::<u8>().add(skip);
                std::ptr::copy_nonoverlapping(rest.as_ptr(), target, count);
            }
            rest = &rest[count..];
            skip = 0;
        }
    }

    /// Reads once from a stream or packet device into the pieces; tells how many bytes came.
    ///
    /// # Errors
    /// What `readv(2)` says.
    pub fn read_packet(&self, fd: impl AsFd) -> io::Result<usize> {
        // SAFETY: the pieces are mapped and writable (see `push`); their number is at most MOST.
        result(unsafe { libc::readv(fd.as_fd().as_raw_fd(), self.pieces.as_ptr(), self.count()) })
    }

    /// Writes the pieces once as one packet.
    ///
    /// # Errors
    /// What `writev(2)` says.
    pub fn write_packet(&self, fd: impl AsFd) -> io::Result<usize> {
        // SAFETY: the pieces are mapped and readable (see `push`); their number is at most MOST.
        result(unsafe { libc::writev(fd.as_fd().as_raw_fd(), self.pieces.as_ptr(), self.count()) })
    }

    /// As [`IoVecs::read_packet`]; what has no room in the pieces goes into `over`.
    ///
    /// # Errors
    /// What `readv(2)` says; also when the list has as many pieces as a call can take.
    pub fn read_packet_past(&mut self, fd: impl AsFd, over: &mut [u8]) -> io::Result<usize> {
        let last = libc::iovec { iov_base: over.as_mut_ptr().cast(), iov_len: over.len() };
        self.pieces.push(last);
        // SAFETY: the pieces are mapped and writable (see `push`), and so is `over`, which is ours
        // alone during the call.
        let returned =
            unsafe { libc::readv(fd.as_fd().as_raw_fd(), self.pieces.as_ptr(), self.count()) };
        self.pieces.pop();
        result(returned)
    }

    /// Writes `head` and then the pieces, once, as one packet.
    ///
    /// # Errors
    /// What `writev(2)` says; also when the list has as many pieces as a call can take.
    pub fn write_packet_behind(&mut self, fd: impl AsFd, head: &[u8]) -> io::Result<usize> {
        let first = libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() };
        self.pieces.insert(0, first);
        // SAFETY: the pieces are mapped and readable (see `push`), and so is `head`; nothing of it
        // is written.
        let returned =
            unsafe { libc::writev(fd.as_fd().as_raw_fd(), self.pieces.as_ptr(), self.count()) };
        self.pieces.remove(0);
        result(returned)
    }

    /// Reads once from a file at an offset into the pieces; tells how many bytes came.
    ///
    /// # Errors
    /// What `preadv(2)` says.
    pub fn read_at(&self, fd: impl AsFd, offset: u64) -> io::Result<usize> {
        let (fd, offset) = (fd.as_fd().as_raw_fd(), position(offset)?);
        // SAFETY: the pieces are mapped and writable (see `push`); their number is at most MOST.
        result(unsafe { libc::preadv(fd, self.pieces.as_ptr(), self.count(), offset) })
    }

    /// Writes the pieces once to a file at an offset; tells how many bytes went.
    ///
    /// # Errors
    /// What `pwritev(2)` says.
    pub fn write_at(&self, fd: impl AsFd, offset: u64) -> io::Result<usize> {
        let (fd, offset) = (fd.as_fd().as_raw_fd(), position(offset)?);
        // SAFETY: the pieces are mapped and readable (see `push`); their number is at most MOST.
        result(unsafe { libc::pwritev(fd, self.pieces.as_ptr(), self.count(), offset) })
    }

    /// The pieces as the kernel takes them. What they point to is valid as long as this list.
    #[must_use]
    pub fn as_slice(&self) -> &[libc::iovec] {
        &self.pieces
    }

    /// Whether each piece begins at a multiple of this and is a multiple long.
    #[must_use]
    pub fn is_aligned(&self, align: usize) -> bool {
        let right = |number: usize| number.is_multiple_of(align);
        self.pieces.iter().all(|piece| right(piece.iov_base.addr()) && right(piece.iov_len))
    }

    /// Gives room for more than a usual request back.
    pub fn shrink(&mut self) {
        self.pieces.shrink_to(USUAL);
    }

    /// Copies from the front of this list to the front of another, as much as both have.
    pub fn copy_to(&self, target: &IoVecs) {
        let (mut from, mut to) = (self.pieces.iter(), target.pieces.iter());
        let (mut source, mut room) = (from.next().copied(), to.next().copied());
        while let (Some(here), Some(there)) = (&mut source, &mut room) {
            let count = here.iov_len.min(there.iov_len);
            // SAFETY: both pieces are mapped for their lengths (see `push`), which are at least
            // `count`. They may overlap if a guest said so: `copy` allows that.
            unsafe {
                std::ptr::copy(here.iov_base.cast::<u8>(), there.iov_base.cast::<u8>(), count);
            }
            for (piece, next) in [(&mut source, &mut from), (&mut room, &mut to)] {
                let Some(inner) = piece else { continue };
                inner.iov_len -= count;
                inner.iov_base = inner.iov_base.cast::<u8>().wrapping_add(count).cast();
                if inner.iov_len == 0 {
                    *piece = next.next().copied();
                }
            }
        }
    }

    fn count(&self) -> i32 {
        i32::try_from(self.pieces.len()).unwrap_or(0)
    }
}

/// Bytes of the host's pages. No system call: a thread in its filter may ask.
fn page_size() -> usize {
    // SAFETY: reads a number that the C library got at the start.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10)
}

fn position(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn result(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::Bytes;

    const SIZE: usize = 0x4000;
    const GAP: u64 = 0x10_0000;

    fn memory() -> GuestMemory {
        let ranges = [(GuestAddress(0), SIZE), (GuestAddress(GAP), SIZE)];
        crate::memory::create(&ranges).unwrap()
    }

    #[test]
    fn pieces_outside_memory_are_refused() {
        let mut list = IoVecs::new(memory());
        let end = SIZE as u64;
        for (address, length) in [
            (end, 1),
            (end - 1, 2),
            (u64::MAX, 1),
            (u64::MAX - 1, 16),
            (0, SIZE + 1),
            (GAP, usize::MAX),
        ] {
            list.clear();
            assert_eq!(list.push(GuestAddress(address), length), Err(IoVecError::Outside));
        }
    }

    #[test]
    fn the_list_has_a_most() {
        let mut list = IoVecs::new(memory());
        for _ in 0..MOST {
            list.push(GuestAddress(0), 1).unwrap();
        }
        assert_eq!(list.push(GuestAddress(0), 1), Err(IoVecError::TooMany));
    }

    #[test]
    fn a_copy_crosses_all_edges() {
        let memory = memory();
        let bytes: Vec<u8> = (0..100).collect();
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        let (mut source, mut target) = (IoVecs::new(memory.clone()), IoVecs::new(memory.clone()));
        for (at, length) in [(0, 10), (10, 1), (11, 89)] {
            source.push(GuestAddress(at), length).unwrap();
        }
        for (at, length) in [(GAP, 3), (GAP + 3, 30), (GAP + 33, 40)] {
            target.push(GuestAddress(at), length).unwrap();
        }
        source.copy_to(&target);
        let mut copied = [0xff; 74];
        memory.read_slice(&mut copied, GuestAddress(GAP)).unwrap();
        assert_eq!((&copied[..73], copied[73]), (&bytes[..73], 0));
        assert_eq!((source.bytes(), target.bytes()), (100, 73));
    }

    #[test]
    fn one_unaligned_piece_is_enough() {
        for (address, length, align, right) in
            [(0, 512, 512, true), (1, 512, 512, false), (0, 513, 512, false), (1, 513, 1, true)]
        {
            let mut list = IoVecs::new(memory());
            list.push(GuestAddress(0x1000), 512).unwrap();
            list.push(GuestAddress(address), length).unwrap();
            assert_eq!(list.is_aligned(align), right, "{address} {length} {align}");
        }
    }

    proptest! {
        /// Dropping from both ends leaves the bytes that a plain slice would have left.
        #[test]
        fn as_a_slice(
            lengths in prop::collection::vec(0usize..40, 1..12),
            front in 0usize..200,
            back in 0usize..200,
        ) {
            let memory = memory();
            let mut list = IoVecs::new(memory.clone());
            let mut model = Vec::new();
            let mut address = 0u64;
            for length in lengths {
                let bytes: Vec<u8> = (0..length as u64).map(|i| (address + i).to_le_bytes()[0]).collect();
                memory.write_slice(&bytes, GuestAddress(address)).unwrap();
                list.push(GuestAddress(address), length).unwrap();
                model.extend_from_slice(&bytes);
                address += length as u64 + 3;
            }
            list.advance(front);
            model.drain(..front.min(model.len()));
            list.shorten(back);
            model.truncate(model.len().saturating_sub(back));
            prop_assert_eq!(list.bytes(), model.len());
            let mut out = vec![0; model.len() + 1];
            prop_assert_eq!(list.take(&mut out), model.len());
            prop_assert_eq!(&out[..model.len()], &model[..]);
            prop_assert_eq!(list.bytes(), 0);
        }
    }
}
