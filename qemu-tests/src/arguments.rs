//! From plain data to QEMU's arguments. Pure: the same node and places give the same words.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::accel::Accel;
use crate::disk::{Disk, Interface};
use crate::nic::Nic;
use crate::node::{Firmware, Node};

/// The places of one run: files and ports that no other run has.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where the serial port is written.
    pub serial: PathBuf,
    /// The QMP socket.
    pub qmp: PathBuf,
    /// The probe's serial port.
    pub probe: PathBuf,
    /// The port of this machine that leads to the node API.
    pub api_port: u16,
    /// The boot server's URL for the network card's ROM.
    pub boot_url: Option<String>,
    /// Kernel, initramfs and command line, for direct boots.
    pub kernel: Option<(PathBuf, Option<PathBuf>, String)>,
    /// OVMF's code and this machine's own variables.
    pub uefi: (PathBuf, PathBuf),
    /// The boot stick.
    pub stick: Option<Disk>,
}

/// All arguments.
#[must_use]
pub fn arguments(node: &Node, accel: Accel, places: &Places) -> Vec<String> {
    let mut words = Words::default();
    // No default devices: SeaBIOS waits half a minute for an empty CD-ROM.
    words.flags("-nodefaults -no-user-config -display none -machine q35 -S");
    if !node.reboots {
        words.flags("-no-reboot");
    }
    if node.watchdog {
        words.device(json!({"driver": "i6300esb"}));
        words.pair("-action", "watchdog=reset");
    }
    // Disks are plugged as on real machines, by PCIe's own way and not by ACPI's.
    words.pair("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    words.pair("-accel", accel.argument());
    words.pair("-cpu", accel.cpu(node.virtualization));
    words.pair("-smp", node.cpus);
    words.pair("-m", node.memory);
    words.pair("-chardev", format!("file,id=console,path={}", plain(&places.serial)));
    words.pair("-serial", "chardev:console");
    if node.probe {
        words.pair(
            "-chardev",
            format!("socket,id=probe,path={},server=on,wait=off", plain(&places.probe)),
        );
        words.pair("-serial", "chardev:probe");
    }
    words.pair("-qmp", format!("unix:{},server=on,wait=off", plain(&places.qmp)));
    words.device(json!({"driver": "VGA"}));
    words.device(json!({"driver": "qemu-xhci", "id": "usb"}));
    words.device(json!({"driver": "pcie-root-port", "id": SPARE, "chassis": 100}));
    if node.firmware == Firmware::Uefi {
        let (code, variables) = (plain(&places.uefi.0), plain(&places.uefi.1));
        words.pair("-drive", format!("if=pflash,format=raw,readonly=on,file={code}"));
        words.pair("-drive", format!("if=pflash,format=raw,file={variables}"));
    }
    if node.firmware == Firmware::Uefi && places.boot_url.is_some() {
        // HTTP at once, no attempts by TFTP before it.
        for version in ["IPv4", "IPv6"] {
            words.pair("-fw_cfg", format!("name=opt/org.tianocore/{version}PXESupport,string=n"));
        }
    }
    if let Some((kernel, initramfs, line)) = &places.kernel {
        words.pair("-kernel", kernel.display());
        if let Some(initramfs) = initramfs {
            words.pair("-initrd", initramfs.display());
        }
        words.pair("-append", line);
    }
    if let Some(stick) = &places.stick {
        words.disk(stick, None, Some(0));
    }
    for (number, disk) in node.disks.iter().enumerate() {
        // Each disk has a port of its own, so that one may come (and go) while the machine runs.
        let port = port(number);
        if matches!(disk.interface, Interface::Nvme | Interface::Virtio) {
            words.device(json!({"driver": "pcie-root-port", "id": port, "chassis": number + 1}));
        }
        if !disk.unplugged {
            words.disk(disk, bus(disk, &port), None);
        }
    }
    for (number, nic) in node.nics.iter().enumerate() {
        words.nic(*nic, number, places);
    }
    words.list.extend(node.qemu.iter().cloned());
    words.list
}

/// A port of this computer that leads to the node API, as QEMU's user network wants it.
#[must_use]
pub fn forward(port: u16) -> String {
    format!("tcp:127.0.0.1:{port}-:8443")
}

/// A root port that is free at the start.
pub const SPARE: &str = "spare";

/// The root port of the disk with this number.
#[must_use]
pub fn port(number: usize) -> String {
    format!("port{number}")
}

/// The bus that a disk is plugged into.
#[must_use]
pub fn bus<'a>(disk: &Disk, port: &'a str) -> Option<&'a str> {
    const SATA: [&str; 6] = ["ide.0", "ide.1", "ide.2", "ide.3", "ide.4", "ide.5"];
    match disk.interface {
        Interface::Nvme | Interface::Virtio => Some(port),
        Interface::Sata(port) => SATA.get(usize::from(port)).copied(),
        Interface::Usb => None,
    }
}

#[derive(Default)]
struct Words {
    list: Vec<String>,
}

impl Words {
    fn flags(&mut self, words: &str) {
        self.list.extend(words.split(' ').map(str::to_owned));
    }

    #[allow(clippy::needless_pass_by_value)] // literals and formatted words
    fn pair(&mut self, flag: &str, value: impl ToString) {
        self.list.extend([flag.to_owned(), value.to_string()]);
    }

    fn device(&mut self, device: impl Into<Value>) {
        self.pair("-device", device.into());
    }

    fn disk(&mut self, disk: &Disk, bus: Option<&str>, boot_index: Option<u32>) {
        self.pair("-blockdev", disk.blockdev());
        let mut device = disk.device(bus);
        if let Some(index) = boot_index {
            device["bootindex"] = index.into();
        }
        self.device(device);
    }

    fn nic(&mut self, nic: Nic, number: usize, places: &Places) {
        let (id, mac) = (Nic::id(number), Nic::mac(number));
        let mut device = json!({"driver": "virtio-net-pci", "id": id, "netdev": format!("net-{id}"), "mac": mac});
        let back = match nic {
            Nic::Lan | Nic::Waiting => {
                let mut user = format!("user,id=net-{id},hostfwd={}", forward(places.api_port));
                if let Some(url) = &places.boot_url {
                    user += &format!(",bootfile={url}");
                    device["bootindex"] = 1.into();
                }
                user
            }
            Nic::Unplugged | Nic::Silent => format!("hubport,id=net-{id},hubid={}", 100 + number),
        };
        self.pair("-netdev", back);
        self.device(device);
    }
}

/// A path in QEMU's comma lists, where a comma is written twice.
fn plain(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            serial: "/t/serial,1.log".into(),
            qmp: "/t/q".into(),
            probe: "/t/p".into(),
            api_port: 4711,
            boot_url: None,
            kernel: Some(("k".into(), Some("i".into()), "console=ttyS0".into())),
            uefi: ("code".into(), "vars".into()),
            stick: None,
        }
    }

    fn line(node: &Node) -> String {
        arguments(node, Accel::Tcg, &places()).join(" ")
    }

    #[test]
    fn the_usual_node() {
        let line = line(&Node::default());
        for part in [
            "-nodefaults",
            "-accel tcg,thread=multi -cpu EPYC,+svm -smp 2 -m 2048",
            "path=/t/serial,,1.log",
            "-kernel k -initrd i -append console=ttyS0",
            "-netdev user,id=net-nic0,hostfwd=tcp:127.0.0.1:4711-:8443",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("pflash") && !line.contains("probe"));
        assert!(line.contains("-no-reboot") && line.contains("i6300esb"));
    }

    #[test]
    fn a_reset_is_the_end_unless_the_test_says_so() {
        let node = Node { watchdog: false, ..Node::default().reboots() };
        let line = line(&node);
        assert!(!line.contains("-no-reboot") && !line.contains("watchdog"), "{line}");
    }

    #[test]
    fn an_unplugged_disk_has_its_port_and_no_device() {
        let disk = Disk::new("late", "late.img".into()).unplugged();
        let line = line(&Node::with_disks([disk]));
        assert!(line.contains("port0") && !line.contains("late"), "{line}");
    }

    #[test]
    fn what_a_test_states_is_there() {
        let uefi = Node { firmware: Firmware::Uefi, virtualization: false, ..Node::default() };
        assert!(line(&uefi).contains("-cpu EPYC,-svm"));
        assert!(line(&uefi).contains("readonly=on,file=code"));
        let dark = Node { nics: vec![Nic::Unplugged, Nic::Silent], ..Node::default() };
        assert!(line(&dark).contains("hubid=100") && line(&dark).contains("hubid=101"));
        assert!(line(&Node::default().with_probe()).contains("-serial chardev:probe"));
    }
}
