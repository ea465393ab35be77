//! `org.zos.Net`: links, addresses, and the taps of VMs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zos_types::deployment::NetworkKind;
use zos_types::machine::Network;
use zos_types::{TwinId, WorkloadName};

use super::{Done, interface};

interface! {
    /// Links, addresses, and the taps of VMs.
    "Net" on "/run/zos/net.sock";
    /// The node's links, addresses, way out and name servers.
    Describe [Api Console Vm] -> Network;
    /// Makes a VM's tap on a network, or finds it made, and passes a descriptor for each of its
    /// queues beside the reply: with virtio-net header, not persistent, so it lives as long as
    /// somebody holds one. A guest may send from this hardware address only. Busy while another
    /// process of the same VM holds it.
    OpenTap [Vm] (
        /// Whose it is.
        twin: TwinId,
        /// Which VM.
        name: WorkloadName,
        /// Its place among the VM's networks, from 0.
        index: u32,
        /// Which network.
        network: NetworkKind,
        /// Pairs of queues that the VM uses, 1 to 16.
        queues: u32,
    ) -> Tap;
    /// Every tap.
    ListTaps [Vm Api Console] -> Taps;
    /// Forgets a VM's taps and their leases, once it is gone for good. Done also when there is none.
    CloseTaps [Vm] (
        /// Whose it is.
        twin: TwinId,
        /// Which VM.
        name: WorkloadName,
    ) -> Done;
}

/// A VM's place on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tap {
    /// Whose it is.
    pub twin: TwinId,
    /// Which VM.
    pub name: WorkloadName,
    /// Its place among the VM's networks.
    pub index: u32,
    /// The interface on the node.
    pub device: String,
    /// The guest's hardware address: the same at each start of the same VM.
    pub mac: String,
    /// The address that DHCP gives it: the same at each start of the same VM.
    pub address: IpAddr,
    /// All addresses that DHCP may ever give it: the VMs' network moves when an uplink turns out to
    /// be in it, to one of a few others.
    pub addresses: Vec<IpAddr>,
}

/// Every tap.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taps {
    /// By twin, name and index.
    pub taps: Vec<Tap>,
}
