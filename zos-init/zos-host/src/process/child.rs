//! clone3 and what the child does until exec: system calls on prepared memory, nothing else.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::libc;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Child, Mounts, Namespace, Program, Resource, Root, Spawn, Step, landlock, seccomp};
use crate::error::{Context, Error, Result};

// linux/sched.h: struct clone_args, version 2
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const PREFIX: &[u8] = b"LISTEN_PID=";
// prctl takes longs behind its first argument, whatever C's variadic rules make of a bare 0.
const NONE: libc::c_ulong = 0;
const ONE: libc::c_ulong = 1;

/// All that the child needs, as the kernel wants it.
struct Prepared {
    program: Option<CString>,
    program_fd: RawFd,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    listen_pid: Option<Vec<u8>>,
    /// Source and target numbers; the source is replaced by a copy above all targets.
    descriptors: Vec<(RawFd, RawFd)>,
    base: RawFd,
    failure: RawFd,
    limits: Vec<(Resource, [u64; 2])>,
    root: Root,
    dir: Option<CString>,
    user: u32,
    group: u32,
    capabilities: u64,
    mounts: Option<Mounts>,
    no_new_privs: bool,
    /// A landlock ruleset, or -1; what it allows in folders of the child's own.
    paths: RawFd,
    own: u64,
    seccomp: seccomp::Prepared,
}

pub(super) fn start(spawn: Spawn<'_>) -> Result<Child> {
    let name = spawn.arguments.first().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (failure_read, failure_write) = pipe_with(flags).during("make pipe for", &name)?;

    let mut listen_pid = spawn.listen_pid.then(|| [PREFIX, &[0; 12]].concat());
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let mut argv = pointers(&spawn.arguments);
    argv.push(ptr::null());
    let mut envp = pointers(&spawn.environment);
    if let Some(entry) = &mut listen_pid {
        envp.push(entry.as_mut_ptr().cast_const().cast());
    }
    envp.push(ptr::null());
    let (program, program_fd) = match spawn.program {
        Program::Path(path) => (Some(path), None),
        Program::Descriptor(fd) => (None, Some(fd)),
    };
    let base = spawn.descriptors.iter().map(|(_, target)| target + 1).max().unwrap_or(3).max(3);
    let mut prepared = Prepared {
        program,
        program_fd: program_fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        argv,
        envp,
        listen_pid,
        descriptors: spawn.descriptors.iter().map(|(fd, n)| (fd.as_raw_fd(), *n)).collect(),
        base,
        failure: failure_write.as_raw_fd(),
        limits: spawn.limits.iter().map(|(which, limit)| (*which, [*limit; 2])).collect(),
        root: spawn.root,
        dir: spawn.dir,
        user: spawn.user,
        group: spawn.group,
        capabilities: spawn.capabilities.bits(),
        mounts: spawn.sandbox.mounts,
        no_new_privs: spawn.sandbox.no_new_privs,
        paths: spawn.sandbox.paths.as_ref().map_or(-1, |paths| paths.rules.as_raw_fd()),
        own: spawn.sandbox.paths.as_ref().map_or(0, |paths| paths.own),
        seccomp: seccomp::Prepared::new(spawn.sandbox.seccomp)?,
    };

    let mut pidfd: RawFd = -1;
    let own_mounts = if prepared.mounts.is_some() { Namespace::Mount as i32 } else { 0 };
    let namespaces =
        spawn.namespaces.iter().fold(own_mounts, |flags, kind: &Namespace| flags | *kind as i32);
    let mut arguments = CloneArgs {
        flags: CLONE_PIDFD | u64::from(namespaces.cast_unsigned()),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = spawn.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets a copy of our memory and returns here on a copy of this stack,
    // as with fork; it then only makes system calls on what `prepared` owns, and never returns.
    // `arguments` is laid out as clone3 wants it, and `pidfd` outlives the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()).during("start", &name),
        0 => run(&mut prepared),
        pid => {
            // SAFETY: CLONE_PIDFD made the kernel open it for us; nobody else knows the number.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(|_| Error::invalid("start", &name, "odd pid"))?;
            Ok(Child { pid, pidfd, failure: failure_read })
        }
    }
}

fn run(prepared: &mut Prepared) -> ! {
    let (step, errno) = match prepare(prepared) {
        Ok(()) => (Step::Exec, exec(prepared)),
        Err(failed) => failed,
    };
    let mut message = [step as u8, 0, 0, 0, 0];
    message[1..].copy_from_slice(&errno.to_ne_bytes());
    // SAFETY: write from a live array; _exit runs none of the parent's exit handlers.
    unsafe {
        libc::write(prepared.failure, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A system call's result as an error of this step.
fn ok<T: Into<i64>>(step: Step, result: T) -> std::result::Result<i64, (Step, i32)> {
    let result = result.into();
    if result == -1 { Err((step, errno())) } else { Ok(result) }
}

fn prepare(p: &mut Prepared) -> std::result::Result<(), (Step, i32)> {
    session()?;
    descriptors(p)?;
    for (which, limit) in &p.limits {
        // SAFETY: prlimit64 on the caller reads one struct rlimit64, two u64.
        let set = unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, *which as u32, limit.as_ptr(), 0_usize)
        };
        ok(Step::Limits, set)?;
    }
    if let Root::Empty { stage, detach, proc } = &p.root {
        empty_root(stage, detach, *proc)?;
    }
    if let Some(mounts) = &mut p.mounts {
        told(Step::Mounts, mounts.enter())?;
    }
    privileges(p)?;
    if let Some(dir) = &p.dir {
        // SAFETY: a C string that outlives the call.
        ok(Step::Folder, unsafe { libc::chdir(dir.as_ptr()) })?;
    }
    if let Some(entry) = &mut p.listen_pid {
        // SAFETY: getpid touches no memory. (The raw call: a C library may remember its parent's.)
        let pid = unsafe { libc::syscall(libc::SYS_getpid) };
        decimal(pid.unsigned_abs(), &mut entry[PREFIX.len()..]);
    }
    fence(p)
}

/// What can't be taken back, the system calls last.
fn fence(p: &Prepared) -> std::result::Result<(), (Step, i32)> {
    if p.no_new_privs {
        // SAFETY: prctl with integers.
        let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ONE, NONE, NONE, NONE) };
        ok(Step::NoNewPrivs, set)?;
    }
    if p.paths >= 0 {
        let private = p.mounts.iter().flat_map(|mounts| &mounts.private);
        for folder in private.filter(|_| p.own != 0) {
            // An older kernel refuses kinds that it doesn't know; the first ones are enough to work there.
            let done = landlock::add_own(p.paths, p.own, folder)
                .or_else(|_| landlock::add_own(p.paths, p.own & landlock::FIRST, folder));
            told(Step::Paths, done)?;
        }
        // SAFETY: integers only; the descriptor is the ruleset that the parent made.
        let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, p.paths, 0) };
        ok(Step::Paths, restricted)?;
    }
    told(Step::Seccomp, p.seccomp.enter())
}

fn told(step: Step, done: io::Result<()>) -> std::result::Result<(), (Step, i32)> {
    done.map_err(|error| (step, error.raw_os_error().unwrap_or(0)))
}

fn session() -> std::result::Result<(), (Step, i32)> {
    // SAFETY: the signal set is 8 bytes on every architecture of ours; SIG_DFL is no pointer to code.
    unsafe {
        let none = 0_u64;
        ok(
            Step::Session,
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const none,
                0_usize,
                8_usize,
            ),
        )?;
        // Rust ignores SIGPIPE, and what is ignored stays so over exec.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        ok(Step::Session, libc::setsid())?;
    }
    Ok(())
}

fn descriptors(p: &mut Prepared) -> std::result::Result<(), (Step, i32)> {
    // Everything that is still needed moves above the targets first, so that no target overwrites a source.
    let lift = |fd: RawFd, base: RawFd| {
        // SAFETY: fcntl with integers.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, base) };
        ok(Step::Descriptors, copy).map(|_| copy)
    };
    p.failure = lift(p.failure, p.base)?;
    if p.program_fd >= 0 {
        p.program_fd = lift(p.program_fd, p.base)?;
    }
    if p.paths >= 0 {
        p.paths = lift(p.paths, p.base)?;
    }
    for (source, _) in &mut p.descriptors {
        *source = lift(*source, p.base)?;
    }
    for (source, target) in &p.descriptors {
        // SAFETY: dup3 with integers; the new number has no close-on-exec flag.
        ok(Step::Descriptors, unsafe { libc::dup3(*source, *target, 0) })?;
    }
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: integers only. Whatever else is open, from whatever mistake, ends at exec.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, p.base.cast_unsigned(), u32::MAX, CLOSE_RANGE_CLOEXEC)
    };
    ok(Step::Descriptors, closed)?;
    Ok(())
}

fn empty_root(
    stage: &CString,
    detach: &[CString],
    proc: bool,
) -> std::result::Result<(), (Step, i32)> {
    let none = ptr::null::<libc::c_char>();
    let fence = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: each pointer is a literal or a CString of the caller, or null where mount(2) allows it.
    unsafe {
        let root = c"/".as_ptr();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        ok(Step::Root, libc::mount(none, root, none, private, none.cast()))?;
        for target in detach {
            // One that is gone meanwhile is as well.
            libc::umount2(target.as_ptr(), libc::MNT_DETACH);
        }
        let options = c"size=4k,nr_inodes=2,mode=555".as_ptr();
        let tmpfs = c"tmpfs".as_ptr();
        ok(Step::Root, libc::mount(tmpfs, stage.as_ptr(), tmpfs, fence, options.cast()))?;
        ok(Step::Root, libc::chdir(stage.as_ptr()))?;
        // The initial root can't be pivoted away from; it is covered instead, and nothing leads back
        // to it without capabilities.
        ok(Step::Root, libc::mount(c".".as_ptr(), root, none, libc::MS_MOVE, none.cast()))?;
        ok(Step::Root, libc::chroot(c".".as_ptr()))?;
        ok(Step::Root, libc::chdir(root))?;
        if proc {
            let (place, name) = (c"/proc".as_ptr(), c"proc".as_ptr());
            // Processes, and nothing of the kernel's.
            let options = c"subset=pid".as_ptr();
            ok(Step::Root, libc::mkdir(place, 0o555))?;
            ok(Step::Root, libc::mount(name, place, name, fence, options.cast()))?;
        }
        let read_only = fence | libc::MS_REMOUNT | libc::MS_RDONLY;
        ok(Step::Root, libc::mount(none, root, none, read_only, none.cast()))?;
    }
    Ok(())
}

fn privileges(p: &Prepared) -> std::result::Result<(), (Step, i32)> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // SAFETY: prctl and the set*id calls take integers; raw calls, since a C library would try to tell
    // threads that don't exist here. capset reads the header and two Sets, as version 3 says.
    unsafe {
        for number in 0..64_u64 {
            if p.capabilities >> number & 1 == 0
                && libc::prctl(libc::PR_CAPBSET_DROP, number, NONE, NONE, NONE) == -1
            {
                // EINVAL: past the last one that this kernel knows.
                if errno() == libc::EINVAL {
                    break;
                }
                return Err((Step::BoundingSet, errno()));
            }
        }
        ok(Step::User, libc::prctl(libc::PR_SET_KEEPCAPS, ONE, NONE, NONE, NONE))?;
        ok(Step::User, libc::syscall(libc::SYS_setgroups, 0, ptr::null::<u32>()))?;
        ok(Step::User, libc::syscall(libc::SYS_setresgid, p.group, p.group, p.group))?;
        ok(Step::User, libc::syscall(libc::SYS_setresuid, p.user, p.user, p.user))?;
        let half = |shift: u32| {
            let bits = u32::try_from(p.capabilities >> shift & u64::from(u32::MAX)).unwrap_or(0);
            Sets { effective: bits, permitted: bits, inheritable: bits }
        };
        let header = Header { version: 0x2008_0522, pid: 0 };
        let sets = [half(0), half(32)];
        ok(
            Step::Capabilities,
            libc::syscall(libc::SYS_capset, &raw const header, &raw const sets),
        )?;
        for number in 0..64_u64 {
            if p.capabilities >> number & 1 == 1 {
                let raise = libc::PR_CAP_AMBIENT_RAISE.cast_unsigned();
                ok(
                    Step::Capabilities,
                    libc::prctl(libc::PR_CAP_AMBIENT, u64::from(raise), number, NONE, NONE),
                )?;
            }
        }
    }
    Ok(())
}

/// Returns only on failure, with errno.
fn exec(p: &Prepared) -> i32 {
    // SAFETY: argv and envp are null-terminated arrays of strings that `p` and the spawn's lists hold.
    unsafe {
        match &p.program {
            Some(path) => {
                libc::execve(path.as_ptr(), p.argv.as_ptr(), p.envp.as_ptr());
            }
            None => {
                libc::syscall(
                    libc::SYS_execveat,
                    p.program_fd,
                    c"".as_ptr(),
                    p.argv.as_ptr(),
                    p.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
            }
        }
    }
    errno()
}

/// Writes a number and a NUL; `out` has room for 20 digits or fewer as the caller knows.
fn decimal(mut number: u64, out: &mut [u8]) {
    let mut digits = [0_u8; 20];
    let mut count = 0;
    loop {
        digits[count] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        count += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let count = count.min(out.len() - 1);
    for (place, digit) in out.iter_mut().zip(digits[..count].iter().rev()) {
        *place = *digit;
    }
    out[count] = 0;
}

#[cfg(test)]
mod tests {
    #[test]
    fn decimals() {
        for number in [0, 1, 9, 10, 32_768, 4_194_304] {
            let mut out = [7; 12];
            super::decimal(number, &mut out);
            let text = std::ffi::CStr::from_bytes_until_nul(&out).unwrap();
            assert_eq!(text.to_str().unwrap(), number.to_string());
        }
    }
}
