//! More than it may: users, namespaces, and what the kernel does for the mighty.

use super::*;

pub(super) const GOALS: &[Goal] = &[
    // More rights.
    goal("become root", |_| call(libc::SYS_setresuid, [0, 0, 0]).map(drop)),
    goal("take root's group", |_| call(libc::SYS_setresgid, [0, 0, 0]).map(drop)),
    goal("take capabilities", |_| {
        let (header, sets) = ([0x2008_0522_u32, 0], [u32::MAX; 6]);
        call(libc::SYS_capset, [at(&header), at(&sets)]).map(drop)
    }),
    goal("execute a program", |_| {
        call(libc::SYS_execve, [text(c"/bin/zosd"), NULL, NULL])
            .or_else(|_| call(libc::SYS_execve, [text(c"/bin/true"), NULL, NULL]))
            .map(drop)
    }),
    goal("execute a passed descriptor", |w| {
        call(
            libc::SYS_execveat,
            [w.need("disk-0")?, text(c""), NULL, NULL, libc::AT_EMPTY_PATH.into()],
        )
        .map(drop)
    }),
    by_filter("fork", |_| match call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0])? {
        // SAFETY: ends the grandchild at once.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }),
    by_filter("a thread", |_| {
        let arguments = [0_u64; 11];
        // An exit signal of 0: a process that nobody hears of.
        match call(libc::SYS_clone3, [at(&arguments), 88])? {
            // SAFETY: as above.
            0 => unsafe { libc::_exit(0) },
            _ => Ok(()),
        }
    }),
    goal("a user namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into()])
            .and_then(|_| call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]))
            .and_then(|_| call(libc::SYS_mount, [text(c"t"), text(c"/"), text(c"tmpfs"), 0, NULL]))
            .map(drop)
    }),
    goal("a mount namespace", |_| call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]).map(drop)),
    goal("another's namespace", |_| {
        others(|pid| {
            let pidfd = call(libc::SYS_pidfd_open, [pid, 0])?;
            call(libc::SYS_setns, [pidfd, libc::CLONE_NEWNET.into()]).map(drop)
        })
    }),
    goal("mount", |_| {
        call(libc::SYS_mount, [text(c"t"), text(c"/"), text(c"tmpfs"), 0, NULL]).map(drop)
    }),
    goal("unmount the root", |_| {
        call(libc::SYS_umount2, [text(c"/"), libc::MNT_DETACH.into()]).map(drop)
    }),
    goal("another root", |_| {
        call(libc::SYS_pivot_root, [text(c"/"), text(c"/")])
            .or_else(|_| call(libc::SYS_chroot, [text(c"/")]))
            .map(drop)
    }),
    goal("raise a limit", |_| {
        call(libc::SYS_prlimit64, [0, libc::RLIMIT_FSIZE.into(), at(&[u64::MAX; 2]), NULL])
            .map(drop)
    }),
    goal("real-time priority", |_| {
        call(libc::SYS_sched_setscheduler, [0, libc::SCHED_FIFO.into(), at(&50_i32)]).map(drop)
    }),
    goal("another core-scheduling cookie", |_| {
        others(|pid| call(libc::SYS_prctl, [62, 3, pid, 0, 0]).map(drop))
    }),
    goal("be spared when memory ends", |_| open(c"/proc/self/oom_score_adj", libc::O_RDWR)),
    // The kernel.
    goal("the kernel's log", |_| {
        let text = [0_u8; 512];
        call(libc::SYS_syslog, [3, at(&text), 512]).map(drop)
    }),
    by_filter("bpf", |_| {
        let map = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        call(libc::SYS_bpf, [0, at(&map), 48]).map(drop)
    }),
    by_filter("perf_event_open", |_| {
        let mut event = [0_u32; 28];
        event[1] = 112;
        call(libc::SYS_perf_event_open, [at(&event), 0, -1, -1, 0]).map(drop)
    }),
    by_filter("userfaultfd", |_| call(libc::SYS_userfaultfd, [0]).map(drop)),
    by_filter("keys", |_| {
        call(libc::SYS_add_key, [text(c"user"), text(c"a"), text(c"b"), 1, -3]).map(drop)
    }),
    by_filter("keyctl", |_| call(libc::SYS_keyctl, [0, -3, 1]).map(drop)),
    goal("load a module", |_| call(libc::SYS_init_module, [NULL, 0, text(c"")]).map(drop)),
    goal("load another kernel", |_| call(libc::SYS_kexec_load, [0, 0, NULL, 0]).map(drop)),
    // A command that is none: EINVAL would say that it may.
    goal("reboot", |_| match call(libc::SYS_reboot, [0xfee1_dead, 672_274_793, 7, NULL]) {
        Err(libc::EINVAL) => Ok(()),
        other => other.map(drop),
    }),
    goal("set the clock", |_| call(libc::SYS_clock_settime, [0, at(&[1_i64, 0])]).map(drop)),
    goal("set the host's name", |_| call(libc::SYS_sethostname, [text(c"x"), 1]).map(drop)),
    goal("swap", |_| call(libc::SYS_swapon, [text(c"/"), 0]).map(drop)),
    #[cfg(target_arch = "x86_64")]
    goal("ports of the machine", |_| call(libc::SYS_iopl, [3]).map(drop)),
    #[cfg(target_arch = "x86_64")]
    by_filter("segments of its own", |_| {
        call(libc::SYS_modify_ldt, [0, at(&[0_u8; 16]), 16]).map(drop)
    }),
    by_filter("io_uring anew", |_| {
        let mut parameters = [0_u64; 32];
        call(libc::SYS_io_uring_setup, [4, parameters.as_mut_ptr().addr().cast_signed() as i64])
            .map(drop)
    }),
    goal("open by the disk's ring", crate::ring::open_by),
    goal("read another file by the disk's ring", crate::ring::read_elsewhere),
    goal("a longer disk by the disk's ring", crate::ring::grow),
    goal("another file for the disk's ring", crate::ring::unrestrict),
];
