//! Core scheduling (Documentation/admin-guide/hw-vuln/core-scheduling.rst): processes of one group may
//! share a core's threads, others never run beside them.

use std::io;

use nix::libc;

use crate::error::{Context, Result};

const PR_SCHED_CORE: libc::c_int = 62;
const CREATE: libc::c_ulong = 1;
const SHARE_TO: libc::c_ulong = 2;
const SHARE_FROM: libc::c_ulong = 3;
const THREAD: libc::c_ulong = 0;
const THREAD_GROUP: libc::c_ulong = 1;

/// Puts processes into groups. The machine has cores with several threads, and the kernel can.
#[derive(Debug)]
pub struct CoreGroup(());

impl CoreGroup {
    /// Asks the kernel; fails where it or the processor has no such thing.
    pub fn supported() -> Result<Self> {
        // Taking one's own cookie changes nothing; without threads that share a core the kernel says no.
        call(SHARE_FROM, 0, THREAD).during("use", "core scheduling")?;
        Ok(Self(()))
    }

    /// The process starts a group of its own.
    pub fn create(&self, pid: i32) -> Result<()> {
        call(CREATE, pid, THREAD_GROUP).during("make core group for", pid)
    }

    /// The process joins the group of `member`. Passes through the caller's own thread, which leaves again.
    pub fn join(&self, pid: i32, member: i32) -> Result<()> {
        call(SHARE_FROM, member, THREAD).during("read core group of", member)?;
        let joined = call(SHARE_TO, pid, THREAD_GROUP).during("share core group with", pid);
        call(SHARE_FROM, KTHREADD, THREAD).during("leave", "core group")?;
        joined
    }
}

/// The kernel's own process 2, which has no cookie.
const KTHREADD: i32 = 2;

fn call(command: libc::c_ulong, pid: i32, scope: libc::c_ulong) -> io::Result<()> {
    let pid = libc::c_ulong::from(pid.unsigned_abs());
    // SAFETY: PR_SCHED_CORE with these commands takes integers only (the last is for GET's pointer).
    let done = unsafe { libc::prctl(PR_SCHED_CORE, command, pid, scope, 0_u64) };
    crate::sys::check(done).map(|_| ())
}
