//! What a VM takes of the node is counted without telling whose it is, and one that ends again and again is left alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{GIB, Node, scene};
use serde_json::json;
use zos_types::status::State;

use crate::vm::{HELLO, running, vmms};

/// What builtin guests boot.
const KERNEL: &str = "/usr/share/zos/guest/vmlinuz";

/// A kernel whose first instruction is none: the processor resets, again and again. ELF for x86_64, entered at 16 MiB,
/// with the note by which PVH enters it (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`).
fn resets() -> Vec<u8> {
    const AT: u64 = 16 << 20;
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [AT, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // Type, flags, then offset, virtual and physical address, sizes in the file and in memory, alignment.
    let mut segment = |kind: u32, flags: u32, words: [u64; 6]| {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    };
    segment(1, 5, [4096, AT, AT, 2, 4096, 4096]);
    segment(4, 4, [176, 0, 0, 20, 20, 4]);
    for word in [4_u32, 4, 18] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend(u32::try_from(AT).unwrap_or(0).to_le_bytes());
    elf.resize(4096, 0);
    // ud2
    elf.extend(b"\x0f\x0b");
    elf
}

#[test]
fn a_vm_is_counted_and_one_that_resets_in_a_loop_is_left_alone() {
    scene("quarantine", |scene| {
        let twin = scene.twin("twin")?;
        let plan = Node::with_disks([scene.disk("key", 4 * GIB)?]).with_probe();
        let mut node = scene.start(&plan.with_file("resets", Mode::File, resets()))?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        api.put("hello", HELLO)?;
        let address = running(&api, "hello")?;
        api.wait_log(("hello", "hello"), &address.to_string(), SOON)?;
        counted(&mut node, &twin.id().to_string())?;
        fenced(&mut node)?;

        // From now on its guest does nothing but reset.
        node.probe()?.copy("/resets", KERNEL)?;
        node.probe()?.kill("zos-vmm")?;
        let quarantined = |state: &State| matches!(state, State::Quarantined { .. });
        let found = api.wait_workload(("hello", "hello"), SOON, |w| quarantined(&w.state))?;
        let words = format!("{:?}", found.state);
        ensure!(words.contains("the guest rebooted, 5 times in a row"), "{words}");
        ensure!(vmms(&mut node)?.is_empty(), "it runs still");
        wait_metric(&mut node, "zos_vmd_vms{state=\"quarantined\"} 1")?;
        // A new vmd leaves it alone as well, and what it holds stays.
        node.probe()?.kill("vmd")?;
        node.wait_node("vmd running again", SOON, |found| {
            found.services.iter().any(|s| s.name == "vmd" && s.state == "running" && s.restarts > 0)
        })?;
        let again = api.wait_workload(("hello", "hello"), SOON, |w| quarantined(&w.state))?;
        ensure!(again.restarts == found.restarts, "it was started meanwhile: {again:?}");
        // Its twin changes it: it is tried again.
        let more = HELLO.replace("version = 1", "version = 2").replace("cpu = 1", "cpu = 2");
        api.put("hello", &more)?;
        api.wait_workload(("hello", "hello"), SOON, |w| w.restarts > found.restarts)?;
        node.power_off()
    });
}

/// Each thing is counted, and by the number of its slot alone.
fn counted(node: &mut Machine, twin: &str) -> Result<()> {
    for name in [
        "vm_tells{vm=\"0\"} 1",
        "vm_cpu_seconds_total{vm=\"0\"} ",
        "vm_memory_bytes{vm=\"0\"} ",
        "vm_exits_total{vm=\"0\"} ",
        "vm_disk_bytes_total{vm=\"0\",direction=\"read\"} ",
        "vm_disk_operations_total{vm=\"0\",direction=\"read\"} ",
        "vm_network_bytes_total{vm=\"0\",direction=\"receive\"} ",
        "vm_network_frames_total{vm=\"0\",direction=\"transmit\"} ",
        "vm_balloon_bytes{vm=\"0\"} ",
    ] {
        let text = wait_metric(node, &format!("zos_vmd_{name}"))?;
        let ours = text.lines().filter(|line| line.contains("zos_vmd_vm_"));
        for line in ours {
            ensure!(!line.contains(twin) && !line.contains("hello"), "it tells whose: {line}");
        }
    }
    let text = metrics(node)?;
    let exits =
        text.lines().find_map(|line| line.strip_prefix("zos_vmd_vm_exits_total{vm=\"0\"} "));
    let exits: f64 = exits.context("no exits")?.parse().context("exits are a number")?;
    ensure!(exits > 100.0, "a guest booted with {exits} exits");
    Ok(())
}

fn metrics(node: &mut Machine) -> Result<String> {
    let told = node.probe()?.varlink("vm", "org.zos.Service.ReadMetrics", json!({}))?;
    Ok(told["text"].as_str().with_context(|| format!("no text: {told}"))?.to_owned())
}

fn wait_metric(node: &mut Machine, line: &str) -> Result<String> {
    let end = Instant::now() + SOON;
    loop {
        let text = metrics(node)?;
        if text.lines().any(|found| found.starts_with(line)) {
            return Ok(text);
        }
        ensure!(Instant::now() < end, "no {line} in\n{text}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What PID 1 holds the VM's process to.
fn fenced(node: &mut Machine) -> Result<()> {
    let pid = *vmms(node)?.first().context("no VM runs")?;
    let probe = node.probe()?;
    let status = probe.read(&format!("/proc/{pid}/status"))?;
    let limits = probe.read(&format!("/proc/{pid}/limits"))?;
    let fact = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (key, expected) in [
        ("Uid:", "20000 20000 20000 20000"),
        ("Gid:", "20000 20000 20000 20000"),
        ("Groups:", ""),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        ensure!(fact(key) == expected, "{key} {}, not {expected}", fact(key));
    }
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    for (name, expected) in [
        ("Max file size", "268435456"),
        ("Max core file size", "0"),
        ("Max processes", "512"),
        ("Max open files", "1024"),
        ("Max locked memory", "4194304"),
    ] {
        ensure!(limit(name) == expected, "{name} is {}, not {expected}", limit(name));
    }
    ensure!(probe.read(&format!("/proc/{pid}/oom_score_adj"))?.trim() == "900");
    let groups = probe.list("/sys/fs/cgroup/tenants")?;
    let twin = groups.iter().find(|name| name.len() == 52).context("no twin has a cgroup")?;
    let group = format!("/sys/fs/cgroup/tenants/{twin}/hello.hello");
    for (file, expected) in [("cpu.max", "200000 100000"), ("cpu.weight", "100")] {
        let found = probe.read(&format!("{group}/{file}"))?;
        ensure!(found.trim() == expected, "{file}: {found}, not {expected}");
    }
    let memory = probe.read(&format!("{group}/memory.max"))?;
    ensure!(memory.trim().parse::<u64>()? < 320 << 20, "memory.max: {memory}");
    Ok(())
}
