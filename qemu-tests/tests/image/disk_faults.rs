//! Disks that vanish, fail, are full, or claim what is another's: shown, and nothing acknowledged is lost.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu_tests::api::{Api, fault};
use qemu_tests::machine::{Machine, SOON};
use qemu_tests::{Disk, GIB, Interface, MIB, Node, Scene, disk, scene};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zos_types::NodeId;
use zos_types::status::State;

use crate::vm::{HELLO, guest, running};

/// Where the two slots of a pool's header lie, and how long each is (`storaged/src/disk/header.rs`).
const SLOTS: [u64; 2] = [512 << 10, 516 << 10];
const SLOT: usize = 4096;

fn small(version: u64, size: &str, class: &str) -> String {
    format!(
        "version = {version}\n[workloads.data]\ntype = \"volume\"\nsize = \"{size}\"\nclass = \"{class}\"\n"
    )
}

/// A disk that a node has made its own, with a deployment on it.
fn made(scene: &mut Scene, id: &str) -> Result<(Disk, NodeId)> {
    let (disk, twin) = (scene.disk(id, 2 * GIB)?, scene.twin("twin")?);
    let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
    let found = node.wait_ready()?;
    twin.api(&node)?.put("small", &small(1, "64MiB", "ssd"))?;
    node.power_off()?;
    Ok((disk, found.id))
}

/// The same image as another disk, byte by byte.
fn copy(scene: &Scene, disk: &Disk, id: &str) -> Result<Disk> {
    let path = scene.dir().join(format!("{id}.img"));
    disk::copy_sparse(&disk.path, &path)?;
    Ok(Disk::new(id, path))
}

/// Writes the header of a pool as a later version of ZOS might.
fn from_the_future(disk: &Disk) -> Result<()> {
    let file = File::options().read(true).write(true).open(&disk.path)?;
    let mut written = 0;
    for at in SLOTS {
        let mut slot = vec![0; SLOT];
        file.read_exact_at(&mut slot, at)?;
        if !slot.starts_with(b"ZOSPOOL1") {
            continue;
        }
        let length = u32::from_le_bytes([slot[8], slot[9], slot[10], slot[11]]);
        let text = slot.get(44..44 + usize::try_from(length)?).context("a header's text")?;
        let mut header: Value = serde_json::from_slice(text).context("read a header")?;
        header["version"] = 1000.into();
        header["what-nobody-knows-yet"] = true.into();
        let text = serde_json::to_vec(&header)?;
        slot.truncate(8);
        slot.extend(u32::try_from(text.len())?.to_le_bytes());
        slot.extend(Sha256::digest(&text));
        slot.extend(text);
        slot.resize(SLOT, 0);
        file.write_all_at(&slot, at)?;
        written += 1;
    }
    ensure!(written > 0, "the disk has no header of a pool");
    Ok(())
}

#[test]
fn a_pool_twice_a_newer_pool_and_another_nodes_pool_are_left_alone_and_told() {
    scene("disk-pools", |scene| {
        let (x, id) = made(scene, "x")?;
        let before = x.hash()?;

        // The same pool twice: which of them is the node's can't be known.
        let twice = copy(scene, &x, "twice")?;
        let mut node = scene.start(&Node::with_disks([x.clone(), twice.clone()]))?;
        let words = node.wait_fault("storage.duplicate-pool", SOON)?;
        ensure!(words.contains("is also on"), "the fault names no other disk: {words}");
        let found = node.wait_ready()?;
        ensure!(found.ephemeral, "the node took one of two copies for its own");
        node.power_off()?;
        drop(node);
        ensure!(x.hash()? == before && twice.hash()? == before, "one of two copies was written to");

        // A pool of a newer version and one of another node, beside an empty disk for a node that the farmer wants new.
        let newer = twice;
        from_the_future(&newer)?;
        let newer_before = newer.hash()?;
        let empty = scene.disk("empty", 2 * GIB)?;
        let disks = [x.clone(), newer.clone(), empty];
        let mut node = scene.start(&Node::with_disks(disks).set("zos.identity=new"))?;
        let words = node.wait_fault("storage.pool-unusable", SOON)?;
        ensure!(words.contains("newer version (1000)"), "the version is not told: {words}");
        let words = node.wait_fault("storage.identity-conflict", SOON)?;
        ensure!(words.contains(&id.to_string()), "the other node is not named: {words}");
        let found = node.wait_ready()?;
        ensure!(found.id != id && !found.ephemeral, "the node is not the new one: {found:#?}");
        node.power_off()?;
        drop(node);
        ensure!(x.hash()? == before, "another node's pool was written to");
        ensure!(newer.hash()? == newer_before, "a newer pool was written to");

        // And the node of that disk is what it was.
        let mut node = scene.start(&Node::with_disks([x]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        let api = scene.twin("twin")?.api(&node)?;
        api.wait_workload(("small", "data"), SOON, |w| w.state == State::Ready)?;
        node.power_off()
    });
}

#[test]
fn a_disk_that_takes_no_writes_acknowledges_nothing_and_one_with_a_bad_sector_is_not_adopted() {
    scene("disk-errors", |scene| {
        let (key, id) = made(scene, "key")?;
        let before = key.hash()?;
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&Node::with_disks([key.clone().unwritable()]))?;
        let found = node.wait_ready()?;
        ensure!(!found.faults.is_empty(), "a disk that takes no writes is no fault");
        println!("a disk that takes no writes: {:#?}", found.faults);
        let put = twin.api(&node)?.put("lost", &small(1, "64MiB", "ssd"));
        ensure!(put.is_err() || found.ephemeral, "a write was acknowledged that can't be kept");
        ensure!(key.hash()? == before, "the disk takes no writes, and was written to");
        node.cut_power()?;

        // The disk takes writes again: nothing is lost. A disk with a bad sector comes, and is not adopted.
        let bad = scene.disk("bad", 2 * GIB)?.by(Interface::Virtio).bad_sector(128 * MIB);
        let mut node = scene.start(&Node::with_disks([key, bad.clone()]))?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "the node was {id} and is {}", found.id);
        let api = twin.api(&node)?;
        api.wait_workload(("small", "data"), SOON, |w| w.state == State::Ready)?;
        let words = node.wait_fault("storage.unreadable:vd", SOON)?;
        ensure!(words.contains("never written to"), "{words}");
        node.power_off()?;
        drop(node);
        ensure!(
            bad.hash()? == scene.disk("zeros", 2 * GIB)?.hash()?,
            "the bad disk was written to"
        );
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_the_next_volume_and_still_keeps_state() {
    scene("disk-full", |scene| {
        let (disk, twin) = (scene.disk("key", 2 * GIB)?, scene.twin("twin")?);
        let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        let mut made = 0;
        let refusal = loop {
            match api.put(&format!("fill-{made}"), &small(1, "256MiB", "ssd")) {
                Ok(_) => made += 1,
                Err(error) => break said(&error),
            }
            ensure!(made < 8, "2 GiB hold {made} volumes of 256 MiB");
        };
        println!("after {made} volumes: {refusal}");
        ensure!(made >= 4, "2 GiB hold {made} volumes of 256 MiB: {refusal}");
        ensure!(
            refusal.contains("ssd") || refusal.contains("sru"),
            "not told what is missing: {refusal}"
        );
        for number in 0..made {
            let name = format!("fill-{number}");
            api.wait_workload((&name, "data"), SOON, |w| w.state == State::Ready)?;
        }
        // Every byte that volumes may have is taken. State has room of its own: deployments still come and go.
        let gone = format!("fill-{}", made - 1);
        api.delete(&gone)?;
        let end = Instant::now() + SOON;
        while let Err(error) = api.put("again", &small(1, "256MiB", "ssd")) {
            ensure!(Instant::now() < end, "the room of what was deleted is not free: {error:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
        api.wait_workload(("again", "data"), SOON, |w| w.state == State::Ready)?;
        for version in 2..30 {
            // The same again with another version: nothing but state is written.
            api.put("again", &small(version, "256MiB", "ssd"))?;
        }
        node.cut_power()?;
        let mut node = scene.start(&Node::with_disks([disk]))?;
        node.wait_ready()?;
        let api = twin.api(&node)?;
        let again = api.wait_workload(("again", "data"), SOON, |w| w.state == State::Ready);
        again.context("after the cut")?;
        ensure!(api.get("again")?.deployment.version == 29, "a version was lost");
        ensure!(api.list()?.len() == made, "{made} deployments were acknowledged");
        node.power_off()
    });
}

#[test]
fn a_disk_that_vanishes_while_a_vm_writes_costs_nothing_but_itself() {
    scene("disk-gone", |scene| {
        let (key, twin) = (scene.disk("key", 4 * GIB)?, scene.twin("twin")?);
        let data = scene.disk("data", 4 * GIB)?.by(Interface::Virtio).unplugged();
        let mut node = scene.start(&Node::with_disks([key.clone(), data.clone()]).with_probe())?;
        node.wait_ready()?;
        node.plug("data")?;
        let api = twin.api(&node)?;
        put_when_there(&api, "hello", &HELLO.replace("\"ssd\"", "\"hdd\""))?;
        api.put("small", &small(1, "64MiB", "ssd"))?;
        let address = running(&api, "hello")?;
        let vm = guest(&mut node, address)?;
        let written = write_some(&mut node, vm)?;

        node.unplug("data")?;
        let words = node.wait_fault("storage.disk-gone", SOON)?;
        ensure!(words.contains("connect it again"), "the fault doesn't say what to do: {words}");
        // The rest of the node goes on.
        api.wait_workload(("small", "data"), SOON, |w| w.state == State::Ready)?;
        api.put("more", &small(1, "64MiB", "ssd"))?;
        api.wait_workload(("more", "data"), SOON, |w| w.state == State::Ready)?;
        ensure!(
            api.put("hdd", &small(1, "64MiB", "hdd")).is_err(),
            "a volume was admitted on a disk that is gone"
        );
        node.power_off()?;
        drop(node);

        // The disk is back at the next boot, and with it all that the guest had synced.
        let data = Disk { unplugged: false, ..data };
        let mut node = scene.start(&Node::with_disks([key, data]).with_probe())?;
        let found = node.wait_ready()?;
        ensure!(fault(&found, "storage.disk-gone").is_none(), "{:#?}", found.faults);
        let api = twin.api(&node)?;
        let address = running(&api, "hello")?;
        let vm = guest(&mut node, address)?;
        let report: Value = serde_json::from_str(&node.probe()?.get(vm, "/")?)?;
        let found = report["writes"]["found"].as_u64();
        ensure!(found >= Some(written), "the guest synced {written}; its disk holds {found:?}");
        node.power_off()
    });
}

/// Has the guest write, and gives what it had synced while it still wrote.
fn write_some(node: &mut Machine, vm: SocketAddr) -> Result<u64> {
    node.probe()?.get(vm, "/write?seconds=600")?;
    let end = Instant::now() + SOON;
    loop {
        let report: Value = serde_json::from_str(&node.probe()?.get(vm, "/")?)?;
        match report["writes"]["acknowledged"].as_u64() {
            Some(number) if number > 5 => return Ok(number),
            _ => ensure!(Instant::now() < end, "the guest does not write: {report}"),
        }
    }
}

/// All that a refusal says.
fn said(error: &anyhow::Error) -> String {
    let answer = error.downcast_ref::<zos_api::client::ClientError>();
    answer
        .and_then(|error| error.problem())
        .map_or_else(|| format!("{error:#}"), |p| format!("{p:?}"))
}

/// Puts a deployment once its class of disk is there.
fn put_when_there(api: &Api, name: &str, text: &str) -> Result<()> {
    let end = Instant::now() + SOON;
    while let Err(error) = api.put(name, text) {
        ensure!(Instant::now() < end, "{name} is refused: {error:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
