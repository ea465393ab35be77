//! Cloud Hypervisor's fields that mean nothing here: which values are taken, and what to do about
//! others.
//!
//! ```text
//!  field ─▶ null, or a value of its row ─▶ taken       another value ─▶ refused, with advice
//!        ─▶ in no row                   ─▶ refused: there is no such field
//! ```

use super::config::Others;
use super::translate::Wrong;

/// Largest queue that a client may ask for; ours have sizes of their own.
const QUEUE_SIZE: u64 = 1024;

/// A field that has no meaning here, the values that are taken all the same (as JSON, `*` is any),
/// and what to do about others.
pub(super) type Known = (&'static str, &'static [&'static str], &'static str);

const NO_IOMMU: Known = ("iommu", &["false"], "there is no virtual IOMMU: leave it out");
const NO_SEGMENT: Known = ("pci_segment", &["0"], "there is one PCI segment: leave it out");
const NO_SLOT: Known =
    ("pci_device_id", &[], "devices stand in the order of the list: leave it out");
const NO_VHOST: Known = ("vhost_user", &["false"], "only fs has a vhost-user back-end");
const NO_SOCKET: Known = ("vhost_socket", &[], "only fs has a vhost-user back-end");
const ANY_SIZE: Known = ("queue_size", &[SIZE], "must be a power of two, at most 1024");
/// A power of two.
const SIZE: &str = "2^n";
const ANY: &str = "*";

pub(super) const DEVICE: &[Known] = &[
    NO_IOMMU,
    NO_SEGMENT,
    NO_SLOT,
    ANY_SIZE,
    ("id", &[ANY], ""),
    ("cache_size", &["0"], "there is no DAX window: leave it out"),
    ("dax", &["false"], "there is no DAX window: leave it out"),
];
pub(super) const TOP: &[Known] = &[
    ("kernel", &[], "write it as payload.kernel"),
    ("initramfs", &[], "write it as payload.initramfs"),
    ("cmdline", &[], "write it as payload.cmdline"),
    ("rate_limit_groups", &["[]"], "give each disk a rate_limiter_config"),
    ("generic_vhost_user", &["[]"], "only fs has a vhost-user back-end"),
    ("pmem", &["[]"], "isn't there: use a disk"),
    ("debug_console", &[ANY], ""),
    ("devices", &["[]"], "devices of the host can't be passed through yet"),
    ("user_devices", &["[]"], "isn't there"),
    ("vdpa", &["[]"], "isn't there"),
    ("numa", &["[]"], "the guest sees one node: leave it out"),
    ("iommu", &["false"], "there is no virtual IOMMU: leave it out"),
    ("watchdog", &["false"], "isn't there"),
    ("pvpanic", &["false"], "isn't there"),
    ("rtc", &[], "the guest has KVM's clock: leave it out"),
    ("sgx_epc", &["[]"], "isn't there"),
    ("pci_segments", &["[]"], "there is one PCI segment: leave it out"),
    ("platform", &["{}"], "isn't there: leave it out"),
    ("tpm", &[], "isn't there"),
    ("gdb", &["false"], "isn't there"),
    ("landlock_enable", &[ANY], ""),
    ("landlock_rules", &["[]"], "the jail opens nothing: leave it out"),
    ("preserved_fds", &["[]"], "isn't there"),
];
pub(super) const CPUS: &[Known] = &[
    ("topology", &[], "the guest sees one thread a core: leave it out"),
    ("kvm_hyperv", &["false"], "isn't there"),
    ("max_phys_bits", &[], "isn't there: leave it out"),
    ("nested", &[ANY], ""),
    ("affinity", &["[]"], "set it from outside, by cgroup: leave it out"),
    ("features", &["{}", r#"{"amx":false}"#], "isn't there: leave it out"),
    ("core_scheduling", &[], "set it from outside: leave it out"),
];
pub(super) const MEMORY: &[Known] = &[
    ("mergeable", &["false"], "memory isn't merged with others': leave it out"),
    ("hotplug_method", &[ANY], ""),
    ("hotplug_size", &["0"], "memory can't be added later: give a larger size and a balloon"),
    ("hotplugged_size", &["0"], "memory can't be added later: give a larger size and a balloon"),
    ("hugepages", &["false"], "isn't there: transparent huge pages are used"),
    ("hugepage_size", &[], "isn't there: transparent huge pages are used"),
    ("prefault", &["false"], "isn't there: leave it out"),
    ("reserve", &["false"], "isn't there: leave it out"),
    ("thp", &["true"], "transparent huge pages are always asked for: leave it out"),
    ("zones", &["[]"], "there is one zone: give memory.size"),
];
pub(super) const PAYLOAD: &[Known] = &[
    ("firmware", &[], "isn't there: give a kernel"),
    ("igvm", &[], "isn't there: give a kernel"),
    ("host_data", &[], "isn't there: leave it out"),
];
pub(super) const DISK: &[Known] = &[
    NO_IOMMU,
    NO_SEGMENT,
    NO_SLOT,
    NO_VHOST,
    NO_SOCKET,
    ANY_SIZE,
    ("direct", &["false"], "give a loop device with direct I/O instead"),
    ("rate_limit_group", &[], "give each disk a rate_limiter_config"),
    ("queue_affinity", &["[]"], "set it from outside: leave it out"),
    ("disable_io_uring", &[ANY], ""),
    ("disable_aio", &[ANY], ""),
    ("backing_files", &["false"], "only raw disks: there is no backing file"),
    ("sparse", &["true"], "isn't there: leave it out"),
    ("image_type", &[r#""Raw""#], "only raw disks: convert it first"),
    ("lock_granularity", &[ANY], ""),
];
pub(super) const NET: &[Known] = &[
    NO_IOMMU,
    NO_SEGMENT,
    NO_SLOT,
    NO_VHOST,
    NO_SOCKET,
    ANY_SIZE,
    ("ip", &[r#""192.168.249.1""#], "set the tap up first, and leave it out"),
    ("mask", &[r#""255.255.255.0""#], "set the tap up first, and leave it out"),
    ("host_mac", &[], "set the tap up first, and leave it out"),
    ("mtu", &[], "set the tap up first, and leave it out"),
    ("vhost_mode", &[r#""Client""#], "only fs has a vhost-user back-end"),
    ("fds", &["[]"], "descriptors come with the start (LISTEN_FDS): give a tap's name"),
    ("offload_tso", &["true"], "what the tap can is offered: leave it out"),
    ("offload_ufo", &["true"], "what the tap can is offered: leave it out"),
    ("offload_csum", &["true"], "what the tap can is offered: leave it out"),
];

/// Takes values that change nothing, and refuses each other field by name.
pub(super) fn leftovers(at: &str, others: &Others, known: &[Known], wrong: &mut Wrong) {
    for (field, value) in others.iter().filter(|(_, value)| !value.is_null()) {
        let Some((_, taken, advice)) = known.iter().find(|(name, _, _)| name == field) else {
            wrong.push(format!("{at}{field}: there is no such field"));
            continue;
        };
        let text = value.to_string();
        let same = |json: &str| match json {
            ANY => true,
            SIZE => value.as_u64().is_some_and(|n| n.is_power_of_two() && n <= QUEUE_SIZE),
            json => text == json,
        };
        if !taken.iter().any(|json| same(json)) {
            wrong.push(format!("{at}{field}: {advice}"));
        }
    }
}
