use nix::libc;

use super::*;

const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// What the kernel would answer: each filter is run on the call, the most severe answer counts.
fn answer(profile: Profile, call: i64, arguments: [u64; 3]) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_ne_bytes());
    let architecture: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    data.extend(architecture.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
    data.resize(64, 0);
    let answers = profile.filters().unwrap();
    // Of equal severity the filter that was installed last counts.
    let answers = answers.iter().rev().map(|filter| run(filter, &data));
    answers.min_by_key(|answer| (answer & 0xffff_0000).cast_signed()).unwrap()
}

/// Classic BPF (linux/filter.h), as far as the compiler uses it.
fn run(filter: &BpfProgram, data: &[u8]) -> u32 {
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let step = &filter[at];
        at += 1;
        let k = step.k;
        let taken = match step.code {
            0x20 => {
                let from = k as usize;
                accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            other => panic!("code {other:#x}"),
        };
        at += usize::from(if taken { step.jt } else { step.jf });
    }
}

#[test]
fn answers() {
    use Profile::{Daemon, Net, Storage, Vm};
    let any = [0; 3];
    let thread = [0x003d_0f00, 0, 0];
    let rows: &[(Profile, i64, [u64; 3], u32)] = &[
        (Daemon, libc::SYS_read, any, ALLOW),
        (Daemon, libc::SYS_execve, any, ALLOW),
        (Daemon, libc::SYS_seccomp, any, ALLOW),
        (Daemon, libc::SYS_clone, thread, ALLOW),
        (Daemon, libc::SYS_clone, [0x1000_0011, 0, 0], EPERM),
        (Daemon, libc::SYS_clone, [0x0002_0011, 0, 0], EPERM),
        (Daemon, libc::SYS_clone3, any, ENOSYS),
        (Storage, libc::SYS_clone3, any, ENOSYS),
        (Daemon, libc::SYS_mmap, [0, 4096, 3], ALLOW),
        (Daemon, libc::SYS_mmap, [0, 4096, 7], EPERM),
        (Daemon, libc::SYS_mprotect, [0, 4096, 5], EPERM),
        (Net, libc::SYS_mprotect, [0, 4096, 5], ALLOW),
        (Daemon, libc::SYS_socket, [1, 1, 0], ALLOW),
        (Daemon, libc::SYS_socket, [16, 3, 0], EPERM),
        (Daemon, libc::SYS_socket, [40, 1, 0], EPERM),
        (Net, libc::SYS_socket, [16, 3, 0], ALLOW),
        (Net, libc::SYS_socket, [17, 3, 0], ALLOW),
        (Net, libc::SYS_socket, [38, 3, 0], EPERM),
        (Storage, libc::SYS_socket, [16, 3, 0], ALLOW),
        (Daemon, libc::SYS_ioctl, [3, 0x5421, 0], ALLOW),
        (Daemon, libc::SYS_ioctl, [3, 0x5402, 0], EPERM),
        (Daemon, libc::SYS_ioctl, [3, 0x5412, 0], KILL),
        (Daemon, libc::SYS_kill, any, EPERM),
        (Net, libc::SYS_ioctl, [3, 0x4004_54ca, 0], ALLOW),
        (Storage, libc::SYS_ioctl, [3, 0xc138_fd03, 0], ALLOW),
        (Storage, libc::SYS_ioctl, [3, 0x541c, 0], KILL),
        (Daemon, libc::SYS_mount, any, KILL),
        (Storage, libc::SYS_mount, any, ALLOW),
        (Storage, libc::SYS_pivot_root, any, KILL),
        (Daemon, libc::SYS_memfd_create, any, EPERM),
        (Vm, libc::SYS_memfd_create, any, ALLOW),
        (Daemon, libc::SYS_io_uring_setup, any, EPERM),
        (Daemon, libc::SYS_setuid, any, EPERM),
        (Daemon, libc::SYS_mknodat, any, EPERM),
        // a call that no kernel has yet
        (Daemon, 4_000, any, EPERM),
    ];
    for (profile, call, arguments, expected) in rows {
        let got = answer(*profile, *call, *arguments);
        assert_eq!(got, *expected, "{profile:?} {call} {arguments:x?}: {got:#x}");
    }
}

#[test]
fn nobody_may_what_is_hostile() {
    for profile in PROFILES.map(|(_, profile)| profile) {
        for call in calls::HOSTILE.iter().copied().flatten() {
            let mounts = profile == Profile::Storage && calls::MOUNTS.contains(call);
            let expected = if mounts { ALLOW } else { KILL };
            assert_eq!(answer(profile, *call, [0; 3]), expected, "{profile:?} {call}");
        }
    }
}

#[test]
fn names_lead_to_profiles_and_back() {
    for (name, profile) in PROFILES {
        assert_eq!((Profile::parse(name), profile.name()), (Some(profile), name));
    }
    assert_eq!(Profile::parse("deamon"), None);
}

#[test]
fn another_architectures_calls_end_the_process() {
    let mut data = [0_u8; 64];
    data[4..8].copy_from_slice(&0x4000_0003_u32.to_ne_bytes());
    for filter in Profile::Daemon.filters().unwrap() {
        assert_eq!(run(&filter, &data), KILL);
    }
}
