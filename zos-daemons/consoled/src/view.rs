//! What the screen shows. What is not known (yet) is none.

use zos_api::local::capacity::Measured;
use zos_types::capacity::Resources;
use zos_types::machine::{Network, Service};
use zos_types::{Fault, NodeId};

/// The node as a farmer sees it.
#[derive(Clone, Default, Debug)]
pub(crate) struct View {
    /// The version of ZOS.
    pub version: String,
    /// The farm, as the settings say.
    pub farm: Option<String>,
    /// The node's id, and whether it is lost with the next boot.
    pub identity: Option<(NodeId, bool)>,
    /// Seconds since the kernel started.
    pub uptime: u64,
    /// Links and addresses.
    pub network: Option<Network>,
    /// What the machine has.
    pub measured: Option<Measured>,
    /// What twins hold.
    pub used: Option<Resources>,
    /// VMs that run, and all.
    pub vms: Option<(usize, usize)>,
    /// The services in their order.
    pub services: Vec<Service>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}
