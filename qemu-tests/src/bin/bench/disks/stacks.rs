//! What a VM gets of a disk: raw, by each kind of volume, by dm-thin; and what the node itself gets of it.
//!
//! ```text
//!  raw       disk                                        the node itself, then a VM
//!  open      file ─ loop                                 a volume below its dm-crypt: what encryption costs
//!  none      file ─ loop ─ dm-crypt
//!  detect    file ─ loop ─ dm-integrity ─ dm-crypt
//!  repair    two of those ─ dm-raid ─ dm-crypt
//!  thin      disk ─ dm-thin ─ dm-crypt                   the peer
//! ```

use anyhow::{Context as _, Result, ensure};
use qemu_tests::nested::words;
use serde_json::{Value, json};

use super::{Bench, TWIN};
use crate::figures::Figures;
use crate::vms::{KERNEL, Vm, Way, parse};

/// What is told, and its unit.
const TOLD: [(&str, &str, &str); 6] = [
    ("read_mib", "reading", "MiB/s"),
    ("write_mib", "writing", "MiB/s"),
    ("read_iops_1", "4 KiB reads, depth 1", "/s"),
    ("read_iops_32", "4 KiB reads, depth 32", "/s"),
    ("write_iops_1", "4 KiB writes, depth 1", "/s"),
    ("write_iops_32", "4 KiB writes, depth 32", "/s"),
];
const SIZE: u64 = 256 << 20;
/// Seconds of one measurement.
const TIME: u32 = 3;

pub(super) fn measure(bench: &mut Bench, figures: &mut Figures) -> Result<()> {
    let raw = bench.machine.probe()?.disk("raw")?;
    let output = bench.run(&words(&format!("/bin/zos-probe speed {raw} {TIME}")))?;
    let node: Value = serde_json::from_str(output.trim()).context("read the node's figures")?;
    // Written once before it counts: a fresh file's blocks cost their first writer more.
    let raw = guest(bench, &raw, 2)?;
    let thin = thin(bench)?;
    let thin = guest(bench, &thin, 2)?;
    tell(figures, "raw disk", &raw, ("node itself", &node))?;
    for integrity in ["none", "detect", "repair"] {
        let device = volume(bench, integrity)?;
        if integrity == "none" {
            let below = below(bench, &device)?;
            let open = guest(bench, &below, 2)?;
            tell(figures, "volume without dm-crypt", &open, ("raw disk", &raw))?;
        }
        let told = guest(bench, &device, 2)?;
        tell(figures, &format!("volume, {integrity}"), &told, ("raw disk", &raw))?;
        if integrity == "none" {
            tell(figures, "volume, none, again", &told, ("dm-thin, dm-crypt", &thin))?;
        }
    }
    Ok(())
}

/// The device of a new volume.
fn volume(bench: &mut Bench, integrity: &str) -> Result<String> {
    let before = mapped(bench)?;
    let name = format!("bench/{integrity}");
    bench.storage("CreateVolume", super::volume(&name, SIZE, integrity))?;
    bench.storage("OpenVolume", json!({"twin": TWIN, "name": name}))?;
    let after = mapped(bench)?;
    // Legs are mapped, too; what nothing stands on is the volume.
    for name in after.iter().filter(|name| !before.contains(name)) {
        if bench.machine.probe()?.list(&format!("/sys/block/{name}/holders"))?.is_empty() {
            return Ok(format!("/dev/{name}"));
        }
    }
    anyhow::bail!("no device came with volume {name}")
}

fn mapped(bench: &mut Bench) -> Result<Vec<String>> {
    let names = bench.machine.probe()?.list("/sys/block")?;
    Ok(names.into_iter().filter(|name| name.starts_with("dm-")).collect())
}

/// What a mapped device stands on.
fn below(bench: &mut Bench, device: &str) -> Result<String> {
    let name = device.trim_start_matches("/dev/");
    let below = bench.machine.probe()?.list(&format!("/sys/block/{name}/slaves"))?;
    Ok(format!("/dev/{}", below.first().with_context(|| format!("{device} stands on nothing"))?))
}

/// dm-thin with 64 KiB blocks on the disk `thin`, dm-crypt over it as in a volume.
fn thin(bench: &mut Bench) -> Result<String> {
    let disk = bench.machine.probe()?.disk("thin")?;
    let size = bench.machine.probe()?.read(&format!("/sys/block/{}/size", &disk[5..]))?;
    let sectors: u64 = size.trim().parse().context("a size in sectors")?;
    // The first 16 MiB stay somebody's.
    let (meta, data) = (32_768, sectors - 65_536);
    let key = "5a".repeat(64);
    let length = SIZE / 512;
    let meta = create(bench, "meta", &format!("0 {meta} linear {disk} 32768"))?;
    let below = create(bench, "data", &format!("0 {data} linear {disk} 65536"))?;
    let pool = create(bench, "pool", &format!("0 {data} thin-pool {meta} {below} 128 0"))?;
    dmsetup(bench, &["message", "pool", "0", "create_thin 0"])?;
    let thin = create(bench, "thin", &format!("0 {length} thin {pool} 0"))?;
    create(bench, "peer", &format!("0 {length} crypt aes-xts-plain64 {key} 0 {thin} 0"))
}

/// Maps a device of the peer's; its path, as the kernel names it.
fn create(bench: &mut Bench, name: &str, table: &str) -> Result<String> {
    dmsetup(bench, &["create", name, "--noudevsync", "--table", table])?;
    let told = dmsetup(bench, &["info", "-c", "--noheadings", "-o", "blkdevname", name])?;
    Ok(format!("/dev/{}", told.trim()))
}

/// The peer's tool.
pub(super) fn dmsetup(bench: &mut Bench, arguments: &[&str]) -> Result<String> {
    let mut command = bench.peers.command("dmsetup");
    command.push("--noudevrules".into());
    command.extend(arguments.iter().map(|&word| word.to_owned()));
    bench.run(&command)
}

/// What a VM with this disk measures, the last of so many times.
fn guest(bench: &mut Bench, disk: &str, times: usize) -> Result<Value> {
    let mut told = Value::Null;
    for _ in 0..times {
        let vm = Vm {
            kernel: KERNEL,
            memory: 128,
            orders: format!("role=speed seconds={TIME}"),
            disk: Some(disk.to_owned()),
            tap: None,
        };
        let output = bench.machine.probe()?.run(&Way::Ours.command(&bench.qemu, &vm))?;
        let output = output["output"].as_str().unwrap_or_default();
        told =
            output.lines().rev().find_map(parse).with_context(|| format!("no word: {output}"))?;
        ensure!(told["error"].is_null(), "a guest on {disk} says {told}");
    }
    Ok(told)
}

fn tell(
    figures: &mut Figures,
    what: &str,
    told: &Value,
    (peer, other): (&'static str, &Value),
) -> Result<()> {
    for (field, name, unit) in TOLD {
        let value = |of: &Value| of[field].as_f64().with_context(|| format!("no {field} in {of}"));
        figures.add(&format!("{what}: {name}"), value(told)?, unit).peer =
            Some((peer, value(other)?));
    }
    Ok(())
}
