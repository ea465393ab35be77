//! Disks are asked how they are, pools are looked through, motors rest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::machine::SOON;
use qemu_tests::probe::Probe;
use qemu_tests::{GIB, Interface, Node, scene};
use serde_json::{Value, json};

use crate::vm::{HELLO, running};

/// A motor rests a minute after it was needed last, and that is seen within two more.
const REST: Duration = Duration::from_secs(300);

/// Asks until an answer holds what is wanted.
fn until(
    probe: &mut Probe,
    (method, list): (&str, &str),
    patience: Duration,
    holds: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let started = Instant::now();
    loop {
        let answer = probe.varlink("storage", &format!("org.zos.Storage.{method}"), json!({}))?;
        let found = answer[list].as_array().cloned().context("the answer has no list")?;
        if holds(&found) {
            return Ok(found);
        }
        if started.elapsed() > patience {
            bail!("{method}: it never came to be: {found:#?}");
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

fn of<'a>(list: &'a [Value], key: &str, value: &str) -> &'a Value {
    list.iter().find(|item| item[key] == value).unwrap_or(&Value::Null)
}

/// In the fence of its service storaged reaches each disk in its way, and what QEMU's disks say arrives: an NVMe log, ATA's
/// attributes, nothing from virtio. A pool is scrubbed on request; a disk with a motor rests, and nothing of ours wakes it.
#[test]
fn disks_tell_how_they_are_pools_are_scrubbed_and_motors_rest() {
    scene("care", |scene| {
        let nvme = scene.disk("key", 4 * GIB)?;
        let sata = scene.disk("spinner", 4 * GIB)?.by(Interface::Sata(0));
        let virtio = scene.disk("silent", GIB)?.by(Interface::Virtio);
        virtio.write_at(3, b"NTFS    ")?;
        let node = Node::with_disks([nvme, sata, virtio]).set("zos.disk.standby=1");
        let mut node = scene.start(&node.with_probe())?;
        let found = node.wait_ready()?;
        ensure!(!found.ephemeral, "no key on the disk: {:?}", found.faults);
        let probe = node.probe()?;

        let disks = until(probe, ("ListDisks", "disks"), SOON, |disks| {
            let asked = |name| of(disks, "name", name)["health"].is_object();
            asked("nvme0n1") && asked("sda") && asked("vda")
        })?;
        let health = |name| of(&disks, "name", name)["health"].clone();
        ensure!(health("nvme0n1")["verdict"] == "good", "{:#}", health("nvme0n1"));
        ensure!(health("nvme0n1")["temperature"] == 50, "{:#}", health("nvme0n1"));
        ensure!(health("sda")["verdict"] == "good", "{:#}", health("sda"));
        ensure!(health("sda")["hours"] == 1, "{:#}", health("sda"));
        ensure!(health("vda")["verdict"] == "unknown", "{:#}", health("vda"));
        let kinds = [("nvme0n1", "nvme", "ssd"), ("sda", "sata", "hdd"), ("vda", "virtio", "hdd")];
        for (name, transport, class) in kinds {
            let disk = of(&disks, "name", name);
            ensure!(disk["transport"] == transport && disk["class"] == class, "{disk:#}");
        }
        ensure!(of(&disks, "name", "vda")["signatures"] == json!(["NTFS"]), "{disks:#?}");

        let pools = until(probe, ("ListPools", "pools"), SOON, |pools| pools.len() == 2)?;
        for pool in &pools {
            probe.varlink("storage", "org.zos.Storage.ScrubPool", json!({"pool": pool["id"]}))?;
        }
        let done = |pools: &[Value]| pools.iter().all(|pool| pool["scrub"]["ended"].is_string());
        let pools = until(probe, ("ListPools", "pools"), SOON, done)?;
        for pool in &pools {
            ensure!(pool["scrub"]["unrepaired"] == 0 && pool["condition"] == "ready", "{pool:#}");
            ensure!(pool["scrub"]["read"].as_u64() > Some(0), "nothing was read: {pool:#}");
        }
        let refused = probe.varlink("storage", "org.zos.Storage.ScrubPool", json!({"pool": "x"}));
        ensure!(refused.is_err(), "a pool that isn't there is scrubbed");

        until(probe, ("ListDisks", "disks"), REST, |disks| {
            of(disks, "name", "sda")["health"]["standby"] == true
        })?;
        // Two minutes of our own polls, and of metrics that somebody reads: not one request.
        let before = probe.read("/sys/block/sda/stat")?;
        let polls = Instant::now();
        while polls.elapsed() < Duration::from_secs(120) {
            for (method, list) in [("ListDisks", "disks"), ("ListPools", "pools")] {
                until(probe, (method, list), SOON, |_| true)?;
            }
            probe.varlink("storage", "org.zos.Service.ReadMetrics", json!({}))?;
            std::thread::sleep(Duration::from_secs(10));
        }
        let after = probe.read("/sys/block/sda/stat")?;
        ensure!(before == after, "the resting disk was used: {before} then {after}");
        let faults = node.wait_ready()?.faults;
        ensure!(faults.iter().all(|fault| !fault.id.starts_with("care.")), "{faults:#?}");
        node.power_off()
    });
}

/// A disk begins to fail while a VM writes to a volume on it: the volume moves to the other disk, and the disk can go.
#[test]
fn a_failing_disk_is_emptied_onto_another_while_its_vm_runs() {
    scene("care-failing", |scene| {
        let disks = [scene.disk("one", 4 * GIB)?, scene.disk("two", 4 * GIB)?];
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&Node::with_disks(disks.clone()).with_probe())?;
        node.wait_ready()?;
        let probe = node.probe()?;
        // Both pools are there, or the volume would have no choice.
        until(probe, ("ListPools", "pools"), SOON, |pools| pools.len() == 2)?;
        twin.api(&node)?.put("hello", HELLO)?;
        running(&twin.api(&node)?, "hello")?;
        node.power_off()?;
        drop(node);

        let mut node = scene.start(&Node::with_disks(disks).with_probe())?;
        node.wait_ready()?;
        let pool = |probe: &mut Probe| -> Result<Value> {
            let volumes = until(probe, ("ListVolumes", "volumes"), SOON, |all| all.len() == 1)?;
            Ok(volumes[0]["pool"].clone())
        };
        let before = pool(node.probe()?)?;
        let listed = until(node.probe()?, ("ListDisks", "disks"), SOON, |disks| disks.len() == 2)?;
        let disk =
            listed.iter().find(|disk| disk["pool"] == before).context("the volume's disk")?;
        let serial = disk["serial"].as_str().context("a disk has a serial number")?.to_owned();
        // NVMe 2.0, figure 207 (critical warning), bit 2: the reliability is degraded. storaged asks 20 s after its start.
        let path = format!("/machine/peripheral/disk-{serial}");
        let warning = json!({"path": path, "property": "smart_critical_warning", "value": 4});
        node.qmp().execute("qom-set", warning)?;
        let words = node.wait_fault("care.disk-failing", SOON)?;
        println!("a failing disk: {words}");
        running(&twin.api(&node)?, "hello")?;
        let end = Instant::now() + 2 * SOON;
        while pool(node.probe()?)? == before {
            ensure!(Instant::now() < end, "the volume stays on the failing disk");
            std::thread::sleep(Duration::from_secs(2));
        }
        running(&twin.api(&node)?, "hello")?;
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 2", SOON)?;
        // Now the disk can go, and the next start of the VM is with what it wrote.
        node.unplug(&serial)?;
        node.wait_fault("storage.disk-gone", SOON)?;
        running(&twin.api(&node)?, "hello")?;
        node.power_off()
    });
}
