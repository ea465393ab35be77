//! A simulated network: one link with a lease, and taps that lead nowhere.
//!
//! ```text
//!  netd's own router ── Command ──▶ Wires ── netd's own table: who has which address
//! ```
//! Places in the table are drawn from the VM's name, so each VM has the same address at each boot.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use netd::links::{mac_text, parse_mac};
use netd::node::Command;
use netd::vm::subnet;
use netd::vm::table::{Row, Table};
use tokio::sync::{mpsc, watch};
use zos_api::local::net::Tap;
use zos_daemon::{CallError, Daemon, FaultBoard};
use zos_types::Fault;
use zos_types::machine::{Link, Network};

/// A node's wires. They outlive netd, as taps do on a node. Clones are the same wires.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    /// The node's number, which its addresses come from.
    number: u16,
    carrier: bool,
    net: Ipv4Net,
    table: Arc<Mutex<Table>>,
}

impl Wires {
    /// Wires without taps. Without a carrier there is no address.
    pub(crate) fn new(number: u16, carrier: bool) -> Self {
        let net = subnet::choose(None, &[]).unwrap_or_default();
        Self { number, carrier, net, table: Arc::default() }
    }

    /// The address that DHCP gives to a hardware address, with its prefix length.
    pub(crate) fn lease(&self, mac: &str) -> Option<String> {
        let row = self.table().by_mac(parse_mac(mac)?)?.clone();
        Some(format!("{}/{}", row.address(self.net), self.net.prefix_len()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self) -> Network {
        let [high, low] = self.number.to_be_bytes();
        // Documentation addresses (RFC 5737, RFC 2544): no machine has them.
        let own = Ipv4Addr::new(198, 18, high, low);
        let link = |addresses, detail: &str| Link {
            name: "eth0".into(),
            mac: mac_text([0x02, 0x5a, 0x4f, 0x53, high, low]),
            carrier: self.carrier,
            addresses,
            detail: detail.into(),
        };
        if !self.carrier {
            return Network { links: vec![link(Vec::new(), "no cable")], ..Network::default() };
        }
        let gateway: IpAddr = Ipv4Addr::new(198, 19, 255, 254).into();
        let links = vec![link(vec![format!("{own}/15")], "dhcp: bound (simulated)")];
        Network { links, gateway: Some(gateway), dns: vec![gateway] }
    }

    fn tap(&self, row: &Row) -> Tap {
        Tap {
            twin: row.twin,
            name: row.name.clone(),
            index: row.index,
            device: row.device.clone(),
            mac: mac_text(row.mac),
            address: row.address(self.net).into(),
            addresses: vec![row.address(self.net).into()],
        }
    }

    fn take(&self, command: Command) {
        match command {
            Command::Describe(reply) => drop(reply.send(self.describe())),
            Command::Open(twin, name, index, queues, reply) => {
                let open = || {
                    let mut table = self.table();
                    let row = table.place(&self.number.to_be_bytes(), &twin, &name, index);
                    let row = row.map_err(|error| CallError::failed(&error))?;
                    table.insert(row.clone());
                    let fd = |_| File::open("/dev/null").map(OwnedFd::from);
                    let fds = (0..queues).map(fd).collect::<Result<_, _>>();
                    Ok((self.tap(&row), fds.map_err(|error| CallError::failed(&error))?))
                };
                drop(reply.send(open()));
            }
            Command::List(reply) => {
                let taps = self.table().rows().map(|row| self.tap(row)).collect();
                drop(reply.send(taps));
            }
            Command::Close(twin, name, reply) => {
                self.table().remove(&twin, &name);
                drop(reply.send(Ok(())));
            }
            Command::State(..) => {}
        }
    }

    fn show_faults(&self, faults: &FaultBoard) {
        let unplugged = (!self.carrier)
            .then(|| Fault::new("net.no-carrier", "no cable is plugged in (simulated)"));
        faults.replace("net.", unplugged);
    }
}

/// The daemon's life: netd's answers over simulated wires.
pub(crate) async fn run(daemon: Daemon, wires: Wires) -> anyhow::Result<()> {
    wires.show_faults(&daemon.faults);
    let (commands, mut inbox) = mpsc::channel(16);
    let (_known, known) = watch::channel(true);
    tokio::spawn(async move {
        while let Some(command) = inbox.recv().await {
            wires.take(command);
        }
    });
    daemon.serve(netd::router(commands, known)).await?;
    Ok(())
}
