//! A VM as plain data, and how each VMM is told of it.

use qemu_tests::nested::{ZOS_VMM, words};

use super::pack::{INITRAMFS, Qemu};

/// Who runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ours,
    Microvm,
    Q35,
}

/// A guest.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    /// Its kernel in the node.
    pub kernel: &'static str,
    /// In MiB.
    pub memory: u32,
    /// What its init is told.
    pub orders: String,
    /// A disk of the node.
    pub disk: Option<String>,
    /// A tap's number.
    pub tap: Option<usize>,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Microvm, Self::Q35];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "zos-vmm",
            Self::Microvm => "QEMU microvm",
            Self::Q35 => "QEMU q35",
        }
    }

    /// The code of a guest's reboot.
    pub(crate) fn reboot_code(self) -> i64 {
        if self == Self::Ours { 3 } else { 0 }
    }

    /// The words that start a guest.
    pub(crate) fn command(self, qemu: &Qemu, vm: &Vm) -> Vec<String> {
        let line = line(&vm.orders);
        let Vm { kernel, memory, disk, tap, .. } = vm;
        let mac = tap.map(|tap| format!("52:54:00:77:00:{:02x}", tap + 2)).unwrap_or_default();
        if self == Self::Ours {
            let mut command = words(&format!(
                "{ZOS_VMM} --memory {memory}MiB --cpus 1 --json --kernel {kernel} --initramfs {INITRAMFS}"
            ));
            command.extend(["--cmdline".into(), line]);
            command.extend(disk.iter().flat_map(|path| words(&format!("--disk path={path}"))));
            command
                .extend(tap.iter().flat_map(|tap| words(&format!("--net tap=tap{tap},mac={mac}"))));
            return command;
        }
        // microvm has its devices behind registers in memory, q35 on PCI.
        let (machine, bus) = match self {
            Self::Q35 => ("q35", "pci"),
            _ => ("microvm,acpi=off", "device"),
        };
        let mut command = qemu.words.clone();
        command.extend(words(&format!(
            "-nodefaults -no-user-config -no-reboot -display none -accel kvm -cpu host -L /bench -smp 1 -m {memory} \
             -object memory-backend-memfd,id=memory,size={memory}M,share=on -machine {machine},memory-backend=memory \
             -chardev file,id=console,path=/proc/self/fd/1 -serial chardev:console -kernel {kernel} -initrd {INITRAMFS}"
        )));
        command.extend(["-append".into(), line]);
        if let Some(path) = disk {
            command.extend(words(&format!(
                "-drive if=none,id=disk,format=raw,aio=io_uring,file={path} -device virtio-blk-{bus},drive=disk"
            )));
        }
        if let Some(tap) = tap {
            // Its card would bring a boot ROM, which nobody boots from.
            let rom = if self == Self::Q35 { ",romfile=" } else { "" };
            command.extend(words(&format!(
                "-netdev tap,id=net,ifname=tap{tap},script=no,downscript=no -device virtio-net-{bus},netdev=net,mac={mac}{rom}"
            )));
        }
        command
    }
}

/// Nothing on the console but panics and what the init says, and the reboot that each VMM understands.
fn line(orders: &str) -> String {
    let orders: String = orders.split_whitespace().map(|word| format!(" bench.{word}")).collect();
    format!("console=ttyS0 quiet panic=-1 reboot=t 8250.nr_uarts=1{orders}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_names_the_same_disk_and_tap() {
        let qemu = Qemu { words: vec!["qemu".into()], bytes: 1 };
        let vm = Vm {
            kernel: "/k",
            memory: 128,
            orders: "role=speed seconds=2".into(),
            disk: Some("/dev/vdb".into()),
            tap: Some(1),
        };
        for way in Way::ALL {
            let command = way.command(&qemu, &vm).join(" ");
            for part in
                ["/dev/vdb", "tap1", "52:54:00:77:00:03", " bench.role=speed bench.seconds=2"]
            {
                assert!(command.contains(part), "{part}: {command}");
            }
        }
        let alone = Vm { disk: None, tap: None, ..vm };
        assert!(!Way::Q35.command(&qemu, &alone).join(" ").contains("virtio"));
    }
}
