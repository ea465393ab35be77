//! What a VM costs from its program's start to its end, and while it does nothing.
//!
//! The guest's init asks for a reboot at once, which ends each VMM; so a run's time is all of it.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use qemu_tests::machine::SOON;
use qemu_tests::nested::{ZOS_VMM, words};
use serde_json::Value;

use super::pack::{KERNEL, UNPACKED};
use super::{Bench, Vm, Way};
use crate::figures::{Figures, float, median, mib};

/// How many start at once.
const CROWD: usize = 4;
/// Of which VM the memory is looked at.
const SMALL: u32 = 128;

pub(crate) fn measure(bench: &mut Bench, runs: usize, figures: &mut Figures) -> Result<()> {
    let vm = Vm { kernel: KERNEL, memory: 192, orders: String::new(), disk: None, tap: None };
    let plain = Vm { kernel: UNPACKED, ..vm.clone() };
    let mut unpacked = Vec::new();
    let (mut times, mut report) = (Way::ALL.map(|_| Vec::new()), Value::Null);
    for _ in 0..runs {
        for (way, times) in Way::ALL.into_iter().zip(&mut times) {
            let (millis, output) = run(bench, way, &vm)?;
            times.push(millis);
            if way == Way::Ours {
                report = told(&output)?;
            }
        }
        unpacked.push(run(bench, Way::Ours, &plain)?.0);
    }
    let [own, microvm, q35] = times.map(median);
    figures.beside("VM: start to guest's end", "ms", [own, microvm, q35]);
    figures.add("VM: the same, of microvm's", own / microvm, "x").goal = Some(0.5);
    figures.add("VM: the same, kernel not compressed", median(unpacked), "ms").peer =
        Some(("compressed", own));
    for (field, name, goal) in [
        ("first_run_us", "VM: start to first instruction", None),
        ("guest_init_us", "VM: start to guest's init", Some(125.0)),
    ] {
        let micros = report[field].as_u64().with_context(|| format!("zos-vmm tells no {field}"))?;
        figures.add(name, float(micros) / 1000.0, "ms").goal = goal;
    }
    let exits = report["exits_total"].as_u64().context("zos-vmm counts its exits")?;
    figures.add("VM: exits of a guest's boot", float(exits), "exits");
    for (kind, count) in report["exits"].as_object().context("zos-vmm counts by kind")? {
        let count = count.as_u64().context("a count")?;
        figures.add(&format!("VM: of them {kind}"), float(count), "exits");
    }
    let (mut ours, mut qmp) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(ready(bench, Way::Ours)?);
        qmp.push(ready(bench, Way::Microvm)?);
    }
    figures.add("VM: API socket ready", median(ours), "ms").peer = Some(("QMP", median(qmp)));
    let mut rates = Vec::new();
    for way in Way::ALL {
        rates.push(crowd(bench, way, &vm)?);
    }
    figures.beside("VM: started in a second, 4 at once", "/s", [rates[0], rates[1], rates[2]]);
    let mut kept = Vec::new();
    for way in Way::ALL {
        kept.push(memory(bench, way)?);
    }
    figures
        .beside("VM: memory beside the guest's (128 MiB)", "MiB", [kept[0], kept[1], kept[2]])
        .goal = Some(5.0);
    let sizes = [mib(bench.own), mib(bench.qemu.bytes)];
    figures.add("VM: program with all it loads", sizes[0], "MiB").peer = Some(("QEMU", sizes[1]));
    Ok(())
}

/// Milliseconds of a VM's life, and what it said.
fn run(bench: &mut Bench, way: Way, vm: &Vm) -> Result<(f64, String)> {
    let command = way.command(&bench.qemu, vm);
    let answer = bench.machine.probe()?.run(&command)?;
    let output = answer["output"].as_str().unwrap_or_default().to_owned();
    ensure!(
        answer["code"] == way.reboot_code(),
        "{} ended with {}: {output}",
        way.name(),
        answer["code"]
    );
    Ok((float(answer["millis"].as_u64().context("a run has a time")?), output))
}

/// Milliseconds from a VMM's start, without a VM to run, until its API's socket has answered.
fn ready(bench: &mut Bench, way: Way) -> Result<f64> {
    const SOCKET: &str = "/run/bench.sock";
    let (command, question) = if way == Way::Ours {
        let ping = "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\n\r\n";
        (words(&format!("{ZOS_VMM} --api-socket {SOCKET}")), ping)
    } else {
        let options =
            "-nodefaults -no-user-config -display none -accel kvm -L /bench -S -machine microvm";
        let options = words(&format!("{options} -qmp unix:{SOCKET},server=on,wait=off"));
        ([&bench.qemu.words[..], &options].concat(), "{\"execute\":\"qmp_capabilities\"}\n")
    };
    let micros = bench.machine.probe()?.answers(SOCKET, question, &command)?;
    Ok(float(micros) / 1000.0)
}

/// The counters that zos-vmm tells at its end.
fn told(output: &str) -> Result<Value> {
    let json = output.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    json.with_context(|| format!("zos-vmm reports nothing: {output}"))
}

/// VMs a second when several start at once.
fn crowd(bench: &mut Bench, way: Way, vm: &Vm) -> Result<f64> {
    let names: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
    let start = Instant::now();
    for name in &names {
        bench.launch(name, way, vm)?;
    }
    for name in &names {
        let code = bench.machine.probe()?.ended(name, SOON)?;
        ensure!(code == Some(way.reboot_code()), "{} ended with {code:?}", way.name());
    }
    Ok(float(CROWD as u64) / start.elapsed().as_secs_f64())
}

/// MiB that a VM's process holds beside the guest's memory, which is a shared file. With a disk and a network.
fn memory(bench: &mut Bench, way: Way) -> Result<f64> {
    let disk = Some(bench.disks[0].clone());
    let vm = Vm { kernel: KERNEL, memory: SMALL, orders: "role=idle".into(), disk, tap: Some(0) };
    let pid = bench.launch("idle", way, &vm)?;
    bench.told("idle", "\"idle\"")?;
    let kib = bench.machine.probe()?.beside(pid)?;
    bench.end("idle", pid)?;
    ensure!(kib > 0, "{} holds no memory", way.name());
    Ok(mib(kib << 10))
}
