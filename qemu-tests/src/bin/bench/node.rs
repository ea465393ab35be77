//! A node at rest, and with one VM.

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{GIB, Node, Scene};
use zos_types::status::State;

use crate::figures::{Figures, float, mib};

const SAMPLE: &str = include_str!("../../../../docs/examples/hello.toml");
/// A second boot finds its disk; the first one would measure the adoption.
const DISK: u64 = 4 * GIB;

/// Memory in KiB by the names of `/proc/meminfo` (proc_meminfo(5)).
pub(crate) fn meminfo(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let word = line.and_then(|rest| rest.split_whitespace().next()).context("a line of meminfo")?;
    word.parse().with_context(|| format!("{name} of meminfo"))
}

/// Memory that nobody else can have: RAM - MemFree - page cache that can be dropped, in bytes.
pub(crate) fn kept(ram: u64, text: &str) -> Result<u64> {
    let field = |name| meminfo(text, name).map(|kib| kib << 10);
    let cache = field("Active(file)")? + field("Inactive(file)")? + field("SReclaimable")?;
    Ok(ram.saturating_sub(field("MemFree")? + cache))
}

pub(crate) fn measure(scene: &mut Scene, figures: &mut Figures) -> Result<()> {
    let disk = scene.disk("node", DISK)?;
    let twin = scene.twin("twin")?;
    let node = Node::with_disks([disk]).with_probe();
    let mut machine = scene.start(&node)?;
    machine.wait_ready()?;
    machine.power_off()?;
    drop(machine);

    let mut machine = scene.start(&node)?;
    machine.wait_node("all services running", SOON, |node| {
        !node.services.is_empty() && node.services.iter().all(|s| s.state == "running")
    })?;
    let found = machine.wait_ready()?;
    let mut phases: Vec<(&String, &u64)> = found.phases.iter().collect();
    phases.sort_by_key(|(_, millis)| **millis);
    for (phase, millis) in phases {
        let figure = figures.add(&format!("boot: {phase} done after"), float(*millis), "ms");
        if phase == "api-ready" {
            figure.goal = Some(2000.0);
        }
    }
    // What starting left behind settles.
    std::thread::sleep(std::time::Duration::from_secs(10));
    memory(&mut machine, node.memory << 20, figures)?;
    twin.api(&machine)?.put("hello", SAMPLE)?;
    twin.api(&machine)?.wait_workload(("hello", "hello"), SOON, |w| w.state == State::Running)?;
    twin.api(&machine)?.wait_log(("hello", "hello"), "hello 3:", SOON)?;
    overhead(&mut machine, figures)?;
    machine.power_off()
}

fn memory(machine: &mut Machine, ram: u64, figures: &mut Figures) -> Result<()> {
    let text = machine.probe()?.read("/proc/meminfo")?;
    let field = |name| meminfo(&text, name).map(|kib| kib << 10);
    figures.add("idle: kept from twins (2 GiB machine)", mib(kept(ram, &text)?), "MiB").goal =
        Some(208.0);
    let total = field("MemTotal")?;
    figures.add("idle: of it reserved before MemTotal", mib(ram.saturating_sub(total)), "MiB");
    figures.add("idle: of it tmpfs, the root above all", mib(field("Shmem")?), "MiB");
    let processes = machine.probe()?.processes()?;
    let mut sum = 0;
    for process in &processes {
        let name = process["name"].as_str().context("a process has a name")?;
        let pss = process["pss"].as_u64().context("a process has a share")? << 10;
        if name == "zos-probe" {
            continue;
        }
        sum += pss;
        let figure = figures.add(&format!("idle: PSS of {name}"), mib(pss), "MiB");
        if name == "init" {
            figure.goal = Some(3.0);
        }
    }
    figures.add("idle: PSS of all", mib(sum), "MiB").goal = Some(48.0);
    Ok(())
}

/// What a VM's process holds beside the guest's memory, which is a shared file.
fn overhead(machine: &mut Machine, figures: &mut Figures) -> Result<()> {
    let processes = machine.probe()?.processes()?;
    let vmm = processes.iter().find(|process| process["name"] == "zos-vmm");
    let pid = vmm.and_then(|vmm| vmm["pid"].as_u64()).context("no zos-vmm runs")?;
    let own = machine.probe()?.beside(pid)?;
    ensure!(own > 0, "zos-vmm holds no memory");
    figures.add("VM: memory beside the guest's", mib(own << 10), "MiB").goal = Some(5.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "MemTotal: 2000 kB\nMemFree: 1000 kB\nActive(file): 10 kB\n\
        Inactive(file): 20 kB\nSReclaimable: 30 kB\n";

    #[test]
    fn cache_that_can_be_dropped_is_not_kept() {
        assert_eq!(meminfo(TEXT, "MemFree").unwrap(), 1000);
        assert!(meminfo(TEXT, "Mem").is_err());
        assert_eq!(kept(3000 << 10, TEXT).unwrap(), (3000 - 1060) << 10);
    }
}
