//! The same guest by three VMMs in the same node, turn by turn: zos-vmm, QEMU's microvm and QEMU's q35.
//!
//! ```text
//!  boot       start to the guest's end, exits by kind, several at once, memory beside the guest's
//!  speed      disk and network, measured by the same program in the guest
//!  isolation  a quiet VM's delays, alone and beside a neighbour of another twin
//! ```
//!
//! Kernel, initramfs, command line, disks and taps are the same for each. QEMU's guest memory is a memfd, too, so that
//! its own memory can be told from the guest's.

mod boot;
mod isolation;
mod pack;
mod speed;
mod ways;

use anyhow::{Context as _, Result};
use qemu_tests::disk::{Interface, create};
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::nested::{Lab, words};
use qemu_tests::peers::Peers;
use qemu_tests::{Boot, Disk, MIB, Node, Scene, image};
use serde_json::Value;

use crate::figures::Figures;
pub(crate) use pack::{KERNEL, Qemu, pack};
pub(crate) use ways::{Vm, Way};

/// Disks of the node that guests use, by their serial numbers.
pub(crate) const DISKS: [&str; 2] = ["one", "two"];
const DISK_BYTES: u64 = 128 * MIB;

/// The node in which everything runs.
pub(crate) struct Bench {
    machine: Machine,
    lab: Lab,
    qemu: Qemu,
    disks: Vec<String>,
    /// Bytes of our program.
    own: u64,
}

impl Bench {
    fn start(scene: &mut Scene) -> Result<Self> {
        let dir = scene.dir().to_owned();
        let peers = Peers::pinned(&["ip"])?;
        let initramfs = dir.join("vms.img");
        let (qemu, own) = pack(&initramfs, &peers)?;
        let mut disks = Vec::new();
        for id in DISKS {
            let path = dir.join(format!("{id}.img"));
            create(&path, DISK_BYTES)?;
            let disk = Disk::new(id, path).by(Interface::Virtio);
            // Somebody's, so that the node leaves it alone: the magic number of ext4.
            disk.write_at(1024 + 56, &[0x53, 0xef])?;
            disks.push(disk);
        }
        let node = Node {
            boot: Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(initramfs) },
            memory: 3072,
            // Neighbours that flood starve PID 1 under emulation; here the watchdog would end the bench.
            watchdog: false,
            ..Node::with_disks(disks).with_probe()
        };
        let mut machine = scene.start(&node)?;
        machine.wait_ready()?;
        let probe = machine.probe()?;
        let lab = Lab::make(probe, &peers, 2)?;
        probe.start("server", &lab.inside(words("/bin/zos-probe serve")))?;
        let disks = DISKS.iter().map(|id| probe.disk(id)).collect::<Result<_>>()?;
        Ok(Self { machine, lab, qemu, disks, own })
    }

    /// Starts a VM under a name.
    fn launch(&mut self, name: &str, way: Way, vm: &Vm) -> Result<u64> {
        let command = self.lab.inside(way.command(&self.qemu, vm));
        self.machine.probe()?.start(name, &command)
    }

    /// What its init tells next.
    fn told(&mut self, name: &str, mark: &str) -> Result<Value> {
        let line = self.machine.probe()?.until(name, &format!("BENCH {mark}"), 2 * SOON)?;
        parse(&line).with_context(|| format!("{name} tells {line}"))
    }

    /// Ends it, if it still runs.
    fn end(&mut self, name: &str, pid: u64) -> Result<()> {
        let probe = self.machine.probe()?;
        probe.signal(&pid.to_string(), "KILL")?;
        probe.ended(name, SOON).map(drop)
    }
}

/// The value behind the mark in a line of a guest's console.
pub(crate) fn parse(line: &str) -> Option<Value> {
    let (_, text) = line.split_once("BENCH ")?;
    serde_json::from_str(text.trim()).ok()
}

pub(crate) fn measure(scene: &mut Scene, runs: usize, figures: &mut Figures) -> Result<()> {
    let mut bench = Bench::start(scene)?;
    boot::measure(&mut bench, runs, figures).context("measure boots")?;
    isolation::measure(&mut bench, figures).context("measure isolation")?;
    // Last, since a peer may take the emulated node along.
    speed::measure(&mut bench, figures).context("measure disks and networks")?;
    bench.machine.wait_ready()?;
    bench.machine.press_power_button()?;
    bench.machine.wait_off(SOON).map(drop)
}
