//! A disk's io_uring, with every other ability taken away.
//!
//! ```text
//!  made disabled ─▶ asked for its operations ─▶ the disk registered as file 0 ─▶ restricted to the
//!  four operations, on registered files only ─▶ enabled                 all before the guest runs
//! ```
//!
//! | Whoever takes the thread over may try | What happens |
//! |---|---|
//! | another operation (open, connect ...), a file that isn't registered | `EACCES`, from the kernel |
//! | to register another file, or to lift a restriction | `EACCES`; the filter ends the process before |

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, Probe, opcode};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The operations, and so all that the ring may do.
const OPERATIONS: [u8; 4] =
    [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];
/// Threads of the kernel for calls that block, and for those that may never end (none of ours).
const KERNEL_THREADS: [u32; 2] = [4, 1];

/// Makes the ring of a disk, which is its file 0, for so many requests at once (a power of two).
///
/// # Errors
/// The host forbids io_uring, or its kernel is older than 5.19.
pub fn disk_ring(disk: BorrowedFd<'_>, depth: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_submit_all().setup_coop_taskrun();
    let ring = builder.build(depth)?;
    let submitter = ring.submitter();
    let mut probe = Probe::new();
    submitter.register_probe(&mut probe)?;
    if !OPERATIONS.iter().all(|code| probe.is_supported(*code)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    submitter.register_files(&[disk.as_raw_fd()])?;
    submitter.register_iowq_max_workers(&mut KERNEL_THREADS.clone())?;
    let mut rules: Vec<_> = OPERATIONS.iter().map(|code| Restriction::sqe_op(*code)).collect();
    rules.push(Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()));
    submitter.register_restrictions(&mut rules)?;
    submitter.register_enable_rings()?;
    Ok(ring)
}
