//! System calls by profile: what each kind of daemon may ask of the kernel.
//!
//! ```text
//!  profile ─ calls (tables by theme) ─▶ three filters, installed by the child as its last step before exec
//!                                        1 hostile      killed, told as SIGSYS
//!                                        2 clone3       ENOSYS, so that C libraries take clone, whose flags can be seen
//!                                        3 not listed   EPERM: what programs only probe for doesn't end them
//! ```
//! The lists allow; what they leave out is denied, new calls of later kernels included. They were measured:
//! each daemon of the image was traced in a node that booted, adopted a disk and ran a VM, and what it called is
//! here, with the other forms that another C library or architecture has for it. Calls that are
//! always allowed cost nothing: the kernel keeps a bitmap of them.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use crate::error::{Error, Result};

mod calls;

#[cfg(test)]
mod tests;

/// A named list of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Files, sockets of the local kind and of IP, timers, threads. No memory that is both its own and
    /// executable: it loads no code.
    Daemon,
    /// And links: netlink, raw packets, taps; and it runs `nft`.
    Net,
    /// And memory to pass on.
    Vm,
    /// And mounts, devices, owners of files; and it runs btrfs's tools.
    Storage,
}

/// Every profile by its name.
const PROFILES: [(&str, Profile); 4] = [
    ("daemon", Profile::Daemon),
    ("net", Profile::Net),
    ("vm", Profile::Vm),
    ("storage", Profile::Storage),
];

/// What a profile adds to [`Profile::Daemon`].
#[derive(Default)]
struct More {
    calls: &'static [&'static [i64]],
    /// Socket families.
    families: &'static [u64],
    /// `ioctl` requests; `None`: any but those that type into terminals.
    requests: Option<&'static [u64]>,
    /// It runs programs of others, whose loader maps libraries.
    programs: bool,
}

impl Profile {
    /// `daemon`, `net`, `vm` or `storage`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        PROFILES.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// All names, for messages that suggest one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|(name, _)| *name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        PROFILES.iter().find(|(_, profile)| *profile == self).map_or("?", |(name, _)| name)
    }

    fn more(self) -> More {
        match self {
            Self::Daemon => More { requests: Some(&[]), ..More::default() },
            Self::Net => More {
                calls: &[calls::PROGRAMS],
                families: &[calls::AF_NETLINK, calls::AF_PACKET],
                requests: Some(calls::TAPS),
                programs: true,
            },
            Self::Vm => {
                More { calls: &[calls::SHARED_MEMORY], requests: Some(&[]), ..More::default() }
            }
            Self::Storage => More {
                calls: &[calls::PROGRAMS, calls::MOUNTS, calls::OWNERS, calls::DISKS],
                families: &[calls::AF_NETLINK],
                requests: None,
                programs: true,
            },
        }
    }

    /// Its filters, in the order in which they are installed.
    pub(super) fn filters(self) -> Result<Vec<BpfProgram>> {
        let made = || -> std::result::Result<Vec<BpfProgram>, BackendError> {
            Ok(vec![self.hostile()?, no_clone3()?, self.allowed()?])
        };
        made().map_err(|error| Error::invalid("compile seccomp profile", self.name(), error))
    }

    /// Ends the process: nothing of ours tries that, so something else does.
    fn hostile(self) -> std::result::Result<BpfProgram, BackendError> {
        let allowed: Vec<i64> = self.more().calls.iter().copied().flatten().copied().collect();
        let hostile = calls::HOSTILE.iter().copied().flatten();
        let mut rules: Rules = hostile
            .filter(|call| !allowed.contains(call))
            .map(|call| (*call, Vec::new()))
            .collect();
        let types = calls::TYPES_INTO_TERMINALS.iter().map(|request| equal(1, *request));
        rules.insert(libc::SYS_ioctl, types.collect::<std::result::Result<_, _>>()?);
        filter(rules, SeccompAction::KillProcess, SeccompAction::Allow)
    }

    fn allowed(self) -> std::result::Result<BpfProgram, BackendError> {
        let more = self.more();
        let calls = calls::EVERYBODY.iter().chain(more.calls).copied().flatten();
        let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
        rules.insert(libc::SYS_clone3, Vec::new());
        rules.insert(libc::SYS_clone, vec![none_of(0, calls::NEW_NAMESPACES)?]);
        let families = calls::FAMILIES.iter().chain(more.families).map(|family| equal(0, *family));
        rules.insert(libc::SYS_socket, families.collect::<std::result::Result<_, _>>()?);
        let requests = match more.requests {
            None => Vec::new(),
            Some(requests) => {
                let requests = calls::REQUESTS.iter().chain(requests);
                requests.map(|request| equal(1, *request)).collect::<std::result::Result<_, _>>()?
            }
        };
        rules.insert(libc::SYS_ioctl, requests);
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            let rule = if more.programs { Vec::new() } else { vec![none_of(2, calls::PROT_EXEC)?] };
            rules.insert(call, rule);
        }
        let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        filter(rules, SeccompAction::Allow, denied)
    }
}

/// No conditions: with any arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// clone3 has its flags in memory, where no filter can look.
fn no_clone3() -> std::result::Result<BpfProgram, BackendError> {
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    filter(rules, absent, SeccompAction::Allow)
}

fn filter(
    rules: Rules,
    matching: SeccompAction,
    other: SeccompAction,
) -> std::result::Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, other, matching, architecture)?.try_into()
}

/// The argument is this value.
fn equal(argument: u8, value: u64) -> std::result::Result<SeccompRule, BackendError> {
    when(argument, SeccompCmpOp::Eq, value)
}

/// The argument has none of these bits.
fn none_of(argument: u8, bits: u64) -> std::result::Result<SeccompRule, BackendError> {
    when(argument, SeccompCmpOp::MaskedEq(bits), 0)
}

/// The kernel looks at 32 bits of each of these arguments.
fn when(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> std::result::Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}

/// Filters as the kernel takes them; the child installs them.
#[derive(Debug)]
pub(super) struct Prepared(Vec<BpfProgram>);

impl Prepared {
    pub(super) fn new(profile: Option<Profile>) -> Result<Self> {
        Ok(Self(profile.map(Profile::filters).transpose()?.unwrap_or_default()))
    }

    /// In the child, which has no_new_privs, as the last step: what comes after is filtered.
    pub(super) fn enter(&self) -> io::Result<()> {
        const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
        // linux/filter.h: struct sock_fprog
        #[repr(C)]
        struct Program {
            length: libc::c_ushort,
            instructions: *const seccompiler::sock_filter,
        }
        for filter in &self.0 {
            let program = Program {
                // The compiler refuses programs of more than 4096 instructions.
                length: u16::try_from(filter.len()).unwrap_or(u16::MAX),
                instructions: filter.as_ptr(),
            };
            // SAFETY: the structure is the kernel's sock_fprog, and lives as the instructions do.
            let done = unsafe {
                libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program)
            };
            if done == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}
