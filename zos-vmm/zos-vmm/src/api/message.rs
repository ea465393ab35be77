//! What the two threads say to each other, and what of it is JSON.

use super::config::VmConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `vmm.ping`
    Ping,
    /// `vmm.shutdown`: the process ends.
    End,
    /// `vm.create`
    Create(Box<VmConfig>),
    /// `vm.delete`
    Delete,
    /// `vm.boot`
    Boot,
    /// `vm.info`
    Info,
    /// `vm.counters`
    Counters,
    /// `vm.pause`
    Pause,
    /// `vm.resume`
    Resume,
    /// `vm.shutdown`: the VM ends, at once.
    Shutdown,
    /// `vm.reboot`: the VM ends at once and starts anew.
    Reboot,
    /// `vm.power-button`
    PowerButton,
    /// `vm.resize`
    Resize(Resize),
}

/// What became of it.
pub type Reply = Result<Answer, Refusal>;

/// It was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// 204: nothing to tell.
    Done,
    /// To `vmm.ping`.
    Ping(Ping),
    /// To `vm.info`.
    Info(Box<Info>),
    /// To `vm.counters`: by device, by name.
    Counters(BTreeMap<String, BTreeMap<String, u64>>),
}

/// It wasn't: a status, and words from the outermost to the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The body: a JSON array of these.
    pub words: Vec<String>,
}

impl Refusal {
    /// With one line of words.
    pub fn new(status: u16, words: impl Into<String>) -> Self {
        Self { status, words: vec![words.into()] }
    }

    /// More words, closer to the cause.
    #[must_use]
    pub fn because(mut self, words: impl Into<String>) -> Self {
        self.words.push(words.into());
        self
    }
}

/// This program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = VmmPingResponse))]
pub struct Ping {
    /// Name and version.
    pub build_version: String,
    /// Version.
    pub version: String,
    /// Its process id, as it sees itself.
    pub pid: u32,
    /// What it was built with: `kvm`.
    pub features: Vec<String>,
}

/// The VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = VmInfo))]
pub struct Info {
    /// What it is made of. What was passed as a descriptor has no path.
    pub config: VmConfig,
    /// What it does.
    pub state: State,
    /// Bytes of memory less what it gave back by its balloon.
    pub memory_actual_size: u64,
    /// Its devices by name; empty while it isn't running.
    pub device_tree: BTreeMap<String, Node>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = DeviceNode))]
pub struct Node {
    /// Its name.
    pub id: String,
    /// Always empty.
    pub resources: Vec<String>,
    /// Always empty.
    pub children: Vec<String>,
    /// Its place on the PCI bus.
    pub pci_bdf: Option<String>,
}

/// What a VM does. One that was shut down is `Created` again, as Cloud Hypervisor says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = VmState))]
pub enum State {
    /// There is a configuration and no machine.
    Created,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
}

/// A change of size. Of the balloon alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = VmResize))]
pub struct Resize {
    /// Not there: 501.
    pub desired_vcpus: Option<u16>,
    /// Not there: 501.
    pub desired_ram: Option<u64>,
    /// Bytes that the guest shall give back.
    pub desired_balloon: Option<u64>,
}
