//! A guest that is up to no good, in a real node: its VMM stands it, and its neighbour doesn't feel it.

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Node, programs, scene};

use crate::vm::{HELLO, Traffic, guest, running, vmms};

const KERNEL: &str = "tests/hostile-guest";
const DISK: &str = "tests/hostile.img";
const DISK_BYTES: usize = 1 << 20;
const SEEDS: u32 = 3;

#[test]
fn a_hostile_guest_is_stood_and_not_felt() {
    scene("hostile", |scene| {
        let disk = scene.disk("key", 8 * GIB)?;
        let alice = scene.twin("alice")?;
        let kernel = std::fs::read(programs::hostile_guest()?).context("read the guest")?;
        let node = Node::with_disks([disk])
            .with_probe()
            .with_file("tests", Mode::Dir, [])
            .with_file(KERNEL, Mode::File, kernel)
            .with_file(DISK, Mode::File, vec![0x5a; DISK_BYTES]);
        let mut node = scene.start(&node)?;
        node.wait_ready()?;
        let api = alice.api(&node)?;
        api.put("hello", HELLO)?;
        let address = running(&api, "hello")?;
        let neighbour = guest(&mut node, address)?;
        let traffic = Traffic::begin(node.probe()?, neighbour)?;
        let before = vmms(&mut node)?;
        for seed in 1..=SEEDS {
            attack(node.probe()?, seed)?;
        }
        // Nothing of it is left, and the neighbour is the same process and missed nothing.
        ensure!(vmms(&mut node)? == before, "other VMMs run than before");
        traffic.end(node.probe()?)?;

        node.power_off()
    });
}

/// One life of the guest: it does its worst, then switches off in order.
fn attack(probe: &mut Probe, seed: u32) -> Result<()> {
    let words = [
        "/bin/zos-vmm",
        "--json",
        "--memory=128MiB",
        &format!("--kernel=/{KERNEL}"),
        &format!("--cmdline=seed={seed} steps=200"),
        &format!("--disk=path=/{DISK},num_queues=2"),
        &format!("--net=tap=hostile{seed},mac=52:54:00:00:00:01"),
        "--balloon=size=0,free_page_reporting=on",
        "--console=null",
        "--vsock=cid=3,socket=/run/hostile",
    ]
    .map(str::to_owned);
    let ended = probe.run(&words)?;
    let output = ended["output"].as_str().unwrap_or_default();
    println!("seed {seed}: {ended}");
    ensure!(ended["code"] == 0, "the VMM ended with {}: {output}", ended["code"]);
    ensure!(output.contains("hostile: done, 6 devices"), "it did not get to its end: {output}");
    ensure!(output.contains("\"ending\":\"poweroff\""), "the VMM reports no end: {output}");
    Ok(())
}
