use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn a_recorded_machine() {
    let dir = tempfile::tempdir().unwrap();
    let block = dir.path().join("sys/block");
    fs::create_dir_all(&block).unwrap();
    let nvme = "sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1";
    write(
        &dir.path().join(nvme),
        &[
            ("dev", "259:0\n"),
            ("size", "2097152\n"),
            ("ro", "0\n"),
            ("queue/rotational", "0\n"),
            ("queue/logical_block_size", "4096\n"),
            ("wwid", "nvme.1b36-ab-01\n"),
            ("device/model", "QEMU NVMe Ctrl    \n"),
            ("device/serial", "d1  \n"),
            ("nvme0n1p1/partition", "1\n"),
            ("nvme0n1p1/dev", "259:1\n"),
            ("nvme0n1p1/start", "2048\n"),
            ("nvme0n1p1/size", "4096\n"),
            ("nvme0n1p1/uevent", "MAJOR=259\nPARTN=1\nPARTNAME=esp\nPARTUUID=AB-CD\n"),
        ],
    );
    symlink(format!("../../{nvme}"), block.join("nvme0n1")).unwrap();
    let usb = "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/host0/block/sda";
    write(
        &dir.path().join(usb),
        &[
            ("dev", "8:0\n"),
            ("size", "64\n"),
            ("removable", "1\n"),
            ("device/vendor", "Acme    \n"),
            ("device/model", "Stick\n"),
            ("device/vpd_pg80", "\0\u{80}"),
        ],
    );
    fs::write(dir.path().join(usb).join("device/vpd_pg80"), b"\0\x80\0\x06 AB12 ").unwrap();
    symlink(format!("../../{usb}"), block.join("sda")).unwrap();

    let root = SysRoot::at(dir.path());
    let disks = list(&root).unwrap();
    let [nvme, usb] = disks.as_slice() else { panic!("{disks:?}") };
    assert_eq!((nvme.kind, nvme.bus, nvme.size), (Kind::Disk, Bus::Nvme, 1 << 30));
    assert_eq!(
        (nvme.id.as_str(), nvme.id_is_slot, nvme.logical_block),
        ("nvme.1b36-ab-01", false, 4096)
    );
    assert_eq!(nvme.model.as_deref(), Some("QEMU NVMe Ctrl"));
    let [esp] = nvme.partitions.as_slice() else { panic!("{nvme:?}") };
    assert_eq!((esp.start, esp.size, esp.label.as_deref()), (1 << 20, 2 << 20, Some("esp")));
    assert_eq!(esp.path(), Path::new("/dev/nvme0n1p1"));
    assert_eq!(partition_by_uuid(&root, "ab-cd").unwrap().unwrap().name, "nvme0n1p1");
    assert_eq!((usb.bus, usb.removable, usb.id.as_str()), (Bus::Usb, true, "Acme_Stick-AB12"));
}

#[test]
fn stable_ids() {
    let check = |wwid: Option<&str>, model, serial, place, expect: (&str, bool)| {
        let (id, slot) = stable_id(wwid.map(str::to_owned), model, serial, place, "vda");
        assert_eq!((id.as_str(), slot), expect);
    };
    check(Some("naa.5000c500a1b2c3d4"), Some("X"), Some("Y1"), "", ("naa.5000c500a1b2c3d4", false));
    check(Some("eui.0000000000000000"), Some("A  B"), Some("S 1"), "", ("A_B-S_1", false));
    check(None, None, Some("disk0"), "", ("disk-disk0", false));
    let place = "../devices/pci0000:00/0000:00:03.0/virtio0/block/vda";
    check(None, None, None, place, ("slot-pci0000:00_0000:00:03.0_virtio0", true));
    check(None, None, Some("00000"), "", ("slot-vda", true));
}

#[test]
fn buses() {
    for (name, place, expect) in [
        ("nvme0n1", "pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1", Bus::Nvme),
        ("sda", "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", Bus::Ata),
        ("sdb", "pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host6/block/sdb", Bus::Usb),
        ("sdc", "pci0000:00/0000:01:00.0/host2/port-2:0/end_device-2:0/block/sdc", Bus::Scsi),
        ("sdd", "pci0000:00/0000:00:05.0/virtio2/host3/target3:0:0/block/sdd", Bus::Virtio),
        ("vda", "pci0000:00/0000:00:03.0/virtio0/block/vda", Bus::Virtio),
        // a USB controller behind virtio stays USB
        ("sde", "virtio1/usb2/2-1/host4/block/sde", Bus::Usb),
        ("mmcblk0", "platform/mmc_host/mmc0/block/mmcblk0", Bus::Mmc),
        ("pmem0", "ndbus0/region0/block/pmem0", Bus::Other),
    ] {
        assert_eq!(bus(name, place), expect, "{name}");
    }
}

#[test]
fn kinds_by_name() {
    for (name, expect) in [
        ("sda", Kind::Disk),
        ("nvme10n1", Kind::Disk),
        ("mmcblk0", Kind::Disk),
        ("mmcblk0boot0", Kind::Other),
        ("loop7", Kind::Loop),
        ("dm-3", Kind::Mapped),
        ("md0", Kind::Raid),
        ("sr0", Kind::Optical),
        ("ram0", Kind::Other),
        ("zram0", Kind::Other),
        ("nbd0", Kind::Other),
    ] {
        assert_eq!(kind(name), expect, "{name}");
    }
}

#[test]
fn uevents() {
    let event =
        Uevent::parse(b"add@/devices/x/block/sda\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda\0")
            .unwrap();
    assert_eq!((event.action.as_str(), event.get("DEVNAME")), ("add", Some("sda")));
    assert!(event.is_block() && !event.lost());
    assert_eq!(Uevent::parse(b"libudev\0\xfe\xed"), None);
    assert_eq!(Uevent::parse(b""), None);
}

proptest! {
    #[test]
    fn any_uevent_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Uevent::parse(&bytes);
    }

    #[test]
    fn ids_are_clean(model in ".{0,30}", serial in ".{0,30}", place in ".{0,60}") {
        let (id, _) = stable_id(None, Some(&model), Some(&serial), &place, "sda");
        prop_assert!(!id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)));
    }
}
