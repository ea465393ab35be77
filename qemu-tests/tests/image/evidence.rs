//! A machine that dies comes back, and knows why it died.
//!
//! ```text
//!  one machine    cold ─▶ reboot ─▶ panic ─▶ (the log is still there) reboot ─▶ hung PID 1: watchdog ─▶ kexec
//!  the same disk  power cut ─▶ power loss ─▶ power button ─▶ cold
//!  a disk hangs   the way down goes on without it, and the next boot knows
//!  PID 1 dies     the next boot knows why
//!  a vital unit is given up ─▶ the watchdog is fed no more ─▶ reset
//!  no service     rescue: PID 1 shows why, and boots again
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use image_builder::cpio::Mode;
use qemu_tests::machine::{BOOT, Machine, SOON};
use qemu_tests::{Boot, Firmware, GIB, Interface, Node, image, scene};
use serde_json::json;
use zos_types::machine::{BootReason, Node as NodeView};

/// Where a node finds the kernel and the initramfs that it loads itself.
const KERNEL: &str = "etc/other-vmlinuz";
const INITRAMFS: &str = "etc/other-initramfs.img";
const SHUTDOWN: &str = "org.zos.Init.Shutdown";

/// Waits until storaged has told PID 1 of the last run: before that a cold start is `unknown`.
fn booted_by(node: &mut Machine, reason: BootReason) -> Result<NodeView> {
    node.wait_ready()?;
    let found =
        node.wait_node("reason of the boot", SOON, |node| node.boot_reason != BootReason::Unknown)?;
    ensure!(found.boot_reason == reason, "booted by {}, not by {reason}", found.boot_reason);
    Ok(found)
}

/// The same after a reset in the same machine.
fn booted_again_by(node: &mut Machine, before: &NodeView, reason: BootReason) -> Result<NodeView> {
    let found = node.wait_reboot(before, BOOT + SOON)?;
    ensure!(found.boot_reason == reason, "booted by {}, not by {reason}", found.boot_reason);
    Ok(found)
}

/// The texts of the crashes that a daemon or PID 1 knows.
fn crashes(node: &mut Machine, noun: &str, interface: &str) -> Result<Vec<String>> {
    let method = format!("org.zos.{interface}.ListCrashes");
    let found = node.probe()?.varlink(noun, &method, json!({}))?;
    let found = found["crashes"].as_array().context("ListCrashes tells no list")?;
    Ok(found.iter().map(|crash| crash["text"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Asks PID 1 to end the machine. The probe may be gone before the answer.
fn go_down(node: &mut Machine, action: &str) -> Result<()> {
    let wish = json!({ "action": action });
    node.probe()?.tell(&format!("varlink /run/zos/init.sock {SHUTDOWN} {wish}"))
}

/// Lets the kernel die, by the way that is there for it.
fn panic(node: &mut Machine) -> Result<()> {
    node.probe()?.tell("write /proc/sysrq-trigger c")
}

fn is_panic(text: &str) -> bool {
    text.starts_with("Panic#") && text.contains("sysrq triggered crash")
}

#[test]
fn the_reason_of_a_boot_is_known_and_a_panics_last_words_are_kept() {
    scene("evidence", |scene| {
        let disk = scene.disk("key", 4 * GIB)?;
        let read = |path: std::path::PathBuf| std::fs::read(&path).context("read the image");
        let kexec = Node::with_disks([disk.clone()])
            .with_probe()
            .with_file(KERNEL, Mode::File, read(image::vmlinuz()?)?)
            .with_file(INITRAMFS, Mode::File, read(image::initramfs()?)?)
            .reboots();

        // The first boot of all.
        let mut node = scene.start(&kexec)?;
        let found = booted_by(&mut node, BootReason::Cold)?;
        let watchdog = found.watchdog.clone().context("no watchdog is shown")?;
        ensure!(
            watchdog.hardware && watchdog.timeout == 30,
            "the watchdog is not the machine's, or not of 30 s: {watchdog:?}"
        );
        ensure!(crashes(&mut node, "init", "Init")?.is_empty(), "a new machine has a past");

        // Told to.
        go_down(&mut node, "reboot")?;
        let found = booted_again_by(&mut node, &found, BootReason::Reboot)?;

        // A panic: its words are there after the reboot, and after one more from the disk.
        panic(&mut node)?;
        let found = booted_again_by(&mut node, &found, BootReason::Panic)?;
        let texts = crashes(&mut node, "init", "Init")?;
        ensure!(
            texts.iter().any(|text| is_panic(text)),
            "the panic's words are not kept: {texts:#?}"
        );
        let texts = crashes(&mut node, "storage", "Storage")?;
        ensure!(
            texts.iter().any(|text| is_panic(text)),
            "the panic's words are not on the disk: {texts:#?}"
        );
        go_down(&mut node, "reboot")?;
        let found = booted_again_by(&mut node, &found, BootReason::Reboot)?;
        ensure!(crashes(&mut node, "init", "Init")?.is_empty(), "a record was not cleared");
        let texts = crashes(&mut node, "storage", "Storage")?;
        ensure!(
            texts.iter().any(|text| is_panic(text)),
            "the disk lost the panic's words: {texts:#?}"
        );

        // PID 1 hangs.
        node.probe()?.freeze("node/init", true)?;
        let found = booted_again_by(&mut node, &found, BootReason::Watchdog)?;

        // Another kernel, without the firmware: refused until one is loaded.
        let refused = node.probe()?.varlink("init", SHUTDOWN, json!({ "action": "kexec" }));
        let refused = refused.err().context("kexec without a kernel is not refused")?;
        ensure!(format!("{refused:#}").contains("no kernel"), "{refused:#}");
        let (kernel, initramfs) = (format!("/{KERNEL}"), format!("/{INITRAMFS}"));
        let line = kexec.command_line();
        let words = ["/init", "kexec-load", &kernel, &initramfs, &line].map(str::to_owned);
        let loaded = node.probe()?.run(&words)?;
        ensure!(loaded["code"] == 0, "kexec-load: {}", loaded["output"]);
        go_down(&mut node, "kexec")?;
        let found = booted_again_by(&mut node, &found, BootReason::Kexec)?;

        // The power goes, and comes back.
        ensure!(!found.ephemeral, "the node's key is not on its disk");
        node.cut_power()?;
        let mut node = scene.start(&Node::with_disks([disk.clone()]))?;
        booted_by(&mut node, BootReason::PowerLoss)?;
        node.power_off()?;
        drop(node);

        // And was switched off in order the last time.
        let mut node = scene.start(&Node::with_disks([disk]))?;
        booted_by(&mut node, BootReason::Cold)?;
        node.power_off()
    });
}

#[test]
fn a_panic_under_uefi_is_kept_in_the_firmwares_variables() {
    scene("evidence-uefi", |scene| {
        let disk = scene.disk("key", 4 * GIB)?;
        let node = Node {
            firmware: Firmware::Uefi,
            // Where there is ramoops too, only one of them may be the backend.
            arguments: vec![
                "pstore.backend=efi_pstore".into(),
                "efi_pstore.pstore_disable=0".into(),
            ],
            ..Node::with_disks([disk]).with_probe().reboots()
        };
        let mut node = scene.start(&node)?;
        let found = booted_by(&mut node, BootReason::Cold)?;
        panic(&mut node)?;
        booted_again_by(&mut node, &found, BootReason::Panic)?;
        let texts = crashes(&mut node, "storage", "Storage")?;
        ensure!(
            texts.iter().any(|text| is_panic(text)),
            "the panic's words are not kept: {texts:#?}"
        );
        Ok(())
    });
}

/// Bytes a second that a disk still takes; 0: as many as it can.
fn slow_down(node: &mut Machine, bytes: u64) -> Result<()> {
    let limits = json!({
        "id": "/machine/peripheral/disk-key/virtio-backend", "bps": bytes, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
    });
    node.qmp().execute("block_set_io_throttle", limits).map(drop)
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_way_down() {
    scene("evidence-hang", |scene| {
        let disk = scene.disk("key", 4 * GIB)?.by(Interface::Virtio);
        let mut node = scene.start(&Node::with_disks([disk]).with_probe().reboots())?;
        let found = booted_by(&mut node, BootReason::Cold)?;
        slow_down(&mut node, 1)?;
        go_down(&mut node, "reboot")?;
        let line = node.wait_for_serial("hung on the way down", BOOT)?;
        ensure!(line.contains("/state"), "what hung is not named: {line}");
        slow_down(&mut node, 0)?;
        booted_again_by(&mut node, &found, BootReason::Reboot)?;
        let texts = crashes(&mut node, "init", "Init")?;
        ensure!(
            texts.iter().any(|text| text.contains("hung ") && text.contains("/state")),
            "the next boot does not know what hung: {texts:#?}"
        );
        Ok(())
    });
}

#[test]
fn a_panic_of_pid_1_is_told() {
    scene("evidence-init", |scene| {
        // A developer's node, where SIGQUIT asks for it; without a disk, so that memory alone tells.
        let mut node = scene.start(&Node::default().set("zos.mode=dev").with_probe().reboots())?;
        let found = node.wait_ready()?;
        node.probe()?.tell("signal 1 QUIT")?;
        // The reason would stay on the console for two minutes, but nobody feeds the watchdog meanwhile.
        booted_again_by(&mut node, &found, BootReason::Panic)?;
        let texts = crashes(&mut node, "storage", "Storage")?;
        ensure!(
            texts.iter().any(|text| text.contains("died panic at") && text.contains("SIGQUIT")),
            "the next boot does not know why PID 1 died: {texts:#?}"
        );
        Ok(())
    });
}

/// A unit that matters, and can't run.
const GIVEN_UP: &str = r#"
exec = ["/bin/zosd", "no-such-daemon"]
user = "root"
ready = "fd"
restart = "always"
vital = true
crash-budget = { crashes = 2, within = "1min" }
"#;

#[test]
fn a_vital_unit_that_is_given_up_resets_the_machine() {
    scene("evidence-starved", |scene| {
        let mut node = scene.start(&Node::default().with_unit("vital", GIVEN_UP))?;
        let line = node.wait_for_serial("the watchdog is fed no more", BOOT)?;
        ensure!(line.contains("vital has failed"), "the log does not say whose fault: {line}");
        let end = node.wait_off(SOON)?;
        ensure!(end == "guest-reset", "the machine ended by {end}, not by a reset");
        Ok(())
    });
}

#[test]
fn without_a_service_pid_1_shows_why_and_boots_again() {
    scene("evidence-rescue", |scene| {
        let spoiled = scene.dir().join("initramfs.img");
        let wrong = [("bin/zosd", Mode::Program, b"#!/bin/sh\n".to_vec())];
        image::extend_initramfs(&image::initramfs()?, &wrong, &spoiled)?;
        let boot = Boot::Files { kernel: image::vmlinuz()?, initramfs: Some(spoiled) };
        let mut node = scene.start(&Node { boot, ..Node::default() }.set("zos.rescue=10s"))?;
        node.wait_for_serial("RESCUE: no service of this node runs", BOOT)?;
        for words in
            ["storaged     failed", "fault image-corrupt: /bin/zosd", "the node boots again"]
        {
            node.wait_for_serial(words, Duration::from_secs(5))?;
        }
        let end = node.wait_off(SOON)?;
        ensure!(end == "guest-reset", "the node ended by {end}, not by a reboot");
        Ok(())
    });
}
