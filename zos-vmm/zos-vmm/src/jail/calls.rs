//! The one table of system calls: which kind of thread may make which, with which arguments, and why.
//!
//! ```text
//!  a row: call ── kinds ── arguments (any of these sets of tests) ── why
//!  several rows of one call: any of them
//! ```
//!
//! Arguments are looked at where they matter: what can be mapped, which requests of a device, whom a
//! signal reaches. A pointer can't be looked at, so no call is here whose danger lies behind one.
//! `docs/jail.md` is written from this table by a test.

use super::Kind;
use Kind::{Api, Blk, Fs, Main, Net, Shared, Uring, Vcpu};

/// What is tested of an argument: the bits of `mask` in its lower 32 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    /// Which argument, from 0.
    pub(super) argument: u8,
    /// Which bits.
    pub(super) mask: u64,
    /// What they must be.
    pub(super) value: Value,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// This.
    Is(u64),
    /// This process's number.
    OurProcess,
    /// The signal that calls a vCPU out of the guest.
    VcpuSignal,
}

/// A row.
#[derive(Debug)]
pub(super) struct Row {
    /// The call's name.
    pub(super) name: &'static str,
    /// Its number here.
    pub(super) number: i64,
    /// Who may make it.
    pub(super) who: &'static [Kind],
    /// With which arguments: all tests of one of these; none: any.
    pub(super) only: &'static [&'static [Test]],
    /// Why, and what the tests leave.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test writes it to docs/jail.md"))]
    pub(super) why: &'static str,
}

const fn bits(argument: u8, mask: u64, value: u64) -> Test {
    Test { argument, mask, value: Value::Is(value) }
}

const fn is(argument: u8, value: u64) -> Test {
    bits(argument, 0xffff_ffff, value)
}

macro_rules! row {
    ($call:ident, $who:expr, $why:expr) => {
        row!($call, $who, [], $why)
    };
    ($call:ident, $who:expr, [$([$($test:expr),*]),*], $why:expr) => {
        Row {
            name: stringify!($call),
            number: libc::$call,
            who: $who,
            only: &[$(&[$($test),*]),*],
            why: $why,
        }
    };
}

const ALL: &[Kind] = &Kind::ALL;
/// Those that wait for descriptors: all but vCPUs, which wait in the guest.
const WAITERS: &[Kind] = &[Main, Api, Blk, Uring, Net, Shared, Fs];

const PROT_EXEC: u64 = 4;
const NO_FILE: u64 = 0xffff_ffff;
/// `FUTEX_WAIT`, `FUTEX_WAKE`, `FUTEX_WAIT_BITSET` (`linux/futex.h`); the flags are above these bits.
const FUTEX: u64 = 0x7f;
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: u64 = 1;
const MADV_DONTNEED: u64 = 4;
const MADV_FREE: u64 = 8;
const MADV_REMOVE: u64 = 9;
const AF_UNIX: u64 = 1;

// linux/kvm.h, linux/if_tun.h, linux/fs.h
const KVM_RUN: u64 = 0xae80;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
const KVM_SIGNAL_MSI: u64 = 0x4020_aea5;
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
const BLKDISCARD: u64 = 0x1277;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const TUNSETQUEUE: u64 = 0x4004_54d9;

/// All that may be called.
pub(super) const TABLE: &[Row] = &[
    // Every thread.
    row!(
        SYS_futex,
        ALL,
        [[bits(1, FUTEX, 0)], [bits(1, FUTEX, 1)], [bits(1, FUTEX, 9)]],
        "locks: to wait and to wake; none of the kernel's other kinds of futex"
    ),
    row!(
        SYS_sched_yield,
        ALL,
        "the standard library's channels, while another thread is at work on one"
    ),
    row!(SYS_read, ALL, "event descriptors; what has a descriptor is its own"),
    row!(SYS_write, ALL, "event descriptors, the log"),
    row!(SYS_close, ALL, "what it no longer needs"),
    row!(
        SYS_mmap,
        ALL,
        [[bits(2, PROT_EXEC, 0), is(4, NO_FILE)]],
        "the allocator: memory of no file, and never executable"
    ),
    row!(SYS_mprotect, ALL, [[bits(2, PROT_EXEC, 0)]], "the allocator: never to executable"),
    row!(SYS_munmap, ALL, "the allocator, a thread's stack"),
    row!(SYS_mremap, ALL, "the allocator; a mapping keeps its protection"),
    row!(SYS_brk, ALL, "the allocator"),
    row!(
        SYS_madvise,
        ALL,
        [[is(2, MADV_DONTNEED)], [is(2, MADV_FREE)]],
        "the allocator and a thread's stack: not needed now"
    ),
    row!(
        SYS_madvise,
        &[Shared],
        [[is(2, MADV_REMOVE)]],
        "balloon: what the guest gave back leaves its memory's file"
    ),
    row!(
        SYS_clock_gettime,
        ALL,
        [[is(0, 0)], [is(0, 1)], [is(0, 7)]],
        "the wall's clock, the monotonic one and the boot's, where the processor's can't be read; nobody's CPU time"
    ),
    row!(SYS_rt_sigprocmask, ALL, "a thread's end"),
    row!(SYS_rt_sigreturn, ALL, "the end of a signal's handler"),
    row!(SYS_sigaltstack, ALL, "a thread's end"),
    row!(SYS_restart_syscall, ALL, "the kernel's own, after a stop"),
    row!(SYS_exit, ALL, "a thread's end"),
    row!(SYS_exit_group, ALL, "the process's end"),
    #[cfg(debug_assertions)]
    row!(
        SYS_fcntl,
        ALL,
        [[is(1, 1)]],
        "F_GETFD, in debug builds alone: the standard library looks before it closes"
    ),
    // Those that wait.
    #[cfg(target_arch = "x86_64")]
    row!(SYS_poll, WAITERS, "to wait for descriptors"),
    row!(SYS_ppoll, WAITERS, "the same, with a bound"),
    row!(
        SYS_accept4,
        &[Api, Shared],
        "the API, consoles and vsock: who connects to the sockets that vmd passed"
    ),
    row!(SYS_epoll_ctl, &[Shared], "vsock: clients are waited for together"),
    row!(SYS_epoll_pwait, &[Shared, Fs], "vsock, shared folders: which of them is ready"),
    row!(
        SYS_shutdown,
        &[Api, Shared],
        "vsock: the guest ends its half of a connection; the API: an answer was the last"
    ),
    // Devices.
    row!(
        SYS_ioctl,
        &[Vcpu],
        [
            [is(1, KVM_RUN)],
            [is(1, KVM_IOEVENTFD)],
            [is(1, KVM_SIGNAL_MSI)],
            [is(1, KVM_KVMCLOCK_CTRL)]
        ],
        "into the guest; a device's doorbells when its driver moves them; interrupts; the guest's clock after a pause"
    ),
    row!(SYS_ioctl, &[Blk, Uring, Net, Shared, Fs], [[is(1, KVM_SIGNAL_MSI)]], "interrupts"),
    row!(
        SYS_ioctl,
        &[Blk, Uring],
        [[is(1, BLKDISCARD)]],
        "a discard on a block device, for which io_uring has no operation"
    ),
    row!(
        SYS_ioctl,
        &[Net],
        [[is(1, TUNSETOFFLOAD)], [is(1, TUNSETQUEUE)]],
        "what of a frame's work the guest leaves to the host; how many pairs of queues it uses"
    ),
    row!(SYS_preadv, &[Blk], "a disk, without io_uring"),
    row!(SYS_pwritev, &[Blk], "a disk, without io_uring"),
    row!(SYS_fdatasync, &[Blk], "a disk's flush, without io_uring"),
    row!(
        SYS_fallocate,
        &[Blk],
        [[bits(1, KEEP_SIZE, KEEP_SIZE)]],
        "a disk's holes and zeros, without io_uring; it never grows"
    ),
    row!(
        SYS_io_uring_enter,
        &[Uring],
        "a disk: the ring was restricted to four operations on it before the filter was entered"
    ),
    row!(SYS_readv, &[Net], "frames from the tap"),
    row!(SYS_writev, &[Net], "frames to the tap"),
    row!(SYS_sendmsg, &[Fs], "a shared folder: rings and memory are told to its back-end"),
    row!(SYS_recvfrom, &[Fs], "its answers, and never a descriptor"),
    row!(SYS_getrandom, &[Shared], "the guest's random numbers"),
    row!(
        SYS_tgkill,
        &[Main],
        [[
            Test { argument: 0, mask: NO_FILE, value: Value::OurProcess },
            Test { argument: 2, mask: NO_FILE, value: Value::VcpuSignal }
        ]],
        "calls vCPUs out of the guest: this process's threads, that signal"
    ),
];

/// What a developer's VMM may call beyond that, when its guest may connect to the host's sockets.
pub(super) const CALLING: &[Row] = &[
    row!(SYS_socket, &[Kind::Calling], [[is(0, AF_UNIX)]], "vsock: Unix sockets alone"),
    row!(SYS_connect, &[Kind::Calling], "vsock: a guest's own connection"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers as the kernel's headers compute them: direction, size, type, number.
    #[test]
    fn requests_are_what_the_headers_say() {
        let iow = |number: u64, size: usize| 1 << 30 | (size as u64) << 16 | 0xae << 8 | number;
        assert_eq!(KVM_IOEVENTFD, iow(0x79, size_of::<kvm_bindings::kvm_ioeventfd>()));
        assert_eq!(KVM_SIGNAL_MSI, iow(0xa5, size_of::<kvm_bindings::kvm_msi>()));
    }
}
