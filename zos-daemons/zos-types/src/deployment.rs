//! What a twin asks for: a deployment, its workloads and their rules.
//!
//! ```text
//!  bytes ──JSON──▶ value ──fields──▶ Deployment ──rules──▶ Deployment, valid
//!            │               │                        │
//!            └───────────────┴────────────────────────┴──▶ [FieldError { pointer, rule }]
//! ```
//!
//! [`Deployment::from_json`] goes through all three layers; after it nobody checks again. Whether
//! the node has room is admission's question, not this module's.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::capacity::Resources;
use crate::name::Name;
use crate::origin::OriginName;
use crate::problem::FieldError;
use crate::unit::{Bytes, GIB, MIB, TIB};

/// The largest body of a deployment, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// The most workloads in one deployment.
pub const MAX_WORKLOADS: usize = 64;
/// The most disks, and the most networks, of one VM.
pub const MAX_DEVICES: usize = 8;

/// What one twin wants on one node. Its name stands in the path of the request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// 1 for a name never used, else the highest ever seen under the name + 1.
    #[schema(minimum = 1)]
    pub version: u64,
    /// The workloads by name.
    pub workloads: BTreeMap<Name, Workload>,
}

/// One thing to run or to keep.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Workload {
    /// A virtual machine.
    Vm(Vm),
    /// A virtual disk.
    Volume(Volume),
}

/// A virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Virtual CPUs.
    #[schema(minimum = 1, maximum = 128)]
    pub cpu: u32,
    /// Guest memory.
    pub memory: Bytes,
    /// What it boots: `builtin:hello`.
    pub image: Image,
    /// What happens when it ends.
    #[serde(default)]
    pub restart: Restart,
    /// Its disks, in the order the guest sees them.
    #[serde(default)]
    pub disks: Vec<DiskOf>,
    /// Its networks, in the order the guest sees them.
    #[serde(default)]
    pub networks: Vec<NetworkOf>,
}

/// What a VM boots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub enum Image {
    /// The node's own guest kernel with a small user space that reports what it sees.
    #[serde(rename = "builtin:hello")]
    Hello,
}

/// What happens when a VM ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Started again, also after the guest powered itself off.
    #[default]
    Always,
    /// Started again unless the guest powered itself off.
    OnFailure,
    /// Stays `stopped`.
    Never,
}

/// A disk of a VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskOf {
    /// A `volume` workload of the same deployment.
    pub volume: Name,
}

/// A network of a VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkOf {
    /// `nat`: an address by DHCP and a way out to the Internet; never to the node, to other twins
    /// or to the farmer's LAN.
    pub network: NetworkKind,
}

/// The networks that a node has by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// Behind the node's own address.
    Nat,
}

/// A virtual disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its size; the whole of it is set aside.
    pub size: Bytes,
    /// The class of pool it lies on.
    #[serde(default)]
    pub class: Class,
    /// What is done about bit rot.
    #[serde(default)]
    pub integrity: Integrity,
    /// Who holds its key.
    #[serde(default)]
    pub key: KeyHolder,
    /// What it is made from, once: `[deployment/]volume[@snapshot]` of the same twin. It is a volume of
    /// its own from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<OriginName>,
}

/// A class of disk.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Solid state.
    #[default]
    Ssd,
    /// Rotating.
    Hdd,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
        })
    }
}

/// What is done about bit rot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Integrity {
    /// Nothing.
    #[default]
    None,
    /// A corrupt block is reported as an error.
    Detect,
    /// A corrupt block is repaired from a second disk.
    Repair,
}

/// Who holds a volume's key.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHolder {
    /// The node, sealed with its own key.
    #[default]
    Node,
    /// The twin, who hands it over at each start.
    Twin,
}

impl Deployment {
    /// Reads and judges a request's body.
    pub fn from_json(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        if body.len() > MAX_BODY {
            return Err(vec![FieldError::new("", format!("at most {MAX_BODY} bytes"))]);
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| vec![FieldError::new("", format!("must be JSON: {e}"))])?;
        let outer: Outer = fields(value, "").map_err(|e| vec![e])?;
        let mut errors = Vec::new();
        let mut workloads = BTreeMap::new();
        for (name, value) in outer.workloads {
            let pointer = format!("/workloads/{}", escape(&name));
            match (name.parse::<Name>(), Workload::from_value(value, &pointer)) {
                (Ok(name), Ok(workload)) => {
                    workloads.insert(name, workload);
                }
                (name, workload) => {
                    errors.extend(name.err().map(|e| FieldError::new(&pointer, e.to_string())));
                    errors.extend(workload.err());
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let deployment = Self { version: outer.version, workloads };
        let errors = deployment.check();
        if errors.is_empty() { Ok(deployment) } else { Err(errors) }
    }

    /// The rules that a well-formed deployment must still keep.
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut rule = |broken: bool, pointer: String, rule: String| {
            if broken {
                errors.push(FieldError::new(pointer, rule));
            }
        };
        rule(self.version == 0, "/version".into(), "at least 1".into());
        let count = self.workloads.len();
        rule(count > MAX_WORKLOADS, "/workloads".into(), format!("at most {MAX_WORKLOADS}"));
        let mut owners: BTreeMap<&Name, &Name> = BTreeMap::new();
        for (name, workload) in &self.workloads {
            let at = |field: &str| format!("/workloads/{name}/{field}");
            match workload {
                Workload::Volume(volume) => {
                    let size = volume.size.0;
                    rule(
                        !(16 * MIB..=64 * TIB).contains(&size),
                        at("size"),
                        "from 16MiB to 64TiB".into(),
                    );
                    rule(!size.is_multiple_of(MIB), at("size"), "a multiple of 1MiB".into());
                    if let Some(from) = volume.from.as_ref().filter(|o| o.deployment.is_none()) {
                        let named = self.workloads.get(&from.volume);
                        rule(
                            &from.volume == name,
                            at("from"),
                            "a volume isn't made from itself".into(),
                        );
                        rule(
                            matches!(named, Some(Workload::Vm(_))),
                            at("from"),
                            format!("names no volume: `{}`", from.volume),
                        );
                    }
                }
                Workload::Vm(vm) => {
                    rule(!(1..=128).contains(&vm.cpu), at("cpu"), "from 1 to 128".into());
                    let memory = vm.memory.0;
                    rule(
                        !(64 * MIB..=1024 * GIB).contains(&memory),
                        at("memory"),
                        "from 64MiB to 1TiB".into(),
                    );
                    rule(!memory.is_multiple_of(MIB), at("memory"), "a multiple of 1MiB".into());
                    for (field, count) in
                        [("disks", vm.disks.len()), ("networks", vm.networks.len())]
                    {
                        rule(count > MAX_DEVICES, at(field), format!("at most {MAX_DEVICES}"));
                    }
                    for (i, disk) in vm.disks.iter().enumerate() {
                        let volume = self.workloads.get(&disk.volume);
                        rule(
                            !matches!(volume, Some(Workload::Volume(_))),
                            at(&format!("disks/{i}/volume")),
                            format!("names no volume of this deployment: `{}`", disk.volume),
                        );
                        let other = owners.insert(&disk.volume, name);
                        rule(
                            other.is_some(),
                            at(&format!("disks/{i}/volume")),
                            format!("`{}` is a disk already; a volume has one user", disk.volume),
                        );
                    }
                }
            }
        }
        errors
    }

    /// What it is charged, which is more than what is billed: [`Vm::charged`].
    pub fn charged(&self) -> Resources {
        self.workloads.values().map(Workload::charged).sum()
    }

    /// What it takes of the node, as billed.
    pub fn resources(&self) -> Resources {
        self.workloads.values().map(Workload::resources).sum()
    }
}

impl Vm {
    /// Memory that it is charged, and that its cgroup is held to: the guest's, and for the process
    /// around it 24 MiB and 1/128 of the guest's (page tables on both sides, threads, the console's
    /// ring, buffers). It is not billed.
    pub fn charged(&self) -> Bytes {
        Bytes(self.memory.0.saturating_add(self.memory.0 / 128).saturating_add(24 * MIB))
    }
}

impl Workload {
    fn from_value(value: Value, pointer: &str) -> Result<Self, FieldError> {
        let Value::Object(mut object) = value else {
            return Err(FieldError::new(pointer, "must be an object"));
        };
        let kind = object.remove("type");
        let rest = Value::Object(object);
        match kind.as_ref().and_then(Value::as_str) {
            Some("vm") => fields(rest, pointer).map(Self::Vm),
            Some("volume") => fields(rest, pointer).map(Self::Volume),
            _ => Err(FieldError::new(format!("{pointer}/type"), "must be `vm` or `volume`")),
        }
    }

    /// What it is charged: its resources, a VM with [`Vm::charged`] for its memory.
    pub fn charged(&self) -> Resources {
        match self {
            Self::Vm(vm) => Resources { mru: vm.charged(), ..self.resources() },
            Self::Volume(_) => self.resources(),
        }
    }

    /// What it takes of the node, as billed.
    pub fn resources(&self) -> Resources {
        match self {
            Self::Vm(vm) => {
                Resources { cru: vm.cpu.into(), mru: vm.memory, ..Resources::default() }
            }
            Self::Volume(volume) => match volume.class {
                Class::Ssd => Resources { sru: volume.size, ..Resources::default() },
                Class::Hdd => Resources { hru: volume.size, ..Resources::default() },
            },
        }
    }
}

/// The outer layer: workloads are still plain values, so that each fault is found at its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    version: u64,
    workloads: BTreeMap<String, Value>,
}

fn fields<T: DeserializeOwned>(value: Value, pointer: &str) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        use serde_path_to_error::Segment;
        let mut at = pointer.to_owned();
        for segment in error.path() {
            match segment {
                Segment::Seq { index } => at.push_str(&format!("/{index}")),
                Segment::Map { key } => at.push_str(&format!("/{}", escape(key))),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        FieldError::new(at, error.inner().to_string())
    })
}

/// A key as a part of a JSON pointer (RFC 6901, section 3).
fn escape(key: &str) -> String {
    key.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = r#"{"version": 1, "workloads": {
        "hello": {"type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello",
                  "disks": [{"volume": "data"}], "networks": [{"network": "nat"}]},
        "data": {"type": "volume", "size": "1GiB", "class": "ssd"}}}"#;

    #[test]
    fn the_sample_is_read() {
        let deployment = Deployment::from_json(SAMPLE.as_bytes()).unwrap();
        let Workload::Vm(vm) = &deployment.workloads[&"hello".parse().unwrap()] else { panic!() };
        assert_eq!((vm.cpu, vm.memory, vm.restart), (1, Bytes(256 * MIB), Restart::Always));
        let resources = deployment.resources();
        assert_eq!((resources.cru, resources.mru.0, resources.sru.0), (1, 256 * MIB, GIB));
    }

    #[test]
    fn each_fault_names_its_field_and_rule() {
        let check = |from: &str, to: &str, pointer: &str, rule: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            let errors = Deployment::from_json(SAMPLE.replace(from, to).as_bytes()).unwrap_err();
            let found = errors.iter().any(|e| e.pointer == pointer && e.rule.contains(rule));
            assert!(found, "{to}: {errors:?}");
        };
        check(r#""version": 1"#, r#""version": 0"#, "/version", "at least 1");
        check(r#""version": 1"#, r#""version": -1"#, "/version", "invalid value");
        check(r#""version": 1,"#, "", "", "missing field `version`");
        check(r#""version": 1"#, r#""version": 1, "x": 2"#, "/x", "unknown field `x`");
        check(r#""cpu": 1"#, r#""cpu": 0"#, "/workloads/hello/cpu", "from 1 to 128");
        check(r#""cpu": 1"#, r#""cpu": "two""#, "/workloads/hello/cpu", "invalid type");
        check(r#""cpu": 1"#, r#""cpus": 1"#, "/workloads/hello/cpus", "unknown field");
        check("256MiB", "256MB", "/workloads/hello/memory", "is no size");
        check("256MiB", "1MiB", "/workloads/hello/memory", "from 64MiB");
        check("256MiB", "100000001", "/workloads/hello/memory", "a multiple of 1MiB");
        check("builtin:hello", "builtin:bye", "/workloads/hello/image", "unknown variant");
        check(
            r#""volume": "data""#,
            r#""volume": "dota""#,
            "/workloads/hello/disks/0/volume",
            "names no volume",
        );
        check(
            r#""volume": "data""#,
            r#""volume": "hello""#,
            "/workloads/hello/disks/0/volume",
            "names no volume",
        );
        check(
            r#"[{"volume": "data"}]"#,
            r#"[{"volume": "data"}, {"volume": "data"}]"#,
            "/workloads/hello/disks/1/volume",
            "one user",
        );
        check(
            r#""type": "volume""#,
            r#""type": "floppy""#,
            "/workloads/data/type",
            "`vm` or `volume`",
        );
        check(r#""data": {"#, r#""Da/ta": {"#, "/workloads/Da~1ta", "is no name");
        check("1GiB", "1MiB", "/workloads/data/size", "from 16MiB");
        let from = |text: &str| format!(r#""class": "ssd", "from": "{text}""#);
        check(r#""class": "ssd""#, &from("a b"), "/workloads/data/from", "is no name");
        check(r#""class": "ssd""#, &from("data@monday"), "/workloads/data/from", "from itself");
        check(r#""class": "ssd""#, &from("hello"), "/workloads/data/from", "names no volume");
        check(r#""nat""#, r#""lan""#, "/workloads/hello/networks/0/network", "unknown variant");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(body: Vec<u8>) {
            let _ = Deployment::from_json(&body);
        }

        #[test]
        fn any_cut_or_changed_sample_is_judged_without_a_panic(at in 0..SAMPLE.len(), byte: u8) {
            let mut body = SAMPLE.as_bytes().to_vec();
            let _ = Deployment::from_json(&body[..at]);
            body[at] = byte;
            let _ = Deployment::from_json(&body);
        }
    }
}
