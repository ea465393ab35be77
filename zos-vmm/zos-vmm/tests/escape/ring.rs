//! A disk's ring, made and restricted as the VMM makes it, and what an intruder would do with it.

use crate::goals::{NOTHING, World};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode};
use std::cell::RefCell;

/// The ring of the passed disk; none where there is no disk, or the host has no io_uring for us.
pub(crate) fn of_disk(world: &World) -> Option<RefCell<IoUring>> {
    let disk = world.fd("disk-0");
    if disk < 0 {
        return None;
    }
    // SAFETY: open as long as the process lives.
    let disk = unsafe { std::os::fd::BorrowedFd::borrow_raw(disk) };
    let ring = zos_vmm::jail::disk_ring(disk, 128);
    ring.inspect_err(|error| eprintln!("escape: no ring: {error}")).ok().map(RefCell::new)
}

/// Opens a path.
pub(crate) fn open_by(world: &World) -> Result<(), i32> {
    let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/etc/passwd".as_ptr()).build();
    submit(world, &[open.clone(), open.flags(Flags::FIXED_FILE)])
}

/// Reads a descriptor that isn't the disk.
pub(crate) fn read_elsewhere(world: &World) -> Result<(), i32> {
    let mut data = [0_u8; 512];
    let vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let kernel = Fd(world.fd("kernel"));
    let read = opcode::Readv::new(kernel, &raw const vector, 1).build();
    let second = opcode::Readv::new(Fixed(1), &raw const vector, 1).build();
    submit(world, &[read, second])
}

/// Makes the disk longer.
pub(crate) fn grow(world: &World) -> Result<(), i32> {
    let far = 1 << 45;
    let data = [7_u8; 512];
    let vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let write = opcode::Writev::new(Fixed(0), &raw const vector, 1).offset(far).build();
    let room = opcode::Fallocate::new(Fixed(0), 4096).offset(far).build();
    submit(world, &[write, room])
}

/// More rights for the ring itself.
pub(crate) fn unrestrict(world: &World) -> Result<(), i32> {
    let ring = world.ring.as_ref().ok_or(NOTHING)?.borrow();
    let files = [world.fd("kernel")];
    ring.submitter().register_files_update(0, &files).map(drop).map_err(|error| errno(&error))
}

/// Each of these alone; won with the first that the kernel did.
fn submit(world: &World, entries: &[Entry]) -> Result<(), i32> {
    let mut ring = world.ring.as_ref().ok_or(NOTHING)?.borrow_mut();
    let mut last = NOTHING;
    for (number, entry) in (0..).zip(entries) {
        // Those before us may have left entries: the ring is shared with all who were forked.
        let ours = world.turn.get() << 8 | number;
        // SAFETY: what the entries point to outlives the wait below.
        unsafe { ring.submission().push(&entry.clone().user_data(ours)) }.map_err(|_| NOTHING)?;
        let mut result = None;
        while result.is_none() {
            ring.submit_and_wait(1).map_err(|error| errno(&error))?;
            let done = ring.completion().find(|done| done.user_data() == ours);
            result = done.map(|done| done.result());
        }
        match result {
            Some(failed) if failed < 0 => last = -failed,
            _ => return Ok(()),
        }
    }
    Err(last)
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(NOTHING)
}
