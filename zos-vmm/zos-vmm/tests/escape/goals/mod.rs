//! What an intruder would like to do. Each goal is tried by system calls of its own, and won only when the kernel did it.

mod own;
mod reach;
mod rights;

use io_uring::IoUring;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::BorrowedFd;

/// Told in place of an errno: there is nothing to try it on.
pub(crate) const NOTHING: i32 = 10_000;

/// A goal.
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    /// Only the filters hold it: what is won outside of them leads nowhere by itself.
    pub(crate) filtered: bool,
    pub(crate) attempt: Attempt,
}

type Attempt = fn(&World) -> Result<(), i32>;

/// What the process was given.
pub(crate) struct World {
    fds: BTreeMap<String, i32>,
    pub(crate) ring: Option<RefCell<IoUring>>,
    /// Counts attempts.
    pub(crate) turn: Cell<u64>,
}

impl World {
    /// By the names that the environment tells.
    pub(crate) fn of_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
        let mut world = Self { fds: names.zip(3..).collect(), ring: None, turn: Cell::new(0) };
        world.ring = crate::ring::of_disk(&world);
        world
    }

    /// A passed descriptor; -1: it wasn't passed.
    pub(crate) fn fd(&self, name: &str) -> i32 {
        self.fds.get(name).copied().unwrap_or(-1)
    }

    /// Whether vmd passed what it passes.
    pub(crate) fn in_node(&self) -> bool {
        self.fds.contains_key("spec")
    }

    /// A copy of a passed descriptor.
    pub(crate) fn file(&self, name: &str) -> Option<File> {
        let fd = self.fd(name);
        // SAFETY: passed to us, and open as long as the process lives.
        let fd = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })?;
        fd.try_clone_to_owned().ok().map(File::from)
    }

    fn need(&self, name: &str) -> Result<i64, i32> {
        self.fds.get(name).map(|fd| i64::from(*fd)).ok_or(NOTHING)
    }
}

/// A system call; what fails is its errno.
fn call<const N: usize>(number: i64, arguments: [i64; N]) -> Result<i64, i32> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: each goal passes pointers to memory that outlives its call, or null.
    let done = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if done == -1 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(NOTHING))
    } else {
        Ok(done)
    }
}

fn text(text: &CStr) -> i64 {
    text.as_ptr().addr().cast_signed() as i64
}

fn at<T>(value: &T) -> i64 {
    std::ptr::from_ref(value).addr().cast_signed() as i64
}

/// `AF_INET`, as it stands in an address.
const INET: u16 = 2;
const HERE: i64 = libc::AT_FDCWD as i64;
const NULL: i64 = 0;
const PAGE: i64 = 4096;
const READ_WRITE: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const READ_EXEC: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
const PRIVATE: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;

fn open(path: &CStr, flags: i32) -> Result<(), i32> {
    call(libc::SYS_openat, [HERE, text(path), i64::from(flags)]).map(drop)
}

fn connect_to(path: &CStr) -> Result<(), i32> {
    let fd = call(libc::SYS_socket, [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0])?;
    // SAFETY: zeros are an address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = 1; // AF_UNIX
    for (place, byte) in address.sun_path.iter_mut().zip(path.to_bytes()) {
        *place = byte.cast_signed() as libc::c_char;
    }
    call(libc::SYS_connect, [fd, at(&address), size_of_val(&address) as i64]).map(drop)
}

fn mapped(prot: i64, flags: i64, fd: i64) -> Result<i64, i32> {
    call(libc::SYS_mmap, [NULL, PAGE, prot, flags, fd, 0])
}

/// Any process but this one and its parent.
fn others(attempt: impl Fn(i64) -> Result<(), i32>) -> Result<(), i32> {
    let mut last = libc::ESRCH;
    // SAFETY: touch no memory.
    let ours = unsafe { [libc::getpid(), libc::getppid()] };
    for pid in (1..2000).filter(|pid| !ours.contains(pid)) {
        match attempt(pid.into()) {
            Err(errno) => last = errno,
            won => return won,
        }
    }
    Err(last)
}

/// Memory of the process's own until somebody ends it, 4 GiB at most.
pub(crate) fn eat_memory() {
    for _ in 0..1024 {
        let block = vec![1_u8; 4 << 20];
        std::hint::black_box(&block);
        std::mem::forget(block);
    }
}

const fn goal(name: &'static str, attempt: Attempt) -> Goal {
    Goal { name, filtered: false, attempt }
}

/// One that the filters alone hold.
const fn by_filter(name: &'static str, attempt: Attempt) -> Goal {
    Goal { name, filtered: true, attempt }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Goal> {
    [reach::GOALS, rights::GOALS, own::GOALS].into_iter().flatten()
}
