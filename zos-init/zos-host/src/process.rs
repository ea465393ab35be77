//! Starting a program in a fence, signalling and reaping it.
//!
//! ```text
//!  Spawn ── clone3(namespaces, into cgroup, pidfd) ──▶ child: descriptors ▸ limits ▸ empty root ▸
//!    │                                                 mounts ▸ bounding set ▸ user ▸ capabilities ▸
//!    │                                                 no_new_privs ▸ landlock ▸ seccomp ▸ exec
//!    └─▶ Child { pid, pidfd, failure pipe } ◀── the step and errno, if exec was never reached
//! ```
//! The child does system calls only, on memory that its parent prepared.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::libc;

use crate::error::{Context, Error, Result};

mod capability;
mod child;
mod core_sched;
pub mod landlock;
mod priority;
mod private;
mod sandbox;
mod seccomp;

pub use capability::Capabilities;
pub use core_sched::CoreGroup;
pub use landlock::{Paths, Ruleset};
pub use priority::idle_at_disks;
pub use private::Mounts;
pub use sandbox::Sandbox;
pub use seccomp::Profile;

/// What is run.
#[derive(Debug)]
pub enum Program {
    /// A file by its path, in the child's root.
    Path(CString),
    /// An open file (`O_PATH` is enough; static programs only when the root is empty).
    Descriptor(OwnedFd),
}

/// A kind of namespace of the child's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Namespace {
    /// Mounts.
    Mount = libc::CLONE_NEWNS,
    /// Process ids: the child is 1 there, and its end ends all in it.
    Pid = libc::CLONE_NEWPID,
    /// Network: only a loopback that is down.
    Net = libc::CLONE_NEWNET,
    /// System V IPC and POSIX queues.
    Ipc = libc::CLONE_NEWIPC,
    /// Host name.
    Uts = libc::CLONE_NEWUTS,
    /// The view of cgroups.
    Cgroup = libc::CLONE_NEWCGROUP,
}

impl Namespace {
    /// `mount`, `pid`, `net`, `ipc`, `uts` or `cgroup`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "mount" => Self::Mount,
            "pid" => Self::Pid,
            "net" => Self::Net,
            "ipc" => Self::Ipc,
            "uts" => Self::Uts,
            "cgroup" => Self::Cgroup,
            _ => return None,
        })
    }
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Resource {
    /// Size of a core dump, bytes.
    Core = 4,
    /// Size of a file it may write, bytes.
    FileSize = 1,
    /// Locked memory, bytes.
    LockedMemory = 8,
    /// Open descriptors.
    Files = 7,
    /// Processes and threads of its user.
    Processes = 6,
}

impl Resource {
    /// `core`, `file-size`, `locked-memory`, `files` or `processes`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "core" => Self::Core,
            "file-size" => Self::FileSize,
            "locked-memory" => Self::LockedMemory,
            "files" => Self::Files,
            "processes" => Self::Processes,
            _ => return None,
        })
    }
}

/// What the child sees as `/`.
#[derive(Debug, Default)]
pub enum Root {
    /// What its parent sees.
    #[default]
    Inherited,
    /// Nothing at all: an empty read-only tmpfs. Needs a mount namespace. `stage` is a folder to mount it
    /// on meanwhile; the mounts of `detach` are let go, so that the child keeps no disk busy.
    Empty {
        /// An existing folder.
        stage: CString,
        /// Mount points of the parent, outermost only.
        detach: Vec<CString>,
        /// With `/proc`, of its own processes alone. Needs a pid namespace.
        proc: bool,
    },
}

/// A program and its fence.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// What is run.
    pub program: Program,
    /// Its arguments, the name first.
    pub arguments: Vec<CString>,
    /// `KEY=value`.
    pub environment: Vec<CString>,
    /// Adds `LISTEN_PID` with the child's own pid (as it sees it) to the environment.
    pub listen_pid: bool,
    /// Descriptors at given numbers; every other one is closed.
    pub descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    /// The cgroup it starts in ([`crate::cgroup::Cgroup::open`]).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// User and group; no other groups.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// The only capabilities it has and can ever have (ambient).
    pub capabilities: Capabilities,
    /// Limits, soft and hard.
    pub limits: Vec<(Resource, u64)>,
    /// Namespaces of its own.
    pub namespaces: Vec<Namespace>,
    /// Its `/`.
    pub root: Root,
    /// Its working folder, as it sees it and may enter it; `None`: its parent's.
    pub dir: Option<CString>,
    /// What it gives up beside capabilities.
    pub sandbox: Sandbox,
}

/// A started process. Dropping it stops nothing.
#[derive(Debug)]
pub struct Child {
    /// Its id in our namespace.
    pub pid: i32,
    pidfd: OwnedFd,
    failure: OwnedFd,
}

/// Where the way to exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Signals, session.
    Session = 1,
    /// Placing descriptors.
    Descriptors,
    /// setrlimit.
    Limits,
    /// Making the empty root.
    Root,
    /// Mounting its own view of the tree.
    Mounts,
    /// Dropping capabilities from the bounding set.
    BoundingSet,
    /// setgid, setuid.
    User,
    /// Giving capabilities.
    Capabilities,
    /// Changing to its working folder.
    Folder,
    /// no_new_privs.
    NoNewPrivs,
    /// Restricting itself to paths.
    Paths,
    /// Installing its system call filters.
    Seccomp,
    /// exec itself.
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "preparing its session",
            Self::Descriptors => "placing its descriptors",
            Self::Limits => "setting its limits",
            Self::Root => "making its empty root",
            Self::Mounts => "mounting its own view of the tree",
            Self::BoundingSet => "dropping capabilities",
            Self::User => "changing to its user",
            Self::Capabilities => "giving its capabilities",
            Self::Folder => "changing to its folder",
            Self::NoNewPrivs => "giving up new privileges",
            Self::Paths => "restricting it to its paths",
            Self::Seccomp => "installing its seccomp profile",
            Self::Exec => "executing its program",
        })
    }
}

/// A process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

const SIGSYS: i32 = libc::SIGSYS;

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(SIGSYS) => {
                write!(f, "signal {SIGSYS} (SYS: a system call that its seccomp profile forbids)")
            }
            Self::Signal(signal) => write!(f, "signal {signal} ({})", signal_name(*signal)),
        }
    }
}

/// `KILL` for 9 ...; `?` when it has no name.
#[must_use]
pub fn signal_name(signal: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(signal).map_or("?", |signal| &signal.as_str()[3..])
}

/// The number of `TERM`, `SIGINT` ...
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// A C string of anything without NUL.
pub fn c_string(text: impl AsRef<OsStr>) -> Result<CString> {
    let text = text.as_ref();
    CString::new(text.as_bytes()).map_err(|_| Error::invalid("use", text.display(), "NUL inside"))
}

impl Spawn<'_> {
    /// Starts it. The caller must be single-threaded, or at least hold no lock that another thread wants:
    /// the child is a copy of the caller alone. What fails in the child is told by [`Child::failure`].
    pub fn start(self) -> Result<Child> {
        child::start(self)
    }
}

impl Child {
    /// Readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Why the program was never reached; asked after the process has ended. Doesn't block.
    #[must_use]
    pub fn failure(&self) -> Option<(Step, io::Error)> {
        let mut bytes = [0_u8; 5];
        if rustix::io::read(&self.failure, &mut bytes) != Ok(5) {
            return None;
        }
        let step = match bytes[0] {
            1 => Step::Session,
            2 => Step::Descriptors,
            3 => Step::Limits,
            4 => Step::Root,
            5 => Step::Mounts,
            6 => Step::BoundingSet,
            7 => Step::User,
            8 => Step::Capabilities,
            9 => Step::Folder,
            10 => Step::NoNewPrivs,
            11 => Step::Paths,
            12 => Step::Seccomp,
            _ => Step::Exec,
        };
        let errno = i32::from_ne_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        Some((step, io::Error::from_raw_os_error(errno)))
    }

    /// Makes it a likelier victim, or a less likely one, when the machine has no memory left: -1000 to 1000.
    /// Only before it is reaped, since its number is another's then.
    pub fn adjust_oom_score(&self, by: i32) -> Result<()> {
        let path = format!("/proc/{}/oom_score_adj", self.pid);
        std::fs::write(&path, by.to_string()).during("write", path)
    }

    /// Sends a signal to it, and never to another process that got its number later.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: pidfd_send_signal(pidfd, signal, no siginfo, no flags) touches no memory of ours.
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal, 0, 0)
        };
        let done = if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
        done.during("signal", self.pid)
    }
}

/// Takes a child that has ended, ours or an orphan's; `None` when there is none now.
pub fn reap() -> Option<(i32, Exit)> {
    use rustix::process::{WaitOptions, wait};
    loop {
        let (pid, status) = match wait(WaitOptions::NOHANG) {
            Ok(Some(found)) => found,
            Err(rustix::io::Errno::INTR) => continue,
            Ok(None) | Err(_) => return None,
        };
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            // Stopped or continued: not asked for, so not told.
            (None, None) => continue,
        };
        return Some((pid.as_raw_nonzero().get(), exit));
    }
}

/// A pipe for a child's output: its reading end doesn't block, its writing end does; neither is inherited.
/// `owner` may open it again by `/proc/self/fd`.
pub fn output_pipe(owner: u32) -> Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::pipe::{PipeFlags, pipe_with};
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).during("make", "pipe")?;
    fcntl_setfl(&reader, OFlags::NONBLOCK).during("set up", "pipe")?;
    let (user, group) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
    rustix::fs::fchown(&writer, Some(user), Some(group)).during("give away", "pipe")?;
    Ok((reader, writer))
}

/// Reads what a pipe holds now, a page at most: `None` when there is nothing yet, an empty list at its end
/// (or when it fails, which is its end as well).
#[must_use]
pub fn read_some(pipe: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = [0; 4096];
    match rustix::io::read(pipe, &mut buffer) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
        Err(_) => Some(Vec::new()),
    }
}

/// The same into a buffer of the caller's: how many bytes came, 0 at the pipe's end.
#[must_use]
pub fn read_into(pipe: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    match rustix::io::read(pipe, buffer) {
        Ok(length) => Some(length),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
        Err(_) => Some(0),
    }
}

/// Lets this process hold so many descriptors. Needs CAP_SYS_RESOURCE to go beyond the limit that it was given.
pub fn hold_files(count: u64) -> Result<()> {
    use rustix::process::{Rlimit, setrlimit};
    let limit = Rlimit { current: Some(count), maximum: Some(count) };
    setrlimit(rustix::process::Resource::Nofile, limit).during("raise limit of", "descriptors")
}

/// Kills every process but PID 1, which must be the caller.
pub fn kill_everything() {
    use rustix::process::{Signal, getpid};
    if getpid().as_raw_nonzero().get() == 1 {
        // There is always at least a kernel thread to refuse it; what remains is seen by the caller.
        // SAFETY: kill with -1 touches no memory.
        let _ = unsafe { libc::kill(-1, Signal::KILL.as_raw()) };
    }
}
