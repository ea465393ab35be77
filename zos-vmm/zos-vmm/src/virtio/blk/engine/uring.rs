//! Many requests at once, by io_uring.
//!
//! ```text
//!  made disabled ─▶ asked for its operations ─▶ the disk registered as file 0 ─▶ restricted to the
//!  four operations, on registered files only ─▶ enabled                 all before the guest runs
//!
//!  start: slot n ◀ request;  entry {operation, file 0, user data n} ─▶ io_uring_enter ─▶ kernel
//!  finished: completion {n, result} ─▶ request out of slot n
//! ```
//!
//! After that a thread needs `io_uring_enter` alone, and whoever takes the thread over can do no more
//! with the ring than read and write this disk. What a request points to (the list of its pieces, the
//! guest's memory) lies in the request, which stands in its slot until its completion came; an engine
//! that goes away waits for all of them.
//!
//! The ring's own descriptor is readable while completions are there: no event has to be made, and
//! none to be read.
//!
//! Calls that may block (flush, clearing, writes that wait for memory) are the kernel's to do in threads
//! of its own, at most four for a ring; they count as the process's.
#![allow(unsafe_code)]

use super::{Engine, Operation};
use crate::jail;
use crate::virtio::blk::disk::{Clear, Disk};
use crate::virtio::blk::request::Request;
use io_uring::squeue::Entry;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Requests at once: a power of two.
const DEPTH: u32 = 128;
/// The disk among the ring's files.
const DISK: Fixed = Fixed(0);

/// A ring, and the requests that it works on.
pub(in crate::virtio::blk) struct Uring {
    ring: IoUring,
    disk: Arc<Disk>,
    slots: Vec<Option<Box<Request>>>,
    free: Vec<usize>,
    /// What was done by another call than the ring's.
    done: VecDeque<(Box<Request>, io::Result<usize>)>,
}

impl Uring {
    /// Makes the ring and takes its other abilities away.
    ///
    /// # Errors
    /// The host forbids io_uring, or its kernel is older than 5.19.
    pub(in crate::virtio::blk) fn new(disk: Arc<Disk>) -> io::Result<Self> {
        let ring = jail::disk_ring(disk.file.as_fd(), DEPTH)?;
        let count = DEPTH as usize;
        Ok(Self {
            ring,
            disk,
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            done: VecDeque::new(),
        })
    }

    fn enter(&mut self, want: usize) -> bool {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return self.ring.submission().is_empty(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is short of memory, or wants completions to be taken first.
                Err(_) => return false,
            }
        }
    }
}

fn entry(request: &Request) -> Option<Entry> {
    let pieces = request.pieces().as_slice();
    let (list, count) = (pieces.as_ptr(), u32::try_from(pieces.len()).unwrap_or(0));
    Some(match request.operation() {
        Operation::Read(at) => opcode::Readv::new(DISK, list, count).offset(at).build(),
        Operation::Write { at, durable } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(DISK, list, count).offset(at).rw_flags(flags).build()
        }
        Operation::Flush => opcode::Fsync::new(DISK).flags(FsyncFlags::DATASYNC).build(),
        Operation::Clear(how, range) => {
            let mode = how.mode()?.bits().cast_signed();
            opcode::Fallocate::new(DISK, range.bytes).offset(range.offset).mode(mode).build()
        }
    })
}

impl Engine for Uring {
    fn depth(&self) -> usize {
        self.slots.len()
    }

    fn start(&mut self, request: Box<Request>) {
        let (Some(entry), Some(slot)) = (entry(&request), self.free.last().copied()) else {
            // The ring has no operation for it.
            let result = match request.operation() {
                Operation::Clear(how @ Clear::Discard, range) => self.disk.clear(how, range),
                _ => Err(io::ErrorKind::ResourceBusy.into()),
            };
            self.done.push_back((request, result.map(|()| 0)));
            return;
        };
        // SAFETY: what the entry points to, the list of pieces and the guest memory that they lead
        // to, is owned by the request. The request moves (its box doesn't) into a slot, from where
        // it goes only after its completion.
        let noted = unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) };
        match noted {
            Ok(()) => {
                self.free.pop();
                self.slots[slot] = Some(request);
            }
            // As many entries as slots: it can only be that the kernel took none of them yet.
            Err(_) => self.done.push_back((request, Err(io::ErrorKind::WouldBlock.into()))),
        }
    }

    fn submit(&mut self) -> bool {
        self.ring.submission().is_empty() || self.enter(0)
    }

    fn finished(&mut self) -> Option<(Box<Request>, io::Result<usize>)> {
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        let completion = self.ring.completion().next()?;
        let slot = usize::try_from(completion.user_data()).ok()?;
        let request = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        let code = completion.result();
        Some((request, usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code))))
    }

    fn wait(&mut self) {
        if self.done.is_empty() && self.ring.completion().is_empty() && !self.enter(1) {
            std::thread::yield_now();
        }
    }

    fn holds(&self) -> usize {
        self.slots.len() - self.free.len() + self.done.len()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the ring owns the descriptor and lives as long as the borrow.
        Some(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.holds() > 0 {
            self.wait();
            while self.finished().is_some() {}
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("holds", &self.holds()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::register::Restriction;
    use io_uring::squeue::Flags;
    use io_uring::types::Fd;

    /// What whoever takes the thread over would try with the ring.
    #[test]
    fn the_ring_does_its_four_operations_on_the_disk_alone() {
        let file = tempfile::tempfile().unwrap();
        let other = tempfile::tempfile().unwrap();
        let disk = Arc::new(Disk::new(file, false, [0; 20]).unwrap());
        let mut engine = match Uring::new(disk) {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!("skipped: this host forbids io_uring: {error}");
                return;
            }
        };
        let number = Fd(other.as_raw_fd());
        let refused = [
            opcode::Nop::new().build().flags(Flags::FIXED_FILE),
            opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/etc/passwd".as_ptr()).build(),
            opcode::Close::new(number).build(),
            opcode::Read::new(DISK, std::ptr::null_mut(), 0).build(),
            // A descriptor of the process, and an operation with more than its one flag.
            opcode::Fsync::new(number).build(),
            opcode::Fsync::new(DISK).build().flags(Flags::IO_LINK),
            opcode::Fsync::new(DISK).build().flags(Flags::ASYNC),
        ];
        for entry in refused {
            // SAFETY: nothing of what these point to is ever touched: they are refused.
            unsafe { engine.ring.submission().push(&entry) }.unwrap();
            engine.ring.submit_and_wait(1).unwrap();
            let result = engine.ring.completion().next().unwrap().result();
            assert_eq!(result, -libc::EACCES, "{entry:?}");
        }
        // There is no second file, and none can be registered.
        let second = opcode::Fsync::new(Fixed(1)).build();
        // SAFETY: it points to nothing.
        unsafe { engine.ring.submission().push(&second) }.unwrap();
        engine.ring.submit_and_wait(1).unwrap();
        assert_eq!(engine.ring.completion().next().unwrap().result(), -libc::EBADF);
        let files = [other.as_raw_fd()];
        let submitter = engine.ring.submitter();
        for result in [
            submitter.register_files_update(0, &files).map(drop),
            submitter.unregister_files(),
            submitter.register_restrictions(&mut [Restriction::sqe_op(opcode::OpenAt::CODE)]),
        ] {
            assert!(result.is_err());
        }
        let allowed = opcode::Fsync::new(DISK).build();
        // SAFETY: it points to nothing.
        unsafe { engine.ring.submission().push(&allowed) }.unwrap();
        engine.ring.submit_and_wait(1).unwrap();
        assert_eq!(engine.ring.completion().next().unwrap().result(), 0);
    }
}
