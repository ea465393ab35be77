//! The system calls of each kind of thread: what isn't listed ends the process.

use crate::machine::vcpu_signal;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};
use std::collections::BTreeMap;

/// Kinds of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signals, calls for vCPUs and the end.
    Main,
    /// Runs guest code.
    Vcpu,
    /// A disk's worker.
    Blk,
    /// A network interface's worker.
    Net,
    /// The worker of all small devices.
    Shared,
}

/// Whether filters are on. Off is for developers who trace the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Each thread enters its filter.
    On,
    /// No filters.
    Off,
}

/// `ioctl` requests (`linux/kvm.h`, `linux/if_tun.h`).
const KVM_RUN: u64 = 0xae80;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
const KVM_SIGNAL_MSI: u64 = 0x4020_aea5;
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const PROT_EXEC: u64 = 4;
const F_GETFD: u64 = 1;

/// Memory of the allocator and of ending threads; locks; the clock; messages and event descriptors.
const EVERYBODY: &[i64] = &[
    libc::SYS_futex,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Waiting for descriptors.
#[cfg(target_arch = "x86_64")]
const WAIT: &[i64] = &[libc::SYS_poll, libc::SYS_ppoll];
#[cfg(not(target_arch = "x86_64"))]
const WAIT: &[i64] = &[libc::SYS_ppoll];

impl Kind {
    /// Calls beyond everybody's, with any arguments.
    fn calls(self) -> &'static [&'static [i64]] {
        match self {
            Kind::Main => &[WAIT],
            Kind::Vcpu => &[],
            Kind::Blk => &[WAIT, &[libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_fdatasync]],
            Kind::Net => &[WAIT, &[libc::SYS_readv, libc::SYS_writev]],
            Kind::Shared => &[WAIT, &[libc::SYS_getrandom, libc::SYS_accept4]],
        }
    }

    /// `ioctl` requests.
    fn requests(self) -> &'static [u64] {
        match self {
            Kind::Main => &[],
            Kind::Vcpu => &[KVM_RUN, KVM_IOEVENTFD, KVM_SIGNAL_MSI, KVM_KVMCLOCK_CTRL],
            Kind::Blk | Kind::Shared => &[KVM_SIGNAL_MSI],
            Kind::Net => &[KVM_SIGNAL_MSI, TUNSETOFFLOAD],
        }
    }

    fn filter(self) -> Result<BpfProgram, Error> {
        let any = |call: &i64| (*call, Vec::new());
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = EVERYBODY.iter().map(any).collect();
        rules.extend(self.calls().iter().copied().flatten().map(any));
        let no_exec = || when(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(PROT_EXEC), 0);
        rules.insert(libc::SYS_mmap, vec![no_exec()?]);
        rules.insert(libc::SYS_mprotect, vec![no_exec()?]);
        if cfg!(debug_assertions) {
            // The standard library then looks whether a descriptor is open before it closes it.
            let looks = when(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, F_GETFD)?;
            rules.insert(libc::SYS_fcntl, vec![looks]);
        }
        let requests = self.requests().iter();
        let requests = requests
            .map(|request| when(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request))
            .collect::<Result<Vec<_>, _>>()?;
        if !requests.is_empty() {
            rules.insert(libc::SYS_ioctl, requests);
        }
        if self == Kind::Main {
            // Calls vCPUs out of the guest, and reaches nobody else.
            let own = u64::from(std::process::id());
            let signal = u64::try_from(vcpu_signal()).unwrap_or(0);
            let to_us = equals(0, own)?;
            let that = equals(2, signal)?;
            let rule = SeccompRule::new(vec![to_us, that]).map_err(Error::Backend)?;
            rules.insert(libc::SYS_tgkill, vec![rule]);
        }
        let arch = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
        let filter =
            SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
        filter.and_then(TryInto::try_into).map_err(Error::Backend)
    }
}

impl Seccomp {
    /// The calling thread enters the filter of its kind, for good. A thread that can't must not
    /// run: the process ends.
    pub fn enter(self, kind: Kind) {
        if self == Seccomp::Off {
            return;
        }
        if let Err(error) = kind.filter().and_then(|filter| apply_filter(&filter)) {
            eprintln!("zos-vmm: seccomp filter of {kind:?}: {error}");
            std::process::exit(1);
        }
    }
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        .map_err(Error::Backend)
}

fn when(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, Error> {
    SeccompCondition::new(argument, length, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(Error::Backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [Kind::Main, Kind::Vcpu, Kind::Blk, Kind::Net, Kind::Shared];

    #[test]
    fn every_filter_compiles_and_is_short() {
        for kind in KINDS {
            kind.filter().unwrap();
            let calls = EVERYBODY.len() + kind.calls().iter().map(|c| c.len()).sum::<usize>() + 3;
            assert!(calls <= 24, "{kind:?} may make {calls} calls");
        }
    }

    /// The numbers as the kernel's headers compute them: direction, size, type, number.
    #[test]
    fn requests_are_what_the_headers_say() {
        let iow = |number: u64, size: usize| 1 << 30 | (size as u64) << 16 | 0xae << 8 | number;
        assert_eq!(KVM_IOEVENTFD, iow(0x79, size_of::<kvm_bindings::kvm_ioeventfd>()));
        assert_eq!(KVM_SIGNAL_MSI, iow(0xa5, size_of::<kvm_bindings::kvm_msi>()));
    }
}
