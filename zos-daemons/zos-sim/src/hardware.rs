//! The machine that a simulated node finds: processors, memory, disks.
//!
//! ```text
//!  Hardware ── write ──▶ a folder with /proc and /sys, which capacityd measures
//!          └── disks ──▶ what storaged is told of
//! ```

use std::io;
use std::path::Path;

use zos_host::block::{Bus, Disk, Kind};
use zos_types::Bytes;
use zos_types::unit::MIB;

use crate::fault::{Fault, Faults};

/// What a machine has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// Hardware threads.
    pub cpus: u16,
    /// Memory.
    pub memory: Bytes,
    /// Solid state disks.
    pub ssd: Vec<Bytes>,
    /// Rotating disks.
    pub hdd: Vec<Bytes>,
}

impl Hardware {
    /// Writes what the kernel would tell below `root`.
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        let write = |path: &str, text: String| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            std::fs::write(path, text)
        };
        // As a kernel that runs alone on this machine: a part for its map of pages, 96 MiB for all else.
        let (all, map) = (self.memory.0, self.memory.0 / 64);
        let total = all - map;
        let free = total.saturating_sub(96 * MIB);
        let cpus =
            (0..self.cpus).map(|cpu| format!("processor : {cpu}\nmodel name : simulated\n\n"));
        write("proc/cpuinfo", cpus.collect())?;
        write(
            "proc/meminfo",
            format!(
                "MemTotal: {} kB\nMemFree: {} kB\nBuffers: 0 kB\nCached: 0 kB\nShmem: 0 kB\nSReclaimable: 0 kB\n",
                total / 1024,
                free / 1024
            ),
        )?;
        write("sys/devices/system/cpu/online", format!("0-{}\n", self.cpus.saturating_sub(1)))?;
        write("sys/firmware/memmap/0/type", "System RAM\n".into())?;
        write("sys/firmware/memmap/0/start", "0x0\n".into())?;
        write("sys/firmware/memmap/0/end", format!("{:#x}\n", all.saturating_sub(1)))
    }

    /// The disks as the kernel would show them.
    pub(crate) fn disks(&self, faults: &Faults) -> Vec<Disk> {
        let mut disks: Vec<Disk> = Vec::new();
        if !faults.has(Fault::NoDisk) {
            let ssd = self.ssd.iter().enumerate();
            disks.extend(ssd.map(|(i, size)| disk(format!("nvme{i}n1"), *size, false)));
            let hdd = ('a'..='y').zip(&self.hdd);
            disks.extend(hdd.map(|(letter, size)| disk(format!("sd{letter}"), *size, true)));
        }
        if faults.has(Fault::DiskForeign) {
            disks.push(disk(FOREIGN.into(), Bytes(64 << 30), false));
        }
        disks
    }
}

/// The disk with somebody's data.
pub(crate) const FOREIGN: &str = "sdz";

fn disk(name: String, size: Bytes, rotational: bool) -> Disk {
    Disk {
        kind: Kind::Disk,
        bus: if rotational { Bus::Ata } else { Bus::Nvme },
        device: (0, 0),
        size: size.0,
        logical_block: 512,
        physical_block: 4096,
        rotational,
        removable: false,
        read_only: false,
        model: Some("simulated".into()),
        serial: Some(format!("SIM-{name}")),
        id: format!("sim-{name}"),
        id_is_slot: false,
        holders: Vec::new(),
        partitions: Vec::new(),
        name,
    }
}

#[cfg(test)]
mod tests {
    use zos_host::SysRoot;
    use zos_types::unit::{GIB, TIB};

    use super::*;

    #[test]
    fn capacityd_measures_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (ssd, hdd) = (vec![Bytes(TIB)], vec![Bytes(4 * TIB); 2]);
        let hardware = Hardware { cpus: 8, memory: Bytes(16 * GIB), ssd, hdd };
        hardware.write(folder.path()).unwrap();
        let (found, faults) = capacityd::measure(&SysRoot::at(folder.path()));
        assert_eq!(faults, []);
        assert_eq!((found.threads, found.memory), (8, Bytes(16 * GIB)));
        assert_eq!((found.kernel, found.own), (Bytes(GIB / 4), Bytes(96 * MIB)));
        let names = |faults: &Faults| -> Vec<String> {
            hardware.disks(faults).into_iter().map(|disk| disk.name).collect()
        };
        assert_eq!(names(&Faults::default()), ["nvme0n1", "sda", "sdb"]);
        let faults = Faults::of(&["no-disk".parse().unwrap(), "disk-foreign".parse().unwrap()], 1);
        assert_eq!(names(&faults), [FOREIGN]);
    }
}
