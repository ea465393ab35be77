//! Out of the jail: files, other processes, the network.

use super::*;

pub(super) const GOALS: &[Goal] = &[
    // Files.
    goal("open a file of the host by its path", |_| {
        open(c"/etc/zos/units/vmd.toml", libc::O_RDONLY)
            .or_else(|_| open(c"/etc/passwd", libc::O_RDONLY))
    }),
    goal("the same through /proc/self/root", |_| {
        open(c"/proc/self/root/etc/passwd", libc::O_RDONLY)
    }),
    goal("the same by a way up", |_| open(c"../../../../../etc/passwd", libc::O_RDONLY)),
    goal("list the root", |_| {
        let fd = call(libc::SYS_openat, [HERE, text(c"/"), libc::O_DIRECTORY.into()])?;
        let names = [0_u8; 512];
        // An empty one is worth nothing: `.` and `..` are 48 bytes.
        match call(libc::SYS_getdents64, [fd, at(&names), 512])? {
            0..=48 => Err(libc::ENOENT),
            _ => Ok(()),
        }
    }),
    goal("make a file", |_| {
        open(c"/escaped", libc::O_CREAT | libc::O_RDWR)
            .or_else(|_| open(c"/tmp/escaped", libc::O_CREAT | libc::O_RDWR))
    }),
    goal("open a passed descriptor anew", |w| {
        w.need("kernel")?;
        open(c"/proc/self/fd/4", libc::O_RDWR).or_else(|_| open(c"/proc/self/fd/3", libc::O_RDWR))
    }),
    goal("open /proc", |_| open(c"/proc/self/status", libc::O_RDONLY)),
    goal("a proc of its own", |_| call(libc::SYS_fsopen, [text(c"proc"), 0]).map(drop)),
    goal("a file by its handle", |_| {
        let handle = [8_u32, 1, 0, 0];
        call(libc::SYS_open_by_handle_at, [HERE, at(&handle), 0]).map(drop)
    }),
    goal("make a device node", |_| {
        call(libc::SYS_mknodat, [HERE, text(c"/tmp/null"), i64::from(libc::S_IFCHR | 0o666), 0x103])
            .map(drop)
    }),
    goal("open /dev/kvm anew", |_| open(c"/dev/kvm", libc::O_RDWR)),
    goal("open /dev/mem", |_| open(c"/dev/mem", libc::O_RDWR)),
    // Others' memory, disks and lives.
    goal("a descriptor of another process", |_| {
        others(|pid| {
            let pidfd = call(libc::SYS_pidfd_open, [pid, 0])?;
            call(libc::SYS_pidfd_getfd, [pidfd, 3, 0]).map(drop)
        })
    }),
    goal("memory of another process", |_| {
        others(|pid| {
            let here = [0_u64; 2];
            let (local, remote) = ([at(&here), 8], [0x40_0000_i64, 8]);
            call(libc::SYS_process_vm_readv, [pid, at(&local), 1, at(&remote), 1, 0]).map(drop)
        })
    }),
    goal("trace another process", |_| {
        others(|pid| call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as i64, pid, 0, 0]).map(drop))
    }),
    goal("signal another process", |_| others(|pid| call(libc::SYS_kill, [pid, 0]).map(drop))),
    goal("signal a thread of another process", |_| {
        others(|pid| call(libc::SYS_tgkill, [pid, pid, 0]).map(drop))
    }),
    goal("another process's limits", |_| {
        others(|pid| call(libc::SYS_prlimit64, [pid, 7, NULL, NULL]).map(drop))
    }),
    by_filter("shared memory of System V", |_| call(libc::SYS_shmget, [7, PAGE, 0o1666]).map(drop)),
    by_filter("a queue of POSIX", |_| {
        call(libc::SYS_mq_open, [text(c"q"), i64::from(libc::O_CREAT | libc::O_RDWR), 0o666, NULL])
            .map(drop)
    }),
    // The network.
    goal("connect to the network", |_| {
        let fd = call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0])?;
        // 10.0.2.2:22
        let address = [
            INET,
            22_u16.to_be(),
            u16::from_ne_bytes([10, 0]),
            u16::from_ne_bytes([2, 2]),
            0,
            0,
            0,
            0,
        ];
        call(libc::SYS_connect, [fd, at(&address), 16]).map(drop)
    }),
    goal("send a datagram", |_| {
        let fd = call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_DGRAM.into(), 0])?;
        let address = [
            INET,
            53_u16.to_be(),
            u16::from_ne_bytes([10, 0]),
            u16::from_ne_bytes([2, 3]),
            0,
            0,
            0,
            0,
        ];
        call(libc::SYS_sendto, [fd, at(&address), 8, 0, at(&address), 16]).map(drop)
    }),
    goal("a raw socket", |_| {
        call(libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0x300]).map(drop)
    }),
    goal("change the network", |_| {
        call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_RAW.into(), 1]).map(drop)
    }),
    goal("PID 1's socket", |_| connect_to(c"/run/zos/init.sock")),
    goal("netd's socket", |_| connect_to(c"/run/zos/net.sock")),
    by_filter("pass a descriptor out", |_| {
        let pair = [0_i32; 2];
        call(libc::SYS_socketpair, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0, at(&pair)])
            .map(drop)
    }),
];
