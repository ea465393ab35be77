//! What the process gives up by itself, before a guest can reach it: capabilities, every path but
//! those in the folder, every system call but those of a file server.

use anyhow::{Context, Result};
use capng::Set;
use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// All of it. What comes later has the folder's owner's rights in the folder, and nothing else.
pub(crate) fn everything(folder: BorrowedFd<'_>) -> Result<()> {
    set_no_new_privs(true).context("give up new privileges")?;
    capng::clear(Set::BOTH);
    // Without the capability for it the bounding set can't be emptied; then it doesn't matter.
    if capng::apply(Set::BOTH).is_err() {
        capng::apply(Set::CAPS).context("give up capabilities")?;
    }
    paths(folder).context("give up paths")?;
    let filter = filter().context("make the filter of system calls")?;
    apply_filter(&filter).context("enter the filter of system calls")
}

fn paths(folder: BorrowedFd<'_>) -> Result<()> {
    let newest = ABI::V6;
    let special = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Execute | AccessFs::IoctlDev;
    let rights = AccessFs::from_all(newest) & !special;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .add_rule(PathBeneath::new(folder, rights))?
        .restrict_self()?;
    Ok(())
}

/// Calls with any arguments: files by descriptor and beneath folders, events, messages, memory. `setgroups` is asked for when
/// a guest's user has further groups; without a capability the kernel refuses it, and the request with it.
const CALLS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pread64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_readlinkat,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_setgroups,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older forms that x86_64 has, too, and a C library may use.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_create, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[libc::SYS_ppoll];

const PROT_EXEC: u64 = 4;
const CLONE_THREAD: u64 = 0x1_0000;
/// `CLONE_NEW*`: namespaces.
const NAMESPACES: u64 = 0x7e02_0080;
const PR_SET_NAME: u64 = 15;

fn filter() -> Result<BpfProgram, Error> {
    let any = |call: &i64| (*call, Vec::new());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().chain(OLDER).map(any).collect();
    rules.insert(libc::SYS_mmap, vec![when(2, PROT_EXEC, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![when(2, PROT_EXEC, 0)?]);
    // The threads that serve are made after this: threads alone, and in these namespaces.
    rules.insert(libc::SYS_clone, vec![when(0, CLONE_THREAD | NAMESPACES, CLONE_THREAD)?]);
    rules.insert(libc::SYS_prctl, vec![when(0, u64::from(u32::MAX), PR_SET_NAME)?]);
    // Debug builds for a C library that knows nothing else; its argument lies behind a pointer.
    #[cfg(target_env = "gnu")]
    rules.insert(libc::SYS_clone3, Vec::new());
    let arch = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)
        .and_then(TryInto::try_into)
        .map_err(Error::Backend)
}

fn when(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, Error> {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(Error::Backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_has_no_way_out() {
        filter().unwrap();
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_mount,
            libc::SYS_ptrace,
            libc::SYS_open_by_handle_at,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_setresuid,
            libc::SYS_kill,
        ];
        assert!(CALLS.iter().chain(OLDER).all(|call| !never.contains(call)));
    }
}
