//! The farmer's word: a disk with somebody's data becomes the node's, and is given back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::machine::SOON;
use qemu_tests::twin::run;
use qemu_tests::{GIB, MIB, Machine, Node, scene};
use serde_json::Value;

fn json(node: &Machine, arguments: &[&str]) -> Result<Value> {
    let said = node.farmer()?.run_zos(node, &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&said).with_context(|| format!("read {said}"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("{value} has no {field}"))
}

#[test]
fn a_foreign_disk_is_adopted_by_the_hash_of_its_plan_and_released() {
    scene("disk-adopt", |scene| {
        let key = scene.disk("key", 4 * GIB)?;
        let photos = scene.disk("photos", 2 * GIB)?;
        photos.write_at(0x438, &[0x53, 0xef])?;
        photos.write_at(0x400 + 0x78, b"holiday")?;
        let started = Node::with_disks([key, photos.clone()]).with_farmer();
        let mut node = scene.start(&started)?;
        node.wait_ready()?;
        node.wait_fault("storage.foreign-disk", SOON)?;
        let disks = json(&node, &["disk", "list"])?;
        let disks = disks["disks"].as_array().context("disks")?;
        let foreign =
            disks.iter().find(|disk| disk["role"] == "foreign").context("none is foreign")?;
        // By its stable id: the kernel gives names in the order in which it finds disks, another one at each boot.
        let id = text(foreign, "id")?.to_owned();

        // A plan that is read, and a disk that changes before it is confirmed.
        let plan = json(&node, &["disk", "adopt", &id, "--dry-run"])?;
        ensure!(plan["loses"][0].as_str().is_some_and(|lost| lost.contains("holiday")), "{plan}");
        photos.write_at(3 * MIB, b"one more")?;
        let before = photos.hash()?;
        let word = ["disk", "adopt", &id, "--plan", text(&plan, "hash")?];
        let stale = run(node.farmer()?.zos(&node, &word)?)?;
        let said = String::from_utf8_lossy(&stale.stderr).into_owned();
        ensure!(stale.status.code() == Some(3) && said.contains("has changed since"), "{said}");
        ensure!(photos.hash()? == before, "a stale word wrote to the disk");

        let plan = json(&node, &["disk", "adopt", &id, "--dry-run"])?;
        let adopted = json(&node, &["disk", "adopt", &id, "--plan", text(&plan, "hash")?])?;
        ensure!(adopted["role"] == "ours", "{adopted}");
        let pools = json(&node, &["pool", "list"])?;
        ensure!(pools["pools"].as_array().is_some_and(|pools| pools.len() == 2), "{pools}");

        // Given back: wiped, and left alone from then on, also by the next boot.
        let plan = json(&node, &["disk", "release", &id, "--dry-run"])?;
        let hash = text(&plan, "hash")?;
        let released = json(&node, &["disk", "release", &id, "--plan", hash, "--wait"])?;
        ensure!(released["role"] == "empty", "{released}");
        node.power_off()?;
        drop(node);
        let before = photos.hash()?;
        let mut node = scene.start(&started)?;
        node.wait_ready()?;
        // The node is ready before it has looked at each disk.
        let end = Instant::now() + SOON;
        loop {
            let disk = json(&node, &["disk", "show", &id])?;
            if text(&disk, "reason")?.contains("not taken again unasked") {
                break;
            }
            ensure!(Instant::now() < end, "{disk}");
            std::thread::sleep(Duration::from_millis(200));
        }
        node.power_off()?;
        ensure!(photos.hash()? == before, "the released disk was written to");
        Ok(())
    });
}
