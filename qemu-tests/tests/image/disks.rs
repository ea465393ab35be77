//! The key's disk is kept, foreign disks are left alone, whatever comes when.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::api::fault;
use qemu_tests::machine::SOON;
use qemu_tests::{Disk, GIB, Interface, MIB, Node, Scene, scene};
use zos_types::NodeId;

use crate::vm::{HELLO, running};

/// What PID 1 says when it starts services: from here on a disk is late.
const SERVICES_START: &str = "loop done";

/// A disk that a node made its key on, and the node.
fn key_disk(scene: &mut Scene) -> Result<(Disk, NodeId)> {
    let disk = scene.disk("key", 4 * GIB)?;
    let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
    let found = node.wait_ready()?;
    ensure!(!found.ephemeral, "the node's key is not on its disk: {:?}", found.faults);
    node.power_off()?;
    Ok((disk, found.id))
}

#[test]
fn the_same_disk_again_is_the_same_node_with_its_deployment_running() {
    scene("disk-again", |scene| {
        let (disk, twin) = (scene.disk("key", 4 * GIB)?, scene.twin("twin")?);
        let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
        let before = node.wait_ready()?;
        twin.api(&node)?.put("hello", HELLO)?;
        running(&twin.api(&node)?, "hello")?;
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 1", SOON)?;
        // Power-off is orderly with a VM, too: the guest is asked, the disk is unmounted.
        node.power_off()?;
        let last = node.serial().tail(20);
        ensure!(last.contains("disks are synced"), "no word of synced disks at the end:\n{last}");
        drop(node);

        let mut node = scene.start(&Node::with_disks([disk]))?;
        let after = node.wait_ready()?;
        ensure!(after.id == before.id, "the node was {} and is {}", before.id, after.id);
        running(&twin.api(&node)?, "hello")?;
        // The volume is the one of before: its guest counts its starts on it.
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 2", SOON)?;
        node.power_off()
    });
}

#[test]
fn a_key_disk_3_s_late_is_waited_for_and_20_s_late_is_a_conflict() {
    scene("disk-late", |scene| {
        let (key, id) = key_disk(scene)?;

        // 3 s late, beside an empty disk: the same node. (The empty disk may join it.)
        let late = key.clone().unplugged();
        let empty = scene.disk("empty-1", 4 * GIB)?;
        let mut node = scene.start(&Node::with_disks([empty, late.clone()]))?;
        node.wait_for_serial(SERVICES_START, SOON)?;
        std::thread::sleep(Duration::from_secs(3));
        node.plug("key")?;
        let found = node.wait_ready()?;
        ensure!(found.id == id, "with its key 3 s late the node is {}, not {id}", found.id);
        node.power_off()?;
        drop(node);

        // 20 s late: another node by now. That is shown, and the disk is not written to.
        let before = key.hash()?;
        let empty = scene.disk("empty-2", 4 * GIB)?;
        let mut node = scene.start(&Node::with_disks([empty, late]))?;
        node.wait_for_serial(SERVICES_START, SOON)?;
        std::thread::sleep(Duration::from_secs(20));
        let other = node.wait_ready()?;
        ensure!(other.id != id, "the node is {id} without the disk that has its key");
        node.plug("key")?;
        let words = node.wait_fault("storage.identity-conflict", SOON)?;
        ensure!(words.contains(&id.to_string()), "the fault doesn't name the other node: {words}");
        let now = node.wait_ready()?;
        ensure!(now.id == other.id, "the node changed from {} to {}", other.id, now.id);
        node.power_off()?;
        drop(node);
        ensure!(key.hash()? == before, "the late disk was written to");
        Ok(())
    });
}

/// Bytes of somebody else's disk.
type Bytes = (u64, &'static [u8]);

/// Disks that are somebody's, by what is on them. The last ones have no name that any tool knows.
fn foreign() -> Vec<(&'static str, Vec<Bytes>)> {
    const SIZE: u64 = GIB;
    vec![
        (
            "mbr",
            vec![
                (0x1be, &[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]),
                (0x1fe, &[0x55, 0xaa]),
            ],
        ),
        ("gpt-backup-only", vec![(SIZE - 512, b"EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")]),
        ("ext4", vec![(0x438, &[0x53, 0xef]), (0x400, &[0, 0, 1, 0, 0, 0, 4, 0])]),
        ("xfs", vec![(0, b"XFSB\x00\x00\x10\x00")]),
        ("luks2", vec![(0, b"LUKS\xba\xbe\x00\x02")]),
        ("lvm2", vec![(512, b"LABELONE\x01\x00\x00\x00"), (536, b"LVM2 001")]),
        (
            "mdraid-1.0-at-the-end",
            vec![((SIZE - 8192) & !4095, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0])],
        ),
        ("zfs-label", vec![(128 * 1024 + 16 * 1024, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0])]),
        ("swap", vec![(4096 - 10, b"SWAPSPACE2")]),
        ("bytes-in-the-middle", vec![(128 * MIB + 4096, b"a photograph")]),
        ("bytes-near-the-end", vec![(SIZE - 3 * MIB, b"a diary")]),
    ]
}

#[test]
fn foreign_disks_are_untouched_bit_by_bit() {
    scene("disk-foreign", |scene| {
        let mut disks = Vec::new();
        for (name, contents) in foreign() {
            // Serial numbers have room for 20 bytes.
            let disk = scene.disk(&name[..name.len().min(20)], GIB)?.by(Interface::Virtio);
            for (offset, bytes) in contents {
                disk.write_at(offset, bytes)?;
            }
            disks.push(disk);
        }
        let hashes: Vec<String> = disks.iter().map(Disk::hash).collect::<Result<_>>()?;
        let mut node = scene.start(&Node::with_disks(disks.clone()))?;
        let found = node.wait_ready()?;
        ensure!(found.ephemeral, "the node has a key although no disk was its own to keep it");
        let shown =
            found.faults.iter().filter(|fault| fault.id.starts_with("storage.foreign")).count();
        ensure!(
            shown == disks.len(),
            "{shown} of {} foreign disks are shown: {:#?}",
            disks.len(),
            found.faults
        );
        ensure!(
            fault(&found, "identity.ephemeral").is_some(),
            "no fault tells that the key is lost with the boot"
        );
        node.power_off()?;
        drop(node);
        for (disk, before) in disks.iter().zip(hashes) {
            ensure!(disk.hash()? == before, "{} was written to", disk.id);
        }
        Ok(())
    });
}
