use proptest::prelude::*;
use zos_types::deployment::{DiskOf, Image};
use zos_types::{Bytes, NodeId};

use super::*;

pub(crate) fn twin() -> TwinId {
    // The base point of the curve (RFC 8032, section 5.1): some usable key.
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    NodeId::from_bytes(bytes).unwrap()
}

fn key(name: &str) -> Key {
    (twin(), format!("web/{name}").parse().unwrap())
}

fn vm(cpu: u32, disks: &[&str]) -> Vm {
    Vm {
        cpu,
        memory: Bytes(1 << 28),
        image: Image::Hello,
        restart: Default::default(),
        disks: disks.iter().map(|name| DiskOf { volume: name.parse().unwrap() }).collect(),
        networks: vec![],
        shares: vec![],
    }
}

fn volume() -> Volume {
    Volume {
        size: Bytes(1 << 30),
        class: Default::default(),
        integrity: Default::default(),
        key: Default::default(),
        from: None,
    }
}

/// Words such as `vm:a:data vol:data made:data gone:data` as a wish; `vol:data:2` is of 2 GiB,
/// `clone:a:b` is made from b, `back:data:monday` is to be set back; `shut:data` waits for its key.
fn desired(words: &str) -> Desired {
    let mut desired = Desired::default();
    for word in words.split_whitespace() {
        let parts: Vec<&str> = word.split(':').collect();
        match parts[0] {
            "vm" => drop(desired.vms.insert(key(parts[1]), vm(1, &parts[2..]))),
            "vol" | "shut" => {
                let size = parts.get(2).map_or(1, |gib| gib.parse::<u64>().unwrap());
                let volume = Volume { size: Bytes(size << 30), ..volume() };
                desired.volumes.insert(key(parts[1]), volume);
            }
            "clone" => {
                let from = Some(parts[2].parse().unwrap());
                desired.volumes.insert(key(parts[1]), Volume { from, ..volume() });
            }
            "back" => drop(desired.restores.insert(key(parts[1]), parts[2].parse().unwrap())),
            "made" => drop(desired.made.insert(key(parts[1]))),
            _ => drop(desired.removals.insert(key(parts[1]))),
        }
    }
    desired
}

fn actual(words: &str) -> Actual {
    let desired = desired(words);
    let locked = words.split_whitespace().filter_map(|word| word.strip_prefix("shut:")).map(key);
    let volumes = desired.volumes.into_iter().map(|(key, volume)| (key, volume.size));
    Actual { vms: desired.vms, volumes: volumes.collect(), locked: locked.collect() }
}

fn words(steps: &[Step]) -> String {
    let word = |step: &Step| {
        let name = &step.key().1.workload;
        match step {
            Step::RemoveVm(_) => format!("remove:{name}"),
            Step::DeleteVolume(_) => format!("delete:{name}"),
            Step::CreateVolume(..) => format!("create:{name}"),
            Step::GrowVolume(_, size) => format!("grow:{name}:{}", size.0 >> 30),
            Step::RestoreSnapshot(_, snapshot) => format!("back:{name}:{snapshot}"),
            Step::EnsureVm(..) => format!("ensure:{name}"),
        }
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn plans() {
    let check = |wanted: &str, there: &str, steps: &str| {
        assert_eq!(words(&plan(&desired(wanted), &actual(there))), steps, "{wanted} / {there}");
    };
    check("", "", "");
    check("vm:a:d vol:d", "", "create:d");
    check("vm:a:d vol:d", "vol:d", "ensure:a");
    check("vm:a:d vol:d made:d", "vol:d vm:a:d", "");
    check("vm:a", "vm:a:d", "ensure:a"); // changed
    check("", "vm:a", "remove:a");
    // taken away: the VM first, then its volume
    check("gone:d", "vm:a:d vol:d", "remove:a");
    check("gone:d", "vol:d", "delete:d");
    // taken away and wanted again: the old one goes first
    check("vm:a:d vol:d gone:d", "vol:d", "delete:d");
    check("vm:a:d vol:d gone:d", "", "delete:d");
    check("vm:a:d vol:d gone:d", "vm:a:d vol:d", "remove:a");
    check("vm:a vol:d gone:d", "vm:a:d vol:d", "ensure:a");
    // it waits for its key: its VM waits, and one that runs is left alone
    check("vm:a:data vol:data made:data", "shut:data", "");
    check("vm:a:data vol:data made:data", "vm:a:data shut:data", "");
    check("vm:a:data vm:b vol:data made:data", "shut:data", "ensure:b");
    // its disk is missing: nothing is made in its place
    check("vm:a:d vol:d made:d", "", "");
    // grows under its VM; a larger one stays
    check("vm:a:d vol:d:2 made:d", "vol:d vm:a:d", "grow:d:2");
    check("vm:a:d vol:d:2 made:d", "vol:d", "grow:d:2 ensure:a");
    check("vol:d made:d", "vol:d:2", "");
    check("vol:d:2 made:d gone:d", "vol:d", "delete:d");
    // set back: the VM stops, then the volume is set back and grows again, then the VM starts
    check("vm:a:d vol:d made:d back:d:mon", "vol:d vm:a:d", "remove:a");
    check("vm:a:d vol:d:2 made:d back:d:mon", "vol:d", "back:d:mon");
    check("vm:a:d vol:d made:d", "vol:d", "ensure:a");
    check("vm:a:d vol:d made:d back:d:mon", "", ""); // its disk is missing
    check("vm:a:d vol:d made:d back:d:mon", "vm:a:d", ""); // and its VM is left alone
    check("gone:d back:d:mon", "vol:d", "delete:d");
    // made from another, which waits with going until it is
    check("vol:d clone:e:d", "vol:d", "create:e");
    check("clone:e:d gone:d", "vol:d", "create:e");
    check("clone:e:d gone:d made:e", "vol:d vol:e", "delete:d");
    check("vol:d made:d clone:e:d back:d:mon", "vol:d", "back:d:mon");
    check("vol:d clone:e:d@mon gone:e made:e", "vol:d vol:e", "delete:e");
    // unknown volumes are left alone
    check("", "vol:x", "");
    check("vm:b", "vm:a", "remove:a ensure:b");
}

fn wish() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "vm:[ab]",
        "vm:[ab]:[cd]",
        "vol:[cd]",
        "gone:[cd]",
        "vol:[cd]:[12]",
        "back:[cd]:mon",
        "clone:c:d",
        Just("vm:a:c:d".to_owned()),
    ];
    prop::collection::vec(word, 0..6).prop_map(|words| words.join(" "))
}

proptest! {
    /// Doing what is planned leads to what is wanted, whatever was there, and then to rest.
    #[test]
    fn a_few_rounds_lead_to_rest(wanted in wish(), there in wish()) {
        let (mut desired, mut actual) = (desired(&wanted), actual(&there));
        // As the rules of a deployment have it: a VM's volumes are in it too.
        let volumes: Vec<Key> =
            desired.vms.iter().flat_map(|(k, v)| volumes(k, v).collect::<Vec<_>>()).collect();
        for key in volumes {
            desired.volumes.entry(key).or_insert_with(volume);
        }
        // And what is to be set back is there.
        desired.restores.retain(|key, _| actual.has(key) && desired.volumes.contains_key(key));
        let foreign: BTreeSet<Key> = actual.volumes.keys()
            .filter(|k| !desired.volumes.contains_key(k) && !desired.removals.contains(k)).cloned().collect();
        for _ in 0..8 {
            for step in plan(&desired, &actual) {
                match step {
                    Step::RemoveVm(key) => drop(actual.vms.remove(&key)),
                    Step::DeleteVolume(key) => {
                        prop_assert!(!is_used(&actual, &key));
                        actual.volumes.remove(&key);
                        desired.removals.remove(&key);
                    }
                    Step::CreateVolume(key, volume, _) => drop(actual.volumes.insert(key, volume.size)),
                    Step::GrowVolume(key, size) => {
                        prop_assert!(actual.volumes.insert(key, size).is_some_and(|old| old < size));
                    }
                    Step::RestoreSnapshot(key, _) => {
                        prop_assert!(!is_used(&actual, &key));
                        desired.restores.remove(&key);
                    }
                    Step::EnsureVm(key, vm) => drop(actual.vms.insert(key, vm)),
                }
            }
        }
        prop_assert_eq!(plan(&desired, &actual), vec![]);
        prop_assert_eq!(&actual.vms, &desired.vms);
        let mut expected: BTreeSet<Key> = desired.volumes.into_keys().collect();
        expected.extend(foreign);
        prop_assert!(desired.restores.keys().all(|key| desired.removals.contains(key)));
        prop_assert_eq!(actual.volumes.into_keys().collect::<BTreeSet<_>>(), expected);
    }
}
