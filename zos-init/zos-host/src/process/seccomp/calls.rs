//! System calls by theme. `*_X86` are older forms of others here, which the newer architectures never had.

use nix::libc::*;

/// What each profile may call with any arguments.
pub(super) const EVERYBODY: &[&[i64]] = &[
    ITSELF,
    THREADS,
    MEMORY,
    TIME,
    WAITING,
    FILES,
    SOCKETS,
    START,
    #[cfg(target_arch = "x86_64")]
    EVERYBODY_X86,
];

/// Itself: signals, ids, limits, and giving up more.
const ITSELF: &[i64] = &[
    SYS_exit,
    SYS_exit_group,
    SYS_restart_syscall,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_tgkill,
    SYS_tkill,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_capget,
    SYS_prctl,
    SYS_prlimit64,
    SYS_getrusage,
    SYS_getrandom,
    SYS_uname,
    SYS_sysinfo,
    SYS_umask,
    SYS_landlock_create_ruleset,
    SYS_landlock_add_rule,
    SYS_landlock_restrict_self,
    SYS_seccomp,
];

/// Beside `clone`, whose flags are looked at.
const THREADS: &[i64] = &[
    SYS_futex,
    SYS_set_tid_address,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_membarrier,
    SYS_sched_yield,
    SYS_sched_getaffinity,
];

/// Beside `mmap` and `mprotect`, whose protection is looked at.
const MEMORY: &[i64] = &[SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise, SYS_mincore];

const TIME: &[i64] = &[
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
];

const WAITING: &[i64] = &[
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_eventfd2,
    SYS_pipe2,
];

/// Beside `ioctl`, whose request is looked at.
const FILES: &[i64] = &[
    SYS_openat,
    SYS_close,
    SYS_close_range,
    SYS_dup,
    SYS_dup3,
    SYS_fcntl,
    SYS_flock,
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_preadv,
    SYS_write,
    SYS_writev,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_linkat,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fadvise64,
    SYS_fsync,
    SYS_fdatasync,
];

/// Beside `socket`, whose family is looked at.
const SOCKETS: &[i64] = &[
    SYS_socketpair,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_connect,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_recvmmsg,
];

/// Its own start. Which programs may be executed is landlock's to say.
const START: &[i64] = &[SYS_execve, SYS_execveat];

#[cfg(target_arch = "x86_64")]
const EVERYBODY_X86: &[i64] = &[
    SYS_arch_prctl,
    SYS_time,
    SYS_getrlimit,
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_getdents,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_link,
    SYS_chmod,
    SYS_renameat,
    SYS_poll,
    SYS_select,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_pipe,
    SYS_dup2,
];

/// Running others and waiting for them.
pub(super) const PROGRAMS: &[i64] = &[
    SYS_kill,
    SYS_rt_sigsuspend,
    SYS_wait4,
    SYS_waitid,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_setpgid,
    SYS_setsid,
    SYS_chdir,
    SYS_fchdir,
    SYS_getgroups,
    SYS_getresuid,
    SYS_getresgid,
    SYS_copy_file_range,
    #[cfg(target_arch = "x86_64")]
    SYS_fork,
    #[cfg(target_arch = "x86_64")]
    SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    SYS_getpgrp,
];

/// Memory as a file, to be passed on.
pub(super) const SHARED_MEMORY: &[i64] = &[SYS_memfd_create];

/// Mounting, also of what is passed on and stands nowhere in the tree.
pub(super) const MOUNTS: &[i64] = &[SYS_mount, SYS_umount2, SYS_fsopen, SYS_fsconfig, SYS_fsmount];

/// Whose a file is.
pub(super) const OWNERS: &[i64] = &[
    SYS_fchown,
    SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
];

/// What only those who keep data on disks need.
pub(super) const DISKS: &[i64] =
    &[SYS_sync, SYS_syncfs, SYS_sync_file_range, SYS_truncate, SYS_ioprio_set];

/// Nothing of ours calls these, unless its profile lists them: whoever does is not what we started.
pub(super) const HOSTILE: &[&[i64]] = &[
    // other processes' memory and registers
    &[SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd],
    // another kernel, or code in this one
    &[
        SYS_kexec_load,
        KEXEC_FILE_LOAD,
        SYS_init_module,
        SYS_finit_module,
        SYS_delete_module,
        SYS_bpf,
        SYS_reboot,
    ],
    #[cfg(target_arch = "x86_64")]
    &[SYS_iopl, SYS_ioperm, SYS_modify_ldt],
    // what attacks on the kernel are built with
    &[SYS_userfaultfd, SYS_perf_event_open, SYS_add_key, SYS_request_key, SYS_keyctl],
    // other namespaces and trees
    &[SYS_unshare, SYS_setns, SYS_pivot_root, SYS_chroot, SYS_open_by_handle_at],
    &[SYS_mount, SYS_umount2, SYS_open_tree, SYS_move_mount, SYS_mount_setattr],
    &[SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick],
    // everybody's clock, swap and accounts
    &[SYS_clock_settime, SYS_settimeofday, SYS_adjtimex, SYS_clock_adjtime],
    &[SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl],
];

#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: i64 = SYS_kexec_file_load;
// asm-generic/unistd.h; the C library's list lacks it.
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: i64 = 294;

/// linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
pub(super) const NEW_NAMESPACES: u64 = 0x7e02_0000;
pub(super) const PROT_EXEC: u64 = 4;

/// Families of sockets that each profile may open: AF_UNIX, AF_INET, AF_INET6.
pub(super) const FAMILIES: &[u64] = &[1, 2, 10];
pub(super) const AF_NETLINK: u64 = 16;
pub(super) const AF_PACKET: u64 = 17;

/// `ioctl` requests of each: FIONBIO, FIONREAD, FIOCLEX; TCGETS and TIOCGWINSZ, by which programs ask
/// whether they talk to a person.
pub(super) const REQUESTS: &[u64] = &[0x5421, 0x541b, 0x5451, 0x5401, 0x5413];

/// TIOCSTI and TIOCLINUX: they put words into the mouth of who sits at a terminal.
pub(super) const TYPES_INTO_TERMINALS: &[u64] = &[0x5412, 0x541c];

/// TUNSETIFF, TUNGETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP, TUNSETOFFLOAD, TUNSETVNETHDRSZ, and
/// SIOCGIFNAME, SIOCGIFFLAGS, SIOCGIFINDEX, SIOCETHTOOL for links.
pub(super) const TAPS: &[u64] = &[
    0x4004_54ca,
    0x8004_54d2,
    0x4004_54cb,
    0x4004_54cc,
    0x4004_54ce,
    0x4004_54d0,
    0x4004_54d8,
    0x8910,
    0x8913,
    0x8933,
    0x8946,
];
