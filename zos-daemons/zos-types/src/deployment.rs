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
use crate::volume::Footprint;

/// The largest body of a deployment, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// The most workloads in one deployment.
pub const MAX_WORKLOADS: usize = 64;
/// The most disks, the most shares and the most networks of one VM.
pub const MAX_DEVICES: usize = 8;
/// Bytes of a share's tag at most (virtio 1.2, section 5.11.4).
pub const MAX_TAG: usize = 36;
/// The smallest share: below it btrfs doesn't grow.
pub const MIN_SHARE: u64 = 256 * MIB;

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
    /// A folder that several VMs may have at once: a volume with a file system of the node's on it.
    Share(Volume),
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
    /// Its shared folders: the guest mounts each by its tag (`mount -t virtiofs TAG FOLDER`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareOf>,
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

/// A shared folder of a VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareOf {
    /// A `share` workload of the same deployment. Other VMs of it may have it, too.
    pub share: Name,
    /// What the guest mounts it by, at most 36 bytes; the share's name without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 36)]
    pub tag: Option<String>,
}

impl ShareOf {
    /// What the guest mounts it by.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(self.share.as_str())
    }
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

/// What a volume holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A VM's disk: what lies on it is the guest's alone, and never read by the node.
    #[default]
    Disk,
    /// A file system of the node's own, served as a folder.
    Share,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Disk => "disk",
            Self::Share => "share",
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
                Workload::Volume(volume) | Workload::Share(volume) => {
                    let size = volume.size.0;
                    let is_share = matches!(workload, Workload::Share(_));
                    rule(
                        is_share && size < MIN_SHARE,
                        at("size"),
                        "at least 256MiB for a share".into(),
                    );
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
                    for (field, count) in [
                        ("disks", vm.disks.len()),
                        ("networks", vm.networks.len()),
                        ("shares", vm.shares.len()),
                    ] {
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
                    for (i, mount) in vm.shares.iter().enumerate() {
                        rule(
                            !matches!(self.workloads.get(&mount.share), Some(Workload::Share(_))),
                            at(&format!("shares/{i}/share")),
                            format!("names no share of this deployment: `{}`", mount.share),
                        );
                        let tag = mount.tag();
                        rule(
                            tag.is_empty()
                                || tag.len() > MAX_TAG
                                || tag.chars().any(char::is_control),
                            at(&format!("shares/{i}/tag")),
                            format!("from 1 to {MAX_TAG} bytes, and no control characters"),
                        );
                        let before = vm.shares.iter().take(i);
                        let twice = before.clone().any(|other| other.share == mount.share);
                        rule(
                            twice,
                            at(&format!("shares/{i}/share")),
                            format!("the VM has `{}` already", mount.share),
                        );
                        let twice = before.clone().any(|other| other.tag() == tag);
                        rule(
                            twice,
                            at(&format!("shares/{i}/tag")),
                            format!("the VM has the tag `{tag}` already"),
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
    /// Memory that it is charged, and that its cgroup is held to: the guest's, for the process
    /// around it 24 MiB and 1/128 of the guest's (page tables on both sides, threads, the console's
    /// ring, buffers), and for the server of each share [`Vm::share_charged`]. It is not billed.
    pub fn charged(&self) -> Bytes {
        let shares = self.share_charged().0.saturating_mul(self.shares.len() as u64);
        let around = (self.memory.0 / 128).saturating_add(24 * MIB).saturating_add(shares);
        Bytes(self.memory.0.saturating_add(around))
    }

    /// Memory that the server of one share is charged: 48 MiB and 1/32 of the guest's, since it and
    /// the kernel remember each file that the guest knows of.
    pub fn share_charged(&self) -> Bytes {
        Bytes((self.memory.0 / 32).saturating_add(48 * MIB))
    }
}

impl Volume {
    /// What is set aside for it: each copy with its checksums and its key. It is more than what is billed.
    pub fn charged(&self) -> Resources {
        self.class.holds(Footprint::of(self.size, self.integrity).total())
    }

    /// What is billed for it: its size, with `repair` twice.
    pub fn resources(&self) -> Resources {
        self.class.holds(self.integrity.billed(self.size))
    }
}

impl Class {
    /// So much of this class.
    pub fn holds(self, size: Bytes) -> Resources {
        match self {
            Self::Ssd => Resources { sru: size, ..Resources::default() },
            Self::Hdd => Resources { hru: size, ..Resources::default() },
        }
    }
}

impl Integrity {
    /// What is billed for a volume or a snapshot of this size: its copies, not their checksums.
    pub fn billed(self, size: Bytes) -> Bytes {
        let copies = Footprint::of(size, self).copies;
        Bytes(size.0.saturating_mul(copies.into()))
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
            Some("share") => fields(rest, pointer).map(Self::Share),
            _ => {
                let rule = "must be `vm`, `volume` or `share`";
                Err(FieldError::new(format!("{pointer}/type"), rule))
            }
        }
    }

    /// What it is charged: its resources, a VM with [`Vm::charged`] for its memory, a volume with
    /// [`Volume::charged`].
    pub fn charged(&self) -> Resources {
        match self {
            Self::Vm(vm) => Resources { mru: vm.charged(), ..self.resources() },
            Self::Volume(volume) | Self::Share(volume) => volume.charged(),
        }
    }

    /// It as a volume, with what that holds; none for what runs.
    pub fn volume(&self) -> Option<(&Volume, Content)> {
        match self {
            Self::Vm(_) => None,
            Self::Volume(volume) => Some((volume, Content::Disk)),
            Self::Share(volume) => Some((volume, Content::Share)),
        }
    }

    /// Its type, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vm(_) => "vm",
            Self::Volume(_) => "volume",
            Self::Share(_) => "share",
        }
    }

    /// What it takes of the node, as billed.
    pub fn resources(&self) -> Resources {
        match self {
            Self::Vm(vm) => {
                Resources { cru: vm.cpu.into(), mru: vm.memory, ..Resources::default() }
            }
            Self::Volume(volume) | Self::Share(volume) => volume.resources(),
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
    fn shares_are_of_the_deployment_and_told_apart_by_their_tags() {
        let read = |shares: &str, kind: &str, size: &str| {
            let text = format!(
                r#"{{"version": 1, "workloads": {{
                "web": {{"type": "vm", "cpu": 1, "memory": "256MiB", "image": "builtin:hello",
                         "shares": {shares}}},
                "files": {{"type": "{kind}", "size": "{size}", "class": "hdd"}},
                "other": {{"type": "share", "size": "1GiB"}}}}}}"#
            );
            Deployment::from_json(text.as_bytes())
        };
        let whole =
            read(r#"[{"share": "files"}, {"share": "other", "tag": "o"}]"#, "share", "2GiB");
        let whole = whole.unwrap();
        let Workload::Vm(vm) = &whole.workloads[&"web".parse().unwrap()] else { panic!() };
        assert_eq!(vm.shares.iter().map(ShareOf::tag).collect::<Vec<_>>(), ["files", "o"]);
        assert_eq!((whole.resources().sru.0, whole.resources().hru.0), (GIB, 2 * GIB));
        // 24 MiB and 2 MiB for the VMM, twice 48 MiB and 8 MiB for the servers.
        assert_eq!(vm.charged().0, (256 + 26 + 2 * 56) * MIB);
        let check = |shares: &str, kind: &str, size: &str, pointer: &str, rule: &str| {
            let errors = read(shares, kind, size).unwrap_err();
            let found = errors.iter().any(|e| e.pointer == pointer && e.rule.contains(rule));
            assert!(found, "{shares}: {errors:?}");
        };
        let at = |field: &str| format!("/workloads/web/shares/{field}");
        let one = r#"[{"share": "files"}]"#;
        check(one, "volume", "1GiB", &at("0/share"), "names no share");
        check(r#"[{"share": "web"}]"#, "share", "1GiB", &at("0/share"), "names no share");
        check(one, "share", "64MiB", "/workloads/files/size", "at least 256MiB");
        let twice = r#"[{"share": "files"}, {"share": "files", "tag": "x"}]"#;
        check(twice, "share", "1GiB", &at("1/share"), "already");
        let twice = r#"[{"share": "files"}, {"share": "other", "tag": "files"}]"#;
        check(twice, "share", "1GiB", &at("1/tag"), "already");
        for tag in ["", "\\n", &"x".repeat(37)] {
            let shares = format!(r#"[{{"share": "files", "tag": "{tag}"}}]"#);
            check(&shares, "share", "1GiB", &at("0/tag"), "from 1 to 36 bytes");
        }
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
            "`vm`, `volume` or `share`",
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
