//! With what it has: code in its memory, its descriptors, its disk.

use super::*;

pub(super) const GOALS: &[Goal] = &[
    // Code.
    by_filter("executable memory", |_| mapped(READ_EXEC, PRIVATE, -1).map(drop)),
    by_filter("memory made executable", |_| {
        let page = mapped(READ_WRITE, PRIVATE, -1)?;
        call(libc::SYS_mprotect, [page, PAGE, READ_EXEC]).map(drop)
    }),
    by_filter("the same with a key", |_| {
        let page = mapped(READ_WRITE, PRIVATE, -1)?;
        call(libc::SYS_pkey_mprotect, [page, PAGE, READ_EXEC, -1]).map(drop)
    }),
    by_filter("map a passed descriptor executable", |w| {
        mapped(READ_EXEC, libc::MAP_PRIVATE.into(), w.need("kernel")?).map(drop)
    }),
    by_filter("map a passed descriptor", |w| {
        mapped(libc::PROT_READ.into(), libc::MAP_SHARED.into(), w.need("disk-0")?).map(drop)
    }),
    by_filter("a file of memory to execute", |_| {
        call(libc::SYS_memfd_create, [text(c"code"), 0]).map(drop)
    }),
    by_filter("what is read is executable", |_| {
        call(libc::SYS_personality, [0x0040_0000]).map(drop)
    }),
    // Devices.
    by_filter("another VM", |w| call(libc::SYS_ioctl, [w.need("kvm")?, 0xae01, 0]).map(drop)),
    goal("a terminal's input", |_| {
        call(libc::SYS_ioctl, [2, libc::TIOCSTI as i64, at(&b'x')]).map(drop)
    }),
    goal("take over a tap", |w| {
        let mut request = [0_u8; 40];
        request[..4].copy_from_slice(b"tap7");
        request[16] = 2;
        call(libc::SYS_ioctl, [w.need("net-0")?, 0x4004_54ca, at(&request)]).map(drop)
    }),
    by_filter("keep a tap for ever", |w| {
        call(libc::SYS_ioctl, [w.need("net-0")?, 0x4004_54cb, 0]).map(drop)
    }),
    // Its own disk, past its end.
    goal("a longer disk", |w| call(libc::SYS_ftruncate, [w.need("disk-0")?, 1 << 45]).map(drop)),
    goal("room past the disk's end", |w| {
        call(libc::SYS_fallocate, [w.need("disk-0")?, 0, 1 << 45, PAGE]).map(drop)
    }),
    goal("write past the disk's end", |w| {
        let data = [7_u8; 512];
        call(libc::SYS_pwrite64, [w.need("disk-0")?, at(&data), 512, 1 << 45]).map(drop)
    }),
    goal("the same, a vector", |w| {
        let data = [7_u8; 512];
        let vector = [at(&data), 512];
        call(libc::SYS_pwritev, [w.need("disk-0")?, at(&vector), 1, 1 << 45, 0]).map(drop)
    }),
    goal("write to the kernel's file", |w| {
        let data = [7_u8; 512];
        call(libc::SYS_write, [w.need("kernel")?, at(&data), 512]).map(drop)
    }),
    by_filter("listen elsewhere", |w| call(libc::SYS_listen, [w.need("api")?, 4096]).map(drop)),
];
