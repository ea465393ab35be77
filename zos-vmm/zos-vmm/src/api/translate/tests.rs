//! Configurations as Cloud Hypervisor's documents and clients write them.

use super::*;
use serde_json::json;

fn of(value: &Value) -> Result<Spec, Vec<String>> {
    parse(value.to_string().as_bytes())
}

#[test]
fn the_shortest_configuration_has_cloud_hypervisors_defaults() {
    let spec = of(&json!({"payload": {"kernel": "/k"}})).unwrap();
    assert_eq!((spec.cpus, spec.memory, spec.cmdline.as_str()), (1, Bytes(512 << 20), ""));
    assert!(spec.rng && spec.disks.is_empty());
    assert_eq!(spec.serial, Some(spec::Console::default()));
    assert!(spec.console.is_some_and(|console| console.terminal));
}

/// Every field that Cloud Hypervisor itself writes into a configuration, at its default.
fn full() -> Value {
    json!({
        "cpus": {"boot_vcpus": 4, "max_vcpus": 4, "topology": null, "kvm_hyperv": false,
            "max_phys_bits": null, "affinity": null, "features": {"amx": false}, "nested": true},
        "memory": {"size": 1_073_741_824, "mergeable": false, "hotplug_method": "Acpi",
            "hotplug_size": null, "hotplugged_size": null, "shared": true, "hugepages": false,
            "hugepage_size": null, "prefault": false, "zones": null, "thp": true},
        "payload": {"firmware": null, "kernel": "/vmlinux", "cmdline": "root=/dev/vda1 rw",
            "initramfs": null},
        "rate_limit_groups": null,
        "disks": [{"path": "/focal.raw", "readonly": false, "direct": false, "iommu": false,
            "num_queues": 1, "queue_size": 128, "vhost_user": false, "vhost_socket": null,
            "rate_limit_group": null, "id": "_disk0", "disable_io_uring": false,
            "disable_aio": false, "pci_segment": 0, "serial": null, "queue_affinity": null,
            "rate_limiter_config": {"bandwidth": {"size": 1000, "one_time_burst": 0,
                "refill_time": 100}, "ops": null}}],
        "net": [{"tap": "t0", "ip": "192.168.249.1", "mask": "255.255.255.0",
            "mac": "12:34:56:78:90:01", "host_mac": null, "mtu": null, "iommu": false,
            "num_queues": 2, "queue_size": 256, "vhost_user": false, "vhost_socket": null,
            "vhost_mode": "Client", "id": "_net0", "fds": null, "rate_limiter_config": null,
            "pci_segment": 0, "offload_tso": true, "offload_ufo": true, "offload_csum": true}],
        "rng": {"src": "/dev/urandom", "iommu": false},
        "balloon": {"size": 0, "deflate_on_oom": true, "free_page_reporting": false},
        "fs": [{"tag": "myfs", "socket": "/virtiofs", "num_queues": 1, "queue_size": 1024,
            "id": "_fs2", "pci_segment": 0}],
        "pmem": null,
        "serial": {"file": null, "mode": "Socket", "iommu": false, "socket": "/serial"},
        "console": {"file": "/log", "mode": "File", "iommu": false, "socket": null},
        "debug_console": {"file": null, "mode": "Off", "iobase": 233},
        "devices": null, "user_devices": null, "vdpa": null,
        "vsock": {"cid": 3, "socket": "/vsock", "iommu": false, "id": null, "pci_segment": 0},
        "pvpanic": false, "iommu": false, "sgx_epc": null, "numa": null, "watchdog": false,
        "pci_segments": null, "platform": null, "tpm": null, "preserved_fds": null,
        "landlock_enable": false, "landlock_rules": null,
    })
}

#[test]
fn defaults_written_out_change_nothing() {
    let spec = of(&full()).unwrap();
    assert_eq!((spec.cpus, spec.memory), (4, Bytes(1 << 30)));
    let disk = &spec.disks[0];
    assert_eq!((disk.id.as_str(), disk.queues), ("disk0", 1));
    let bytes = Some(Bucket { per_second: 10_000, burst: 1000 });
    assert_eq!(disk.rate, Some(Rate { bytes, operations: None }));
    assert_eq!((spec.nets[0].id.as_str(), spec.nets[0].queues), ("net0", 1));
    assert_eq!(spec.serial.unwrap().socket, Some(Source::Path("/serial".into())));
    assert_eq!(spec.console.unwrap().file, Some(Source::Path("/log".into())));
    assert_eq!((spec.vsock.unwrap().cid, spec.shares[0].tag.as_str()), (3, "myfs"));
    assert!(spec.balloon.unwrap().deflate_on_oom);
}

#[test]
fn what_is_told_of_a_spec_makes_the_same_spec() {
    for config in [full(), json!({"payload": {"kernel": "/k"}})] {
        let spec = of(&config).unwrap();
        let told = config_of(&spec);
        assert_eq!(of(&told).unwrap(), spec, "{told}");
        if let Some(id) = told.pointer("/disks/0/id") {
            assert_eq!(id, "_disk0");
        }
    }
}

fn config_of(spec: &Spec) -> Value {
    serde_json::to_value(super::config(spec)).unwrap()
}

#[test]
fn a_passed_descriptor_has_no_path() {
    let mut spec = of(&full()).unwrap();
    spec.kernel = Source::Fd("kernel".into());
    spec.disks[0].source = Source::Fd("disk-0".into());
    spec.nets[0].source = Source::Fd("net-0".into());
    spec.serial.as_mut().unwrap().socket = Some(Source::Fd("serial-socket".into()));
    let told = config_of(&spec);
    for place in ["/payload/kernel", "/disks/0/path", "/net/0/tap"] {
        assert_eq!(told.pointer(place), Some(&Value::Null), "{place}");
    }
    assert_eq!(told.pointer("/serial"), Some(&json!({"mode": "Socket"})));
}

/// What each field is refused with, if it is not its default.
#[test]
fn what_would_mean_something_is_refused_by_name() {
    for (place, value, words) in [
        ("/payload/kernel", json!(null), "payload.kernel: give"),
        ("/payload/firmware", json!("/fw"), "payload.firmware"),
        ("/cpus/max_vcpus", json!(8), "cpus.max_vcpus"),
        ("/cpus/topology", json!({"packages": 1}), "cpus.topology"),
        ("/cpus/affinity", json!([{"vcpu": 0, "host_cpus": [1]}]), "cpus.affinity"),
        ("/cpus/features", json!({"amx": true}), "cpus.features"),
        ("/memory/zones", json!([{"id": "a", "size": 1}]), "memory.zones"),
        ("/memory/hugepages", json!(true), "memory.hugepages"),
        ("/memory/size", json!(1000), "memory: must be at least"),
        ("/disks/0/path", json!(null), "disks[0].path"),
        ("/disks/0/vhost_user", json!(true), "disks[0].vhost_user"),
        ("/disks/0/iommu", json!(true), "disks[0].iommu"),
        ("/disks/0/iommu", json!("false"), "disks[0].iommu"),
        ("/disks/0/rate_limit_group", json!("g"), "disks[0].rate_limit_group"),
        ("/disks/0/queue_size", json!(100), "disks[0].queue_size"),
        ("/disks/0/queue_size", json!(2048), "disks[0].queue_size"),
        ("/disks/0/id", json!("My_Disk"), "disks[0].id: must match"),
        ("/disks/0/typo", json!(1), "disks[0].typo: there is no such field"),
        ("/net/0/tap", json!(null), "net[0].tap"),
        ("/net/0/ip", json!("10.0.0.1"), "net[0].ip"),
        ("/net/0/mtu", json!(9000), "net[0].mtu"),
        ("/net/0/fds", json!([3]), "net[0].fds"),
        ("/net/0/mac", json!("x"), "net[0].mac"),
        ("/net/0/num_queues", json!(1), "net[0].num_queues"),
        ("/rng/src", json!("/dev/hwrng"), "rng.src"),
        ("/serial/mode", json!("Pty"), "serial.mode"),
        ("/serial/socket", json!(null), "serial.socket"),
        ("/devices", json!([{"path": "/sys/x"}]), "devices"),
        ("/platform", json!({"uuid": "x"}), "platform"),
        ("/watchdog", json!(true), "watchdog"),
        ("/iommu", json!(true), "iommu"),
        ("/tpm", json!({"socket": "/s"}), "tpm"),
        ("/kernel", json!({"path": "/k"}), "write it as payload.kernel"),
        ("/nonsense", json!(0), "nonsense: there is no such field"),
    ] {
        let mut config = full();
        let (parent, field) = place.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().insert(field.to_owned(), value);
        let wrong = of(&config).expect_err(place);
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{place}: {wrong:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let config = json!({"cpus": {"boot_vcpus": 1, "max_vcpus": 2}, "tpm": {}, "disks": [{}]});
    let wrong = of(&config).unwrap_err();
    assert_eq!(wrong.len(), 4, "{wrong:?}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    for text in ["", "{", "[]", "null", r#"{"cpus": 4}"#, r#"{"disks": {}}"#, r#"{"memory": {}}"#] {
        assert!(parse(text.as_bytes()).is_err(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse(format!(r#"{{"x": {deep}"#).as_bytes()).is_err());
}

#[test]
fn devices_are_known_by_cloud_hypervisors_names() {
    let mut spec = of(&full()).unwrap();
    for (id, name) in [("disk0", "_disk0"), ("net0", "_net0"), ("rng", "__rng"), ("myfs", "_fs0")] {
        assert_eq!(device_name(&spec, id), name);
    }
    spec.disks[0].id = "data".into();
    assert_eq!(device_name(&spec, "data"), "data");
}

proptest::proptest! {
    /// Anything that parses gives a valid spec, which can be told and read again.
    #[test]
    fn any_numbers(cpus: u16, memory: u64, queues: u16, pairs: u16, size: u64, time: u64, cid: u64) {
        let mut config = full();
        for (place, value) in [
            ("/cpus/boot_vcpus", json!(cpus)),
            ("/cpus/max_vcpus", json!(cpus)),
            ("/memory/size", json!(memory)),
            ("/disks/0/num_queues", json!(queues)),
            ("/net/0/num_queues", json!(pairs)),
            ("/disks/0/rate_limiter_config/bandwidth/size", json!(size)),
            ("/disks/0/rate_limiter_config/bandwidth/refill_time", json!(time)),
            ("/vsock/cid", json!(cid)),
        ] {
            *config.pointer_mut(place).unwrap() = value.clone();
            if let Ok(spec) = of(&config) {
                spec.validate().unwrap();
                of(&config_of(&spec)).unwrap();
            }
            if !place.contains("rate") {
                config = full();
            }
        }
    }
}
