//! A node's disks: how soon they are taken, how many volumes a second, what a VM gets of them, what it all takes.
//!
//! ```text
//!  nvme `main`, `second`   empty: adopted, pools          adoption, volumes, memory of storaged
//!  nvme `raw`              somebody's: measured as it is  ─┐ the same program, in the node
//!  nvme `thin`             somebody's: dm-thin, dm-crypt  ─┘ and as the init of a VM
//! ```
//!
//! The peer of our volumes, which are files on btrfs, is dm-thin under the same dm-crypt (ADR 5).

mod stacks;
mod volumes;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use qemu_tests::disk::create;
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::peers::Peers;
use qemu_tests::{Boot, Disk, GIB, Node, Scene, image};
use serde_json::{Value, json};

use crate::figures::{Figures, float};
use crate::vms::Qemu;

/// Whose the volumes are.
const TWIN: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";
/// The disks, by serial number, with their sizes.
const EMPTY: [(&str, u64); 2] = [("main", 24 * GIB), ("second", 4 * GIB)];
const FOREIGN: [(&str, u64); 2] = [("raw", GIB), ("thin", GIB)];
/// Many calls take their time under emulation.
const LONG: Duration = Duration::from_secs(900);

/// The node in which everything runs.
struct Bench {
    machine: Machine,
    peers: Peers,
    /// What [`crate::vms`] packs; only its guest is used here.
    qemu: Qemu,
}

/// What CreateVolume is told.
fn volume(name: &str, size: u64, integrity: &str) -> Value {
    json!({"twin": TWIN, "name": name, "size": size, "class": "ssd", "integrity": integrity, "key": "node",
        "from": null, "holds": "disk"})
}

impl Bench {
    fn start(scene: &mut Scene) -> Result<Self> {
        let dir = scene.dir().to_owned();
        let peers = Peers::pinned(&["dmsetup"])?;
        let initramfs = dir.join("disks.img");
        let (qemu, _) = crate::vms::pack(&initramfs, &peers)?;
        let mut disks = Vec::new();
        for (id, size) in EMPTY.into_iter().chain(FOREIGN) {
            let path = dir.join(format!("{id}.img"));
            create(&path, size)?;
            let disk = Disk::new(id, path);
            if FOREIGN.iter().any(|(foreign, _)| *foreign == id) {
                // The magic number of ext4: the node leaves it alone.
                disk.write_at(1024 + 56, &[0x53, 0xef])?;
            }
            disks.push(disk);
        }
        let node = Node {
            boot: Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(initramfs) },
            memory: 3072,
            // A thousand volumes at once may starve PID 1 under emulation.
            watchdog: false,
            ..Node::with_disks(disks).with_probe()
        };
        let mut machine = scene.start(&node)?;
        machine.wait_ready()?;
        Ok(Self { machine, peers, qemu })
    }

    fn storage(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.machine.probe()?.varlink("storage", &format!("org.zos.Storage.{method}"), parameters)
    }

    /// So many calls, `#` in the parameters being the number: calls a second.
    fn rate(&mut self, method: &str, count: usize, parameters: Value) -> Result<f64> {
        let method = format!("org.zos.Storage.{method}");
        let seconds = self.machine.probe()?.many("storage", &method, count, parameters, LONG)?;
        Ok(float(count as u64) / seconds)
    }

    /// Runs a program of the node that must end well; what it says.
    fn run(&mut self, words: &[String]) -> Result<String> {
        let answer = self.machine.probe()?.run(words).with_context(|| words.join(" "))?;
        let output = answer["output"].as_str().unwrap_or_default().to_owned();
        ensure!(answer["code"] == 0, "{}: {output}", words.join(" "));
        Ok(output)
    }
}

pub(crate) fn measure(scene: &mut Scene, figures: &mut Figures) -> Result<()> {
    let mut bench = Bench::start(scene)?;
    adoption(&mut bench, figures).context("measure adoption")?;
    stacks::measure(&mut bench, figures).context("measure what VMs get")?;
    volumes::measure(&mut bench, figures).context("measure volumes")?;
    bench.machine.press_power_button()?;
    bench.machine.wait_off(SOON).map(drop)
}

/// From "making pool" to "ready" of each disk, by storaged's own log.
fn adoption(bench: &mut Bench, figures: &mut Figures) -> Result<()> {
    let entries = bench.machine.probe()?.varlink(
        "init",
        "org.zos.Init.ReadLog",
        json!({"unit": "storaged", "after": 0}),
    )?;
    let entries = entries["entries"].as_array().context("storaged has a log")?;
    let time = |what: &str| {
        let line = entries
            .iter()
            .find(|entry| entry["text"].as_str().is_some_and(|text| text.contains(what)));
        let time = line.and_then(|entry| entry["time_ms"].as_u64());
        time.map(float).with_context(|| format!("storaged didn't log \"{what}\""))
    };
    let took = time("is ready")? - time("making pool")?;
    figures.add("disk: adoption of 24 GiB", took, "ms");
    Ok(())
}
