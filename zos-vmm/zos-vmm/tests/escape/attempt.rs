//! One attempt: a child that enters a filter, tries, and is looked at from outside.

use crate::goals::{Goal, NOTHING, World};
use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};
use zos_vmm::jail::{Kind, Seccomp};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Won,
    /// The kernel refused.
    Refused(i32),
    /// By a signal: 31 is the filter's.
    Killed(i32),
    /// There was nothing to try it on.
    Nothing,
    /// It waits and doesn't come back: as good as refused.
    Waits,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Won => f.write_str("WON"),
            Self::Refused(errno) => match nix::errno::Errno::from_raw(*errno) {
                nix::errno::Errno::UnknownErrno => write!(f, "errno-{errno}"),
                known => write!(f, "{known:?}"),
            },
            Self::Killed(libc::SIGSYS) => f.write_str("killed"),
            Self::Killed(signal) => write!(f, "signal-{signal}"),
            Self::Nothing => f.write_str("-"),
            Self::Waits => f.write_str("waits"),
        }
    }
}

/// A word that a child leaves to its parent.
pub(crate) struct Page(*const AtomicI32);

const UNTOLD: i32 = -1;

impl Page {
    pub(crate) fn new() -> Self {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory of the kernel's choice, never unmapped; zeros are an atomic.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED, "a page to share");
        Self(page.cast())
    }

    fn word(&self) -> &AtomicI32 {
        // SAFETY: mapped above, for as long as the process lives.
        unsafe { &*self.0 }
    }
}

/// Tries a goal in a child, in a kind of thread's filter or in none.
pub(crate) fn try_in(kind: Option<Kind>, goal: &Goal, world: &World, page: &Page) -> Outcome {
    world.turn.set(world.turn.get() + 1);
    in_child(kind, page, || match (goal.attempt)(world) {
        Ok(()) => 0,
        Err(errno) => errno,
    })
}

/// Calls of which a kind's list says nothing, and which its filter lets through all the same. They are made without
/// arguments that mean anything.
pub(crate) fn beyond_the_list(page: &Page) -> usize {
    /// More than the kernel has on any architecture of ours.
    const CALLS: i64 = 600;
    /// `uretprobe`, `uprobe` of x86_64: newer kernels let them pass by every filter, and they do nothing but in code
    /// that the kernel itself put there for a tracer.
    const PASSED: [i64; 2] = [335, 336];
    let passed = |call: i64| cfg!(target_arch = "x86_64") && PASSED.contains(&call);
    let mut allowed = 0;
    for kind in Kind::ALL {
        let listed = kind.calls();
        let unlisted = |call: &i64| !listed.values().any(|known| known == call) && !passed(*call);
        for call in (0..CALLS).filter(unlisted) {
            let outcome = in_child(Some(kind), page, || {
                // SAFETY: no pointer among the arguments; a call that got through would fail on them or end us.
                unsafe { libc::syscall(call, -1_i64, 0_i64, 0_i64, 0_i64, 0_i64, 0_i64) };
                0
            });
            if outcome != Outcome::Killed(libc::SIGSYS) {
                eprintln!("escape: {kind:?} may make call {call}: {outcome}");
                allowed += 1;
            }
        }
    }
    allowed
}

fn in_child(kind: Option<Kind>, page: &Page, attempt: impl FnOnce() -> i32) -> Outcome {
    page.word().store(UNTOLD, Ordering::SeqCst);
    // SAFETY: this program has one thread, so its copy may do whatever it could.
    match unsafe { libc::fork() } {
        0 => {
            if let Some(kind) = kind {
                Seccomp::On.enter(kind);
            }
            let told = attempt();
            page.word().store(told, Ordering::SeqCst);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        child => outcome(child, page),
    }
}

fn outcome(child: i32, page: &Page) -> Outcome {
    let mut status = 0;
    // Far more than any attempt needs; what waits longer than that waits for ever.
    for turn in 0..100_000 {
        // SAFETY: our child; the status outlives the call.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            return match page.word().load(Ordering::SeqCst) {
                0 => Outcome::Won,
                UNTOLD if libc::WIFSIGNALED(status) => Outcome::Killed(libc::WTERMSIG(status)),
                UNTOLD => Outcome::Waits,
                NOTHING => Outcome::Nothing,
                errno => Outcome::Refused(errno),
            };
        }
        std::thread::sleep(std::time::Duration::from_micros(if turn < 100 { 50 } else { 1000 }));
        if turn > 3000 {
            break;
        }
    }
    // SAFETY: our child, not yet reaped.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
    }
    Outcome::Waits
}
