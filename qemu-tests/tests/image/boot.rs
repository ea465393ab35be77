//! Every way to start a node leads to the same node.

use anyhow::{Result, ensure};
use qemu_tests::machine::Machine;
use qemu_tests::{Boot, Firmware, GIB, Node, scene};

/// Starts a node another way, with one setting of the farmer's, and switches it off again.
fn check(test: &str, boot: Boot, firmware: Firmware, also: impl FnOnce(&Machine) -> Result<()>) {
    scene(test, |scene| {
        let disk = scene.disk("key", 4 * GIB)?;
        let mut node = scene.start(&Node { boot, firmware, ..Node::with_disks([disk]) })?;
        let found = node.wait_ready()?;
        ensure!(
            found.farm.as_deref() == Some("test-farm"),
            "the farm is {:?}, not the one set",
            found.farm
        );
        ensure!(!found.ephemeral, "the node's key is not on its disk");
        also(&node)?;
        // What a farmer sees, kept to be looked at.
        std::thread::sleep(std::time::Duration::from_secs(3));
        node.screenshot("console")?;
        node.power_off()
    });
}

/// What a network boot must have asked our boot server for.
fn loaded(node: &Machine, [ours, script]: [&str; 2]) -> Result<()> {
    let asked = node.web().map(qemu_tests::web::Web::asked).unwrap_or_default();
    for file in [ours, script, "/zos.ipxe", "/vmlinuz", "/initramfs.img"] {
        ensure!(
            asked.iter().any(|path| path == file),
            "{file} was never asked for; asked were {asked:?}"
        );
    }
    Ok(())
}

#[test]
fn ipxe_over_http_by_bios_with_the_files_that_we_ship() {
    check("boot-ipxe-bios", Boot::Ipxe, Firmware::Bios, |node| {
        loaded(node, ["/undionly.kpxe", "/boot.ipxe"])
    });
}

#[test]
fn ipxe_over_http_by_uefi_with_the_files_that_we_ship() {
    check("boot-ipxe-uefi", Boot::Ipxe, Firmware::Uefi, |node| {
        loaded(node, ["/ipxe.efi", "/autoexec.ipxe"])
    });
}

#[test]
fn a_usb_stick_by_uefi_with_the_settings_of_its_zos_conf() {
    check("boot-usb", Boot::Usb, Firmware::Uefi, |_| Ok(()));
}
