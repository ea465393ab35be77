//! What the screen shows, asked together from those who know. What one does not tell in time stays
//! as it was last known: the screen is there also when something hangs.

use std::time::Duration;

use zos_api::local::capacity::{Measure, Measured};
use zos_api::local::identity::{self, Identity};
use zos_api::local::init::{self, Boot, ListUnits, Unit, UnitKind};
use zos_api::local::provision::{Usage, UsageReply};
use zos_api::local::service::ListFaults;
use zos_api::local::storage::ListDisks;
use zos_api::local::vm::{List, VmStatus};
use zos_api::local::{CallError, INTERFACES, net};
use zos_daemon::Bus;
use zos_types::Fault;
use zos_types::disk::Disk;
use zos_types::machine::Network;

/// How long one may take to tell.
const PATIENCE: Duration = Duration::from_secs(2);

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The boot as PID 1 knows it.
    pub boot: Option<Boot>,
    /// Who the node is.
    pub identity: Option<Identity>,
    /// Its links and addresses.
    pub network: Option<Network>,
    /// What it has.
    pub measured: Option<Measured>,
    /// What twins hold of it.
    pub usage: Option<UsageReply>,
    /// Its VMs.
    pub vms: Option<Vec<VmStatus>>,
    /// Its services.
    pub services: Vec<Unit>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl View {
    /// Asks all anew.
    pub async fn refresh(&mut self, bus: &Bus) {
        let bus = &bus.within(PATIENCE);
        let (boot, identity, network, measured, usage, vms, units, disks, faults) = tokio::join!(
            bus.call(init::Describe {}),
            bus.call(identity::Describe {}),
            bus.call(net::Describe {}),
            bus.call(Measure {}),
            bus.call(Usage {}),
            bus.call(List {}),
            bus.call(ListUnits {}),
            bus.call(ListDisks {}),
            faults(bus),
        );
        keep(&mut self.boot, boot);
        keep(&mut self.identity, identity);
        keep(&mut self.network, network);
        keep(&mut self.measured, measured);
        keep(&mut self.usage, usage);
        keep(&mut self.vms, vms.map(|vms| vms.vms));
        if let Ok(units) = units {
            let services = units.units.into_iter();
            self.services = services.filter(|unit| unit.kind == UnitKind::Service).collect();
        }
        if let Ok(disks) = disks {
            self.disks = disks.disks;
        }
        self.faults = self.boot.iter().flat_map(|boot| boot.faults.clone()).collect();
        self.faults.extend(faults);
        self.faults.sort();
        self.faults.dedup();
    }
}

fn keep<T>(known: &mut Option<T>, told: Result<T, CallError>) {
    if let Ok(told) = told {
        *known = Some(told);
    }
}

/// What each daemon sees wrong. One that doesn't answer is seen among the services.
async fn faults(bus: &Bus) -> Vec<Fault> {
    let daemons =
        INTERFACES.iter().filter(|i| !i.socket.is_empty() && i.name != init::INTERFACE.name);
    // apid and consoled itself have no interface of their own, but tell their faults as all do.
    let others = ["/run/zos/api.sock", "/run/zos/console.sock"];
    let sockets = daemons.map(|interface| interface.socket).chain(others);
    let mut asked = tokio::task::JoinSet::new();
    for socket in sockets {
        let bus = bus.clone();
        asked.spawn(async move { bus.call_on(socket, ListFaults {}).await });
    }
    asked.join_all().await.into_iter().flatten().flat_map(|faults| faults.faults).collect()
}
