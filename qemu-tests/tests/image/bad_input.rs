//! What is missing or broken is shown, on the console and by the API, and the node goes on as far as it can.

use anyhow::{Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::api::fault;
use qemu_tests::machine::{BOOT, Machine, SOON};
use qemu_tests::{Boot, GIB, Nic, Node, image, scene};
use zos_types::status::State;

use crate::vm::running;

/// A VM without a volume, for nodes without a disk.
const DISKLESS: &str = r#"
version = 1
[workloads.hello]
type = "vm"
cpu = 1
memory = "128MiB"
image = "builtin:hello"
networks = [{ network = "nat" }]
"#;

/// A fault must be in the API and on the console.
fn shown(node: &mut Machine, id: &str, word: &str) -> Result<()> {
    let words = node.wait_fault(id, SOON)?;
    ensure!(words.contains(word), "the fault {id} doesn't say `{word}`: {words}");
    node.wait_for_serial(word, SOON)?;
    Ok(())
}

#[test]
fn one_gib_no_disk_and_an_unknown_setting_is_a_node_that_runs_a_vm() {
    scene("bad-small", |scene| {
        let twin = scene.twin("twin")?;
        let mut node =
            scene.start(&Node { memory: 1024, ..Node::default() }.set("zos.frm=typo"))?;
        node.wait_ready()?;
        shown(&mut node, "settings", "zos.frm")?;
        shown(&mut node, "identity.ephemeral", "identity")?;
        let api = twin.api(&node)?;
        api.put("hello", DISKLESS)?;
        running(&api, "hello")?;
        node.power_off()
    });
}

#[test]
fn a_corrupt_file_of_the_image_is_shown_and_no_kvm_degrades_the_vm() {
    scene("bad-image", |scene| {
        let spoiled = scene.dir().join("initramfs.img");
        let wrong = [("bin/mkfs.btrfs", Mode::Program, b"#!/bin/sh\n".to_vec())];
        image::extend_initramfs(&image::initramfs()?, &wrong, &spoiled)?;
        let boot = Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(spoiled) };
        let twin = scene.twin("twin")?;
        let mut node = scene.start(&Node { boot, virtualization: false, ..Node::default() })?;
        node.wait_ready()?;
        shown(&mut node, "image-corrupt", "/bin/mkfs.btrfs")?;
        shown(&mut node, "vm.no-kvm", "virtualization")?;
        let api = twin.api(&node)?;
        api.put("hello", DISKLESS)?;
        let status = api.wait_workload(("hello", "hello"), SOON, |workload| {
            matches!(workload.state, State::Degraded { .. })
        })?;
        let words = format!("{:?}", status.state);
        ensure!(words.contains("virtualization"), "the VM's fault doesn't name it: {words}");
        Ok(())
    });
}

#[test]
fn a_disk_that_fails_reads_is_shown_and_nothing_new_is_made_of_the_node() {
    scene("bad-disk", |scene| {
        let broken = scene.disk("broken", 4 * GIB)?;
        let node = Node::with_disks([broken.unreadable(), scene.disk("empty", 4 * GIB)?]);
        let mut node = scene.start(&node)?;
        let found = node.wait_ready()?;
        // The key might be on the disk that can't be read: no other is made and kept.
        ensure!(found.ephemeral, "a key was made although a disk can't be read");
        // Which of the two is nvme0 is chance: their controllers start at once.
        shown(&mut node, "storage.unreadable:nvme", "reading it failed")?;
        node.power_off()
    });
}

#[test]
fn no_answer_by_dhcp_is_shown_until_the_cable_of_another_card_comes() {
    scene("bad-dhcp", |scene| {
        let mut node =
            scene.start(&Node { nics: vec![Nic::Silent, Nic::Waiting], ..Node::default() })?;
        node.wait_for_serial("net.no-dhcp", BOOT)?;
        node.set_cable(1, true)?;
        // Two cards, one cable that leads anywhere: the node is there, and still tells of the other.
        let found = node.wait_ready()?;
        ensure!(
            fault(&found, "net.no-dhcp").is_some(),
            "the silent card is no fault: {:#?}",
            found.faults
        );
        node.power_off()
    });
}

#[test]
fn no_network_card_is_shown_until_one_is_plugged() {
    scene("bad-nic", |scene| {
        let mut node = scene.start(&Node { nics: vec![], ..Node::default() })?;
        node.wait_for_serial("net.no-nic", BOOT)?;
        node.plug_nic()?;
        node.wait_node("answer by the new card, without the fault", BOOT, |found| {
            fault(found, "net.no-nic").is_none()
        })?;
        Ok(())
    });
}

#[test]
fn of_two_cards_the_one_with_a_cable_is_taken() {
    scene("bad-cable", |scene| {
        let mut node =
            scene.start(&Node { nics: vec![Nic::Unplugged, Nic::Lan], ..Node::default() })?;
        let found = node.wait_ready()?;
        let links = &found.network.links;
        ensure!(
            links.iter().any(|link| !link.carrier),
            "no link is shown without a cable: {links:?}"
        );
        ensure!(
            links.iter().any(|link| link.carrier && !link.addresses.is_empty()),
            "no link has an address: {links:?}"
        );
        Ok(())
    });
}
