//! What of a VMM's counters is taken: a table. A VMM names devices by the ids of its spec; what has none there begins
//! with `__`, and a `disk0` that is the first disk with `_`, as clients of its interface know them.

use zos_daemon::{Labels, Metrics, View};
use zos_types::deployment::{DiskOf, Vm};

use super::Readings;
use super::ask::Counters;

/// Whose counter it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Machine,
    Disks,
    Networks,
    Balloon,
}

/// A counter that is taken, summed over the devices of its kind.
struct Known {
    of: Of,
    /// Its name with the VMM.
    counter: &'static str,
    /// The family, by its place in [`FAMILIES`].
    family: usize,
    /// What it is within its family.
    label: Option<(&'static str, &'static str)>,
}

/// Name, help, and whether it only grows.
const FAMILIES: [(&str, &str, bool); 7] = [
    ("vm_exits", "How often a VM's CPUs left the guest", true),
    ("vm_disk_bytes", "Bytes through a VM's disks", true),
    ("vm_disk_operations", "Requests to a VM's disks", true),
    ("vm_network_bytes", "Bytes through a VM's network interfaces", true),
    ("vm_network_frames", "Frames through a VM's network interfaces", true),
    ("vm_balloon_bytes", "Memory that a guest has given back", false),
    ("vm_reported_bytes", "Free memory that a guest told of, and that went back to the node", true),
];

const fn known(
    of: Of,
    counter: &'static str,
    family: usize,
    label: Option<(&'static str, &'static str)>,
) -> Known {
    Known { of, counter, family, label }
}

const READ: Option<(&str, &str)> = Some(("direction", "read"));
const WRITE: Option<(&str, &str)> = Some(("direction", "write"));
const RECEIVE: Option<(&str, &str)> = Some(("direction", "receive"));
const TRANSMIT: Option<(&str, &str)> = Some(("direction", "transmit"));

const KNOWN: [Known; 11] = [
    known(Of::Machine, "exits", 0, None),
    known(Of::Disks, "read_bytes", 1, READ),
    known(Of::Disks, "write_bytes", 1, WRITE),
    known(Of::Disks, "read_ops", 2, READ),
    known(Of::Disks, "write_ops", 2, WRITE),
    known(Of::Networks, "rx_bytes", 3, RECEIVE),
    known(Of::Networks, "tx_bytes", 3, TRANSMIT),
    known(Of::Networks, "rx_frames", 4, RECEIVE),
    known(Of::Networks, "tx_frames", 4, TRANSMIT),
    known(Of::Balloon, "actual_bytes", 5, None),
    known(Of::Balloon, "reported_bytes", 6, None),
];

/// What a VMM told, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told([Option<u64>; KNOWN.len()]);

impl Told {
    /// Takes what is known, of devices that the VM has.
    pub(super) fn from_counters(counters: &Counters, vm: &Vm) -> Self {
        let disk = |(index, disk): (usize, &DiskOf)| {
            let name = disk.volume.to_string();
            if name == format!("disk{index}") { format!("_{name}") } else { name }
        };
        let devices = |of| -> Vec<String> {
            match of {
                Of::Machine => vec!["__vcpus".to_owned()],
                Of::Disks => vm.disks.iter().enumerate().map(disk).collect(),
                Of::Networks => (0..vm.networks.len()).map(|i| format!("net-{i}")).collect(),
                Of::Balloon => vec!["__balloon".to_owned()],
            }
        };
        Self(std::array::from_fn(|index| {
            let known = &KNOWN[index];
            let found = devices(known.of).into_iter();
            let found = found.filter_map(|name| counters.get(&name)?.get(known.counter)?.as_u64());
            found.reduce(u64::saturating_add)
        }))
    }
}

/// The families as metrics.
pub(super) fn show(metrics: &Metrics, readings: &View<Readings>) {
    for (family, (name, help, grows)) in FAMILIES.into_iter().enumerate() {
        let readings = readings.clone();
        let look = move || values(&readings.now(), family);
        if grows {
            metrics.count(name, help, look);
        } else {
            metrics.measure(name, help, look);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn values(readings: &Readings, family: usize) -> Vec<(Labels, f64)> {
    let mut values = Vec::new();
    for (slot, reading) in readings {
        let told = reading.told.unwrap_or_default();
        for (known, value) in KNOWN.iter().zip(told.0).filter(|(k, _)| k.family == family) {
            let Some(value) = value else { continue };
            let mut labels = vec![("vm", slot.to_string())];
            labels.extend(known.label.map(|(key, value)| (key, value.to_owned())));
            values.push((labels, value as f64));
        }
    }
    values
}
