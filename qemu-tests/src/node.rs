//! A machine to be, as plain data. A test states only what matters to it; the rest is a usual small node.

use std::path::PathBuf;

use image_builder::cpio::Mode;

use crate::disk::Disk;
use crate::nic::Nic;

/// A machine to be started in QEMU.
#[derive(Clone, Debug)]
pub struct Node {
    /// Threads.
    pub cpus: u32,
    /// In MiB.
    pub memory: u64,
    /// Whether it can run VMs itself (AMD's SVM, which QEMU emulates).
    pub virtualization: bool,
    /// What starts it.
    pub firmware: Firmware,
    /// Where kernel and initramfs come from.
    pub boot: Boot,
    /// Its disks, beside a boot stick.
    pub disks: Vec<Disk>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// `zos.` settings, as `key=value`: on the kernel command line, in `zos.ipxe` or in `zos.conf`, as the boot has it.
    pub settings: Vec<String>,
    /// More for the kernel command line; not for [`Boot::Usb`], which has none.
    pub arguments: Vec<String>,
    /// Whether a probe runs in it: a hand inside the node. Only with [`Boot::Kernel`] and [`Boot::Files`].
    pub probe: bool,
    /// More files for the initramfs, or others in place of its own: path, mode, content. As [`Node::probe`].
    pub files: Vec<(String, Mode, Vec<u8>)>,
    /// Whether a farmer's key is set (`zos.farmer`); [`crate::Machine::farmer`] holds it.
    pub farmer: bool,
    /// Whether it has a watchdog, which resets it.
    pub watchdog: bool,
    /// Whether a reset boots it again, in the same QEMU; else it ends there.
    pub reboots: bool,
    /// More arguments of QEMU, for what only one test needs.
    pub qemu: Vec<String>,
}

/// What starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// Where kernel and initramfs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// QEMU loads `vmlinuz` and `initramfs.img` itself: the quickest.
    Kernel,
    /// As [`Boot::Kernel`] with other files: a spoiled image, a peer of the bench.
    Files {
        /// The kernel.
        kernel: PathBuf,
        /// The initramfs, if any.
        initramfs: Option<PathBuf>,
    },
    /// Our iPXE, loaded by the network card's own (BIOS) or by the firmware (UEFI), and its script: all by HTTP.
    Ipxe,
    /// `zos-usb.img` on a stick.
    Usb,
}

impl Default for Node {
    /// Two threads, 2 GiB, one network card with DHCP and a way to the API, no disk, direct boot.
    fn default() -> Self {
        Self {
            cpus: 2,
            memory: 2048,
            virtualization: true,
            firmware: Firmware::Bios,
            boot: Boot::Kernel,
            disks: Vec::new(),
            nics: vec![Nic::Lan],
            settings: vec!["zos.farm=test-farm".into(), "zos.mode=test".into()],
            arguments: Vec::new(),
            probe: false,
            files: Vec::new(),
            farmer: false,
            watchdog: true,
            reboots: false,
            qemu: Vec::new(),
        }
    }
}

impl Node {
    /// A usual node with these disks.
    #[must_use]
    pub fn with_disks(disks: impl IntoIterator<Item = Disk>) -> Self {
        Self { disks: disks.into_iter().collect(), ..Self::default() }
    }

    /// The same with a setting more.
    #[must_use]
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// The same with a probe inside.
    #[must_use]
    pub fn with_probe(mut self) -> Self {
        self.probe = true;
        self
    }

    /// The same with a file more in its initramfs.
    #[must_use]
    pub fn with_file(mut self, path: &str, mode: Mode, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), mode, content.into()));
        self
    }

    /// The same with a service unit more.
    #[must_use]
    pub fn with_unit(self, name: &str, text: &str) -> Self {
        self.with_file(&format!("etc/zos/units/{name}.toml"), Mode::File, text)
    }

    /// The same with a farmer's key.
    #[must_use]
    pub fn with_farmer(mut self) -> Self {
        self.farmer = true;
        self
    }

    /// The same, which boots again after a reset.
    #[must_use]
    pub fn reboots(mut self) -> Self {
        self.reboots = true;
        self
    }

    /// The kernel command line for boots that have one.
    #[must_use]
    pub fn command_line(&self) -> String {
        // One console on serial: what a test reads. A dead kernel ends the run at once. On a busy computer an emulated timer
        // may miss the few ticks by which the kernel checks its wiring.
        let words = ["console=tty0", "console=ttyS0,115200", "panic=-1", "no_timer_check"];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.extend(self.arguments.iter().cloned());
        words.extend(self.settings.iter().cloned());
        words.join(" ")
    }
}
