//! Facts about processor and memory, read below a root path, so that a folder of fixtures is a
//! machine.
//!
//! ```text
//!  memory of the machine = sum of `System RAM` in the firmware's map, else MemTotal
//!  |-- kernel, before it counts --|-------------------------- MemTotal --------------------------|
//!                                 |-- free --|-- page cache --|-- twins' VMs --|-- node's own ---|
//! ```

use zos_host::SysRoot;
use zos_types::{Bytes, Fault};

/// What `measure` found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Inventory {
    /// The processor's model, in words.
    pub processor: String,
    /// Hardware threads that are online.
    pub threads: u64,
    /// Memory that the firmware gives to the system.
    pub memory: Bytes,
    /// What the kernel took before it began to count: its image, its map of pages.
    pub kernel: Bytes,
    /// What the node itself uses of the rest: files of the root, processes, kernel data. Neither
    /// free memory nor page cache that can be had back, nor what twins' VMs use.
    pub own: Bytes,
}

/// Reads the machine below `root`. What can't be read is 0 and a fault.
pub fn measure(root: &SysRoot) -> (Inventory, Vec<Fault>) {
    let mut faults = Vec::new();
    let online = root.attribute("/sys/devices/system/cpu/online");
    let threads = online.as_deref().and_then(count_list).unwrap_or_else(|| {
        faults
            .push(Fault::new("capacity.cpus", "the kernel does not tell how many CPUs are online"));
        0
    });
    let text = root.read("/proc/meminfo").unwrap_or_default();
    let counted = meminfo(&text, "MemTotal").unwrap_or_else(|| {
        faults.push(Fault::new(
            "capacity.memory",
            "the kernel does not tell how much memory there is",
        ));
        0
    });
    // A map that says less than the kernel uses is wrong.
    let memory = firmware_memory(root).unwrap_or(0).max(counted);
    let twins = root.parse("/sys/fs/cgroup/tenants/memory.current").unwrap_or(0);
    let inventory = Inventory {
        processor: processor(root),
        threads,
        memory: Bytes(memory),
        kernel: Bytes(memory - counted),
        own: Bytes(used(&text).saturating_sub(twins)),
    };
    (inventory, faults)
}

/// The model as the kernel tells it; some architectures tell only numbers.
fn processor(root: &SysRoot) -> String {
    let text = root.read("/proc/cpuinfo").unwrap_or_default();
    let field = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == wanted)
            .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|value| !value.is_empty())
    };
    field("model name")
        .or_else(|| {
            Some(format!("implementer {}, part {}", field("CPU implementer")?, field("CPU part")?))
        })
        .unwrap_or_else(|| "unknown processor".to_owned())
}

/// How many numbers a list such as `0-3,8` holds (Documentation/admin-guide/cputopology.rst).
fn count_list(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0u64, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// A field of /proc/meminfo, in bytes.
fn meminfo(text: &str, wanted: &str) -> Option<u64> {
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == wanted)?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is used of the memory that the kernel counts: all but what is free, or is cache of files
/// that can be read again. Files in memory (`Shmem`) are counted as cache by the kernel, but stay.
fn used(text: &str) -> u64 {
    let field = |name| meminfo(text, name).unwrap_or(0);
    let cache = (field("Cached") + field("Buffers")).saturating_sub(field("Shmem"));
    field("MemTotal").saturating_sub(field("MemFree") + cache + field("SReclaimable"))
}

/// The sum of all ranges that the firmware gives to the system
/// (Documentation/ABI/testing/sysfs-firmware-memmap).
fn firmware_memory(root: &SysRoot) -> Option<u64> {
    const MAP: &str = "/sys/firmware/memmap";
    let entries = root.list(MAP).ok()?;
    let ranges = entries.iter().filter_map(|entry| {
        let read = |name: &str| root.attribute(format!("{MAP}/{entry}/{name}"));
        let hex = |name: &str| u64::from_str_radix(read(name)?.strip_prefix("0x")?, 16).ok();
        (read("type")? == "System RAM")
            .then(|| hex("end")?.checked_sub(hex("start")?)?.checked_add(1))?
    });
    let sum: u64 = ranges.fold(0, u64::saturating_add);
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn machine(name: &str) -> (Inventory, Vec<Fault>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines").join(name);
        measure(&SysRoot::at(folder))
    }

    #[test]
    fn a_recorded_machine_is_read() {
        let (inventory, faults) = machine("qemu-2g");
        assert_eq!(faults, []);
        let expected = Inventory {
            processor: "AMD EPYC Processor".into(),
            threads: 2,
            memory: Bytes(0x9_fc00 + 0x7fee_0000),
            kernel: Bytes(0x9_fc00 + 0x7fee_0000 - 2_012_345 * 1024),
            own: Bytes(
                (2_012_345 - 1_700_000 - (150_000 + 1_000 - 60_000) - 10_000) * 1024 - 67_108_864,
            ),
        };
        assert_eq!(inventory, expected);
    }

    #[test]
    fn a_machine_that_tells_little_is_measured_too() {
        let (inventory, faults) = machine("arm64-bare");
        assert_eq!(faults, []);
        assert_eq!(inventory.processor, "implementer 0x41, part 0xd0c");
        assert_eq!((inventory.threads, inventory.memory.0, inventory.kernel.0), (1, 1 << 30, 0));
    }

    #[test]
    fn lists_of_cpus() {
        let check = |list: &str, count: Option<u64>| assert_eq!(count_list(list), count, "{list}");
        check("0", Some(1));
        check("0-3\n", Some(4));
        check("0-1,4,6-7", Some(5));
        check("", None);
        check("3-1", None);
        check("0-18446744073709551615", None);
        check("a", None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(MemTotal|MemFree|Cached|Shmem|x)?:? *[0-9]{0,22} ?(kB)?\n?.{0,20}") {
            let _ = (meminfo(&text, "MemTotal"), count_list(&text));
        }
    }
}
