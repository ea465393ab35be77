//! Who holds the key of a volume: the machine's TPM, or its twin.

use anyhow::{Context, Result, ensure};
use qemu_tests::api::fault;
use qemu_tests::machine::SOON;
use qemu_tests::swtpm::Swtpm;
use qemu_tests::{Disk, GIB, Machine, Node, Scene, scene};
use zos_types::status::State;
use zos_types::volume::Sealing;

use crate::vm::{HELLO, running};

/// A machine with this disk and this TPM, which ends with it.
fn start(scene: &mut Scene, disk: &Disk, tpm: Option<&str>) -> Result<(Machine, Option<Swtpm>)> {
    let mut node = Node::with_disks([disk.clone()]);
    let tpm = match tpm {
        Some(name) => {
            let state = scene.dir().join(name);
            std::fs::create_dir_all(&state)?;
            let tpm = Swtpm::control(&state)?;
            node.qemu.extend(tpm.arguments());
            Some(tpm)
        }
        None => None,
    };
    Ok((scene.start(&node)?, tpm))
}

#[test]
fn a_volume_that_a_tpm_sealed_opens_with_that_tpm_alone() {
    scene("tpm", |scene| {
        let (disk, twin) = (scene.disk("key", 4 * GIB)?, scene.twin("twin")?);
        for boots in 1..=2 {
            let (mut node, _tpm) = start(scene, &disk, Some("first"))?;
            let seen = node.wait_ready()?;
            let tpm = seen.faults.iter().find(|fault| fault.id.starts_with("identity.tpm"));
            ensure!(tpm.is_none(), "the TPM is there: {tpm:?}");
            twin.api(&node)?.put("hello", HELLO)?;
            running(&twin.api(&node)?, "hello")?;
            twin.api(&node)?.wait_log(("hello", "hello"), &format!("boots: {boots}"), SOON)?;
            let data =
                twin.api(&node)?.wait_workload(("hello", "data"), SOON, |w| w.volume.is_some())?;
            let sealing = data.volume.map(|volume| volume.sealing);
            ensure!(sealing == Some(Sealing::Tpm), "the key is sealed {sealing:?}");
            node.power_off()?;
        }

        // Another TPM, and none: it says what is the matter, and the volume stays as it is.
        for (tpm, id) in [(Some("second"), "identity.tpm-other"), (None, "identity.tpm-missing")] {
            let (mut node, _tpm) = start(scene, &disk, tpm)?;
            let seen = node.wait_ready()?;
            let told = fault(&seen, id).with_context(|| format!("{id} of {:?}", seen.faults))?;
            ensure!(told.detail.contains("nothing of them is lost"), "{}", told.detail);
            let vm = twin.api(&node)?.wait_workload(("hello", "hello"), SOON, |workload| {
                matches!(&workload.state, State::Degraded { fault, .. } if fault.contains("sealed to a TPM"))
            });
            vm?;
            node.power_off()?;
        }

        let (mut node, _tpm) = start(scene, &disk, Some("first"))?;
        node.wait_ready()?;
        running(&twin.api(&node)?, "hello")?;
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 3", SOON)?;
        node.power_off()
    });
}

#[test]
fn a_volume_whose_twin_holds_the_key_waits_for_it_after_a_boot() {
    scene("key-twin", |scene| {
        let (disk, twin) = (scene.disk("key", 4 * GIB)?, scene.twin("twin")?);
        let deployment = HELLO.replace("key = \"node\"", "key = \"twin\"");
        let locked = |node: &Machine| -> Result<()> {
            for workload in ["data", "hello"] {
                let found = twin.api(node)?.wait_workload(("hello", workload), SOON, |w| {
                    matches!(w.state, State::Locked { .. })
                })?;
                let State::Locked { reason } = found.state else { continue };
                ensure!(reason.contains("zos unlock hello/data"), "{workload}: {reason}");
            }
            Ok(())
        };
        let other = scene.dir().join("other.key");
        std::fs::write(&other, (0..64).collect::<Vec<u8>>())?;

        let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
        node.wait_ready()?;
        twin.api(&node)?.put("hello", &deployment)?;
        locked(&node)?;
        let said = twin.run_zos(&node, &["unlock", "hello/data"])?;
        ensure!(said.contains("its key from now on"), "{said}");
        running(&twin.api(&node)?, "hello")?;
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 1", SOON)?;
        node.power_off()?;
        drop(node);

        let mut node = scene.start(&Node::with_disks([disk]))?;
        node.wait_ready()?;
        locked(&node)?;
        let file = other.to_str().context("a path in UTF-8")?;
        let refused = twin.run_zos(&node, &["unlock", "hello/data", "--key-file", file]);
        let words = format!("{:#}", refused.err().context("another key opens it")?);
        ensure!(words.contains("not the key of volume"), "{words}");
        locked(&node)?;
        twin.run_zos(&node, &["unlock", "hello/data"])?;
        running(&twin.api(&node)?, "hello")?;
        // What the guest wrote before is there: it counts its boots on that disk.
        twin.api(&node)?.wait_log(("hello", "hello"), "boots: 2", SOON)?;
        node.power_off()
    });
}
