//! The same guest by two VMMs in the same node, turn by turn: zos-vmm and QEMU's microvm.
//!
//! The guest's init asks for a reboot at once, which ends either VMM; so a run's time is all that a
//! VM costs from the program's start to its end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use image_builder::arch::Arch;
use image_builder::cpio::{Archive, Mode};
use image_builder::elf;
use qemu_tests::machine::SOON;
use qemu_tests::qemu::Qemu;
use qemu_tests::{Boot, Node, Scene, image, probe, programs};
use serde_json::Value;

use crate::figures::{Figures, float, median};

const KERNEL: &str = "/usr/share/zos/guest/vmlinuz";
const INITRAMFS: &str = "/bench/init.img";
/// Nothing on the console but panics, and the reboot that each VMM understands.
const LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t";

pub(crate) fn measure(scene: &mut Scene, runs: usize, figures: &mut Figures) -> Result<()> {
    let dir = scene.dir().to_owned();
    let initramfs = dir.join("vms.img");
    let qemu = pack(&initramfs)?;
    let node = Node {
        boot: Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(initramfs) },
        memory: 3072,
        ..Node::default().with_probe()
    };
    let mut machine = scene.start(&node)?;
    machine.wait_ready()?;
    let ours: Vec<String> = words("/bin/zos-vmm --memory 192MiB --cpus 1 --json")
        .chain(["--kernel", KERNEL, "--initramfs", INITRAMFS, "--cmdline", LINE].map(Into::into))
        .collect();
    let machine_words = "-nodefaults -no-user-config -no-reboot -display none -accel kvm -cpu host \
                         -machine microvm,acpi=off -smp 1 -m 192 -serial null -L /bench";
    let peer: Vec<String> = words(&qemu)
        .chain(words(machine_words))
        .chain(["-kernel", KERNEL, "-initrd", INITRAMFS, "-append", LINE].map(Into::into))
        .collect();
    let (mut own, mut other, mut report) = (Vec::new(), Vec::new(), Value::Null);
    for _ in 0..runs {
        let (millis, output) = run(machine.probe()?, &ours, 3)?;
        own.push(millis);
        let json = output.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        report = json.with_context(|| format!("zos-vmm reports nothing: {output}"))?;
        other.push(run(machine.probe()?, &peer, 0)?.0);
    }
    let peer = ("QEMU microvm", median(other));
    figures.add("VM: start to guest's end", median(own), "ms").peer = Some(peer);
    for (field, name, goal) in [
        ("first_run_us", "VM: start to first instruction", None),
        ("guest_init_us", "VM: start to guest's init", Some(125.0)),
    ] {
        if let Some(micros) = report[field].as_u64() {
            figures.add(name, float(micros) / 1000.0, "ms").goal = goal;
        }
    }
    let exits = report["exits_total"].as_u64().context("zos-vmm counts its exits")?;
    figures.add("VM: exits of a guest's boot", float(exits), "exits");
    machine.wait_ready()?;
    machine.press_power_button()?;
    machine.wait_off(SOON)?;
    Ok(())
}

/// Milliseconds of a program's life, and what it said.
fn run(probe: &mut probe::Probe, command: &[String], code: i64) -> Result<(f64, String)> {
    let answer = probe.run(command)?;
    let output = answer["output"].as_str().unwrap_or_default().to_owned();
    ensure!(answer["code"] == code, "{} ended with {}: {output}", command[0], answer["code"]);
    Ok((float(answer["millis"].as_u64().context("a run has a time")?), output))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

/// Our image with the guest's init and QEMU with its libraries; gives QEMU's command in the node.
fn pack(target: &Path) -> Result<String> {
    let qemu = Qemu::find()?;
    let mut guest = Archive::new();
    let init = std::fs::read(programs::probe()?).context("read the guest's init")?;
    guest.add("init", Mode::Program, &init);
    // Where its init mounts devtmpfs.
    guest.add("dev", Mode::Dir, &[]);
    let mut files = vec![
        ("bench".to_owned(), Mode::Dir, Vec::new()),
        (INITRAMFS[1..].to_owned(), Mode::File, guest.finish()),
    ];
    let tree = qemu.tree.clone().unwrap_or_else(|| PathBuf::from("/"));
    let program = tree.join("usr/bin/qemu-system-x86_64");
    let mut add = |path: &Path| -> Result<String> {
        let name = path.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        files.push((format!("bench/{name}"), Mode::Program, bytes));
        Ok(format!("/bench/{name}"))
    };
    let libraries =
        elf::closure(std::slice::from_ref(&program), std::slice::from_ref(&tree), Arch::X86_64)
            .context("find QEMU's libraries")?;
    let mut loader = String::new();
    for library in &libraries {
        let place = add(&library.source)?;
        if place.contains("/ld-linux") {
            loader = place;
        }
    }
    for firmware in ["qboot.rom", "linuxboot_dma.bin", "pvh.bin"] {
        add(&tree.join("usr/share/qemu").join(firmware))?;
    }
    let command = format!("{loader} --library-path /bench {}", add(&program)?);
    image::extend_initramfs(&image::initramfs()?, &files, target)?;
    Ok(command)
}
