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

/// Words such as `vm:a:data vol:data made:data gone:data` as a wish.
fn desired(words: &str) -> Desired {
    let mut desired = Desired::default();
    for word in words.split_whitespace() {
        let parts: Vec<&str> = word.split(':').collect();
        match parts[0] {
            "vm" => drop(desired.vms.insert(key(parts[1]), vm(1, &parts[2..]))),
            "vol" => drop(desired.volumes.insert(key(parts[1]), volume())),
            "made" => drop(desired.made.insert(key(parts[1]))),
            _ => drop(desired.removals.insert(key(parts[1]))),
        }
    }
    desired
}

fn actual(words: &str) -> Actual {
    let desired = desired(words);
    Actual { vms: desired.vms, volumes: desired.volumes.into_keys().collect() }
}

fn words(steps: &[Step]) -> String {
    let word = |step: &Step| {
        let name = &step.key().1.workload;
        match step {
            Step::RemoveVm(_) => format!("remove:{name}"),
            Step::DeleteVolume(_) => format!("delete:{name}"),
            Step::CreateVolume(..) => format!("create:{name}"),
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
    // its disk is missing: nothing is made in its place
    check("vm:a:d vol:d made:d", "", "");
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
        desired.volumes.extend(volumes.into_iter().map(|key| (key, volume())));
        let foreign: BTreeSet<Key> = actual.volumes.iter()
            .filter(|k| !desired.volumes.contains_key(k) && !desired.removals.contains(k)).cloned().collect();
        for _ in 0..6 {
            for step in plan(&desired, &actual) {
                match step {
                    Step::RemoveVm(key) => drop(actual.vms.remove(&key)),
                    Step::DeleteVolume(key) => {
                        prop_assert!(!is_used(&actual, &key));
                        actual.volumes.remove(&key);
                        desired.removals.remove(&key);
                    }
                    Step::CreateVolume(key, _, _) => drop(actual.volumes.insert(key)),
                    Step::EnsureVm(key, vm) => drop(actual.vms.insert(key, vm)),
                }
            }
        }
        prop_assert_eq!(plan(&desired, &actual), vec![]);
        prop_assert_eq!(&actual.vms, &desired.vms);
        let mut expected: BTreeSet<Key> = desired.volumes.into_keys().collect();
        expected.extend(foreign);
        prop_assert_eq!(actual.volumes, expected);
    }
}
