//! `org.zos.Vm`: virtual machines.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zos_types::deployment::Vm;
use zos_types::status::State;
use zos_types::{Fault, TwinId, WorkloadName};

use super::{Change, Done, interface};

interface! {
    /// Virtual machines.
    "Vm" on "/run/zos/vm.sock";
    /// Makes a VM run as described, or finds it so. Its volumes must exist. Answers when that is
    /// noted; the VM's state tells the rest.
    Ensure [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
        /// What it is to be.
        vm: Vm,
    ) -> Ensured;
    /// Stops a VM, orderly first, and forgets it. Answers when it is gone; done also when there is
    /// none.
    Remove [Provision] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
    ) -> Done;
    /// Every VM.
    List [Provision Api Console] -> Vms;
    /// A VM's console from a position on, as far as it is still held (the last 256 KiB). With
    /// `follow` it is a stream (`more`) that ends with the VM's removal.
    ReadLog [Api] (
        /// Whose it is.
        twin: TwinId,
        /// Which.
        name: WorkloadName,
        /// Bytes ever written before what is wanted; 0 for all that is held.
        from: u64,
        /// Whether to wait for more.
        follow: bool,
    ) -> LogChunk;
    /// Stops every VM orderly, for the node goes down. Answers when they are gone or the deadline
    /// has passed. None is started again afterwards.
    Drain [] (
        /// In milliseconds.
        deadline_ms: u64,
    ) -> Done;
}

/// Whether a VM is new.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ensured {
    /// Whether anything changed.
    pub change: Change,
}

/// Every VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vms {
    /// By twin and name.
    pub vms: Vec<VmStatus>,
}

/// A VM as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VmStatus {
    /// Whose it is.
    pub twin: TwinId,
    /// Which.
    pub name: WorkloadName,
    /// What it is to be.
    pub vm: Vm,
    /// Its state.
    #[serde(flatten)]
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// How often it was started again.
    pub restarts: u32,
    /// Its address on its first network.
    pub address: Option<IpAddr>,
    /// What keeps it from running, by name; the words are in a degraded state too.
    #[serde(default)]
    pub trouble: Option<Fault>,
}

/// A piece of a VM's console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogChunk {
    /// Where it begins: bytes ever written before it.
    pub from: u64,
    /// In base64; a serial port is not UTF-8.
    pub data: String,
    /// Where it ends; what to ask from next.
    pub next: u64,
}
