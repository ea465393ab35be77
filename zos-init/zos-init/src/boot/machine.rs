//! The kernel as we want it: log, cgroups, loopback, name, settings.

use std::fs;
use std::path::Path;

use zos_host::cgroup::{self, Cgroup};
use zos_host::kmsg::Level;
use zos_host::{Context, Result, SysRoot, net};

use super::Boot;
use crate::log;

/// Controllers that limits need.
const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "io"];
/// Memory that tenants can't push the daemons out of, bytes.
const NODE_MEMORY: u64 = 96 << 20;

/// path below /proc/sys, value
const SYSCTLS: &[(&str, &str)] = &[
    // A kernel that died boots again.
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    // Addresses and logs of the kernel are nobody's business.
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "2"),
    ("kernel/sysrq", "0"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/inotify/max_user_instances", "1024"),
];

/// How much of the log the console shows: `zos.log` (a level's name or number), else notices and worse;
/// `zos.debug` shows all.
pub(super) fn log(boot: &mut Boot) -> Result<()> {
    let level = match boot.settings.get("log") {
        Some(word) => Level::parse(word),
        None if boot.settings.flag("debug") => Some(Level::Debug),
        None => Some(Level::Notice),
    };
    let Some(level) = level else {
        let word = boot.settings.get("log").unwrap_or_default();
        let detail = format!("zos.log={word} is not a level: error, warning, notice, info, debug");
        boot.fault("settings", &detail);
        return Ok(());
    };
    // The console shows what is more urgent than this number.
    let shown = format!("{} 4 1 7", level as u8 + 1);
    fs::write("/proc/sys/kernel/printk", shown).during("write", "/proc/sys/kernel/printk")?;
    // PID 1 limits each service by itself; the kernel's limit would drop lines of all alike. The kernel takes this
    // setting once, so one that was given on its command line stays.
    let devkmsg = "/proc/sys/kernel/printk_devkmsg";
    if SysRoot::host().attribute(devkmsg).as_deref() != Some("on") {
        fs::write(devkmsg, "on\n").during("write", devkmsg)?;
    }
    Ok(())
}

pub(super) fn cgroups(boot: &mut Boot) -> Result<()> {
    let root = cgroup::mount()?;
    let lacking = root.enable(CONTROLLERS);
    if !lacking.is_empty() {
        boot.fault("cgroups", &format!("the kernel has no controller {}", lacking.join(", ")));
    }
    let node = root.child("node")?;
    let _ = node.enable(CONTROLLERS);
    // A machine of 1 GiB keeps an eighth for the daemons.
    let memory = NODE_MEMORY.min(total_memory() / 8);
    let _ = node.set("memory.min", &memory.to_string());
    // Twins get the processors by weight; the daemons come first, or nobody could stop a twin.
    let _ = node.set("cpu.weight", "1000");
    let tenants = root.child("tenants")?;
    let _ = tenants.enable(CONTROLLERS);
    node.child("init")?.add(0)
}

/// Bytes of memory that the kernel manages.
fn total_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// The cgroup of a service.
pub(crate) fn service_cgroup(name: &str) -> Result<Cgroup> {
    Cgroup::at(cgroup::ROOT).child("node")?.child(name)
}

/// Where a service's cgroup is, if it has one now.
pub(crate) fn place_of_service(name: &str) -> Cgroup {
    Cgroup::at(Path::new(cgroup::ROOT).join("node").join(name))
}

/// Where a workload's cgroup is, if it has one now.
pub(crate) fn place_of_workload(twin: &str, name: &str) -> Cgroup {
    Cgroup::at(Path::new(cgroup::ROOT).join("tenants").join(twin).join(name))
}

/// The cgroup of a twin, below which its workloads' stand.
pub(crate) fn twin_cgroup(twin: &str) -> Result<Cgroup> {
    let group = Cgroup::at(cgroup::ROOT).child("tenants")?.child(twin)?;
    let _ = group.enable(CONTROLLERS);
    Ok(group)
}

pub(super) fn network_basics(boot: &mut Boot) -> Result<()> {
    net::set_hostname(boot.settings.get("hostname").unwrap_or("zos"))?;
    net::loopback_up()
}

/// The kernel's generator is seeded by the processor on every machine of ours; where it isn't, keys made now
/// would wait, so say so.
pub(super) fn entropy(boot: &mut Boot) -> Result<()> {
    if !zos_host::entropy::ready() {
        let detail =
            "the kernel's random generator is not seeded yet; making keys will wait for it";
        boot.fault("entropy", detail);
    }
    Ok(())
}

pub(super) fn kernel_settings(_: &mut Boot) -> Result<()> {
    for (name, value) in SYSCTLS {
        // A kernel without one of them has nothing to protect there.
        if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
            log::line(Level::Info, &format!("sysctl {name}: {error}"));
        }
    }
    // Guest memory is shared memory: let a VMM ask for huge pages there.
    let huge = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    if let Err(error) = fs::write(huge, "advise") {
        log::line(Level::Info, &format!("{huge}: {error}"));
    }
    Ok(())
}
