//! The network `nat` of the node: the table of taps in its store, the subnet, the bridge.
//!
//! ```text
//!  no state yet ── open_state ──▶ known ── serve (rules stand) ──▶ Bridge ── open_tap ──▶ descriptor
//!       taps can't be asked for       subnet chosen              DHCP, DNS
//! ```

use std::net::IpAddr;

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, watch};
use zos_api::local::net::Tap;
use zos_daemon::store::{Copies, Migrations, Store, StoreError};
use zos_daemon::{CallError, FaultBoard};
use zos_types::{Fault, TwinId, WorkloadName};

use crate::firewall::Pin;
use crate::kernel::{Kernel, KernelError};
use crate::links::mac_text;
use crate::node::Opened;
use crate::vm::bridge::Bridge;
use crate::vm::dns::Servers;
use crate::vm::subnet;
use crate::vm::table::{Row, Table};

/// None yet: what is written is schema 1.
const MIGRATIONS: Migrations = &[];
/// Most queues of a tap.
const MOST_QUEUES: u32 = 16;
const NETWORK: &str = "network";
const TAPS: &str = "taps";

/// What is kept.
#[derive(Debug)]
struct Kept {
    store: Store,
    seed: Vec<u8>,
    table: Table,
}

/// The VM network's owner.
#[derive(Debug)]
pub struct Nat {
    kernel: Kernel,
    faults: FaultBoard,
    servers: Servers,
    guests: mpsc::Sender<Vec<u8>>,
    announce: watch::Sender<bool>,
    copies: Option<Copies>,
    kept: Option<Kept>,
    subnet: Option<Ipv4Net>,
    bridge: Option<Bridge>,
}

impl Nat {
    /// Nothing is known yet.
    pub fn new(
        kernel: Kernel,
        faults: FaultBoard,
        servers: Servers,
        guests: mpsc::Sender<Vec<u8>>,
        announce: watch::Sender<bool>,
    ) -> Self {
        let (copies, kept, subnet, bridge) = (None, None, None, None);
        Self { kernel, faults, servers, guests, announce, copies, kept, subnet, bridge }
    }

    /// Where the state lies, until it is open: from then on the store follows by itself.
    pub fn set_copies(&mut self, copies: Copies) {
        self.copies = Some(copies);
    }

    /// The store, once it is open.
    pub fn store(&self) -> Option<Store> {
        self.kept.as_ref().map(|kept| kept.store.clone())
    }

    /// Opens the state if it is there and isn't open. Whether there is nothing left to try.
    pub fn open_state(&mut self) -> bool {
        let (Some(copies), None) = (&self.copies, &self.kept) else { return true };
        match open(copies.clone()) {
            Ok((kept, subnet)) => {
                for path in kept.store.repaired() {
                    let path = path.display();
                    let detail = format!(
                        "a copy of the network's state could not be read and was renewed from the \
                         other; what lay there is kept as {path}"
                    );
                    self.faults.raise(Fault::new(format!("net.unreadable:{path}"), detail));
                }
                self.kept = Some(kept);
                self.subnet = subnet;
                self.faults.clear("net.state");
                self.announce.send_replace(true);
            }
            Err(error) => {
                let cause = CallError::failed(&error);
                let detail = format!("VMs have no network, since its state can't be read: {cause}");
                self.faults.raise(Fault::new("net.state", detail));
            }
        }
        self.known()
    }

    /// Whether the table of taps is known.
    pub fn known(&self) -> bool {
        self.kept.is_some()
    }

    /// The VMs' network, once it is chosen.
    pub fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet
    }

    /// Whether an address lies in the VMs' network.
    pub fn holds(&self, address: &IpAddr) -> bool {
        matches!((self.subnet, address), (Some(net), IpAddr::V4(address)) if net.contains(address))
    }

    /// Chooses the VMs' network beside those of the uplinks, once the state is known.
    pub fn choose_subnet(&mut self, used: &[Ipv4Net]) {
        let Some(kept) = &self.kept else { return };
        let chosen = subnet::choose(self.subnet, used);
        if chosen == self.subnet {
            return;
        }
        if let Some(net) = chosen {
            tracing::info!("VMs have the network {net}");
            if let Err(error) = kept.store.write(|tx| tx.put(NETWORK, "subnet", &net.to_string())) {
                tracing::warn!("{}", CallError::failed(&error));
            }
        }
        self.subnet = chosen;
        self.bridge = None;
    }

    /// Whether no network is left for VMs.
    pub fn lacks_subnet(&self) -> bool {
        self.known() && self.subnet.is_none()
    }

    /// What the firewall is to pin.
    pub fn pins(&self) -> Vec<Pin> {
        let (Some(kept), Some(net)) = (&self.kept, self.subnet) else { return Vec::new() };
        let pin =
            |row: &Row| Pin { device: row.device.clone(), mac: row.mac, address: row.address(net) };
        kept.table.rows().map(pin).collect()
    }

    /// Brings the bridge up with what serves on it, and the taps that VMs still hold. The rules
    /// must stand.
    pub async fn serve(&mut self) -> Result<(), KernelError> {
        let (Some(kept), Some(net)) = (&self.kept, self.subnet) else { return Ok(()) };
        if self.bridge.as_ref().is_some_and(|bridge| bridge.net == net && bridge.serves()) {
            return Ok(());
        }
        self.bridge = None;
        let mut mac = [2; 6];
        mac[1..].copy_from_slice(&kept.seed[..5]);
        let (servers, guests) = (self.servers.clone(), self.guests.clone());
        let bridge = Bridge::open(&self.kernel, mac, net, servers, guests).await?;
        // Taps of an earlier life, held by VMs that run on.
        for row in kept.table.rows() {
            if self.kernel.index(&row.device).await?.is_some() {
                bridge.attach(&self.kernel, row).await?;
            }
        }
        self.bridge = Some(bridge);
        Ok(())
    }

    /// Answers a guest's DHCP message.
    pub fn guest(&self, message: &[u8]) {
        if let (Some(kept), Some(bridge)) = (&self.kept, &self.bridge) {
            bridge.answer(&kept.table, message);
        }
    }

    /// A VM's place, durable when this returns.
    pub fn place(
        &mut self,
        twin: &TwinId,
        name: &WorkloadName,
        index: u32,
    ) -> Result<Row, CallError> {
        let Some(kept) = &mut self.kept else {
            return Err(CallError::busy("the state isn't there yet"));
        };
        if let Some(row) = kept.table.get(twin, name, index) {
            return Ok(row.clone());
        }
        let row = kept
            .table
            .place(&kept.seed, twin, name, index)
            .map_err(|full| CallError::Full { detail: full.to_string(), errors: Vec::new() })?;
        let written = kept.store.write(|tx| tx.put(TAPS, &row.key(), &row));
        written.map_err(|e| CallError::failed(&e))?;
        kept.table.insert(row.clone());
        Ok(row)
    }

    /// Makes a placed tap. The rules must pin it already.
    pub async fn open_tap(&mut self, row: &Row, queues: u32) -> Result<Opened, CallError> {
        let (Some(bridge), Some(net)) = (&self.bridge, self.subnet) else {
            return Err(CallError::busy("the VM network isn't up"));
        };
        let queues = match queues {
            1..=MOST_QUEUES => queues as usize,
            _ => return Err(CallError::invalid("queues: must be 1 to 16")),
        };
        // It lives as long as somebody holds it: a VMM of the same VM does. The kernel says so only
        // of a tap with one queue.
        let found = self.kernel.index(&row.device).await.map_err(|e| CallError::failed(&e))?;
        if found.is_some() {
            return Err(CallError::busy(format!("{} is still in use", row.device)));
        }
        let opened = match queues {
            1 => zos_host::tap::open(&row.device).map(|(fd, _)| vec![fd]),
            _ => zos_host::tap::open_queues(&row.device, queues),
        };
        let fds = opened.map_err(|e| CallError::failed(&e))?;
        bridge.attach(&self.kernel, row).await.map_err(|e| CallError::failed(&e))?;
        Ok((tap(row, net), fds))
    }

    /// Every tap.
    pub fn list(&self) -> Vec<Tap> {
        let (Some(kept), Some(net)) = (&self.kept, self.subnet) else { return Vec::new() };
        kept.table.rows().map(|row| tap(row, net)).collect()
    }

    /// Forgets a VM's taps.
    pub async fn close(&mut self, twin: &TwinId, name: &WorkloadName) -> Result<(), CallError> {
        let Some(kept) = &mut self.kept else {
            return Err(CallError::busy("the state isn't there yet"));
        };
        let gone: Vec<Row> =
            kept.table.rows().filter(|r| r.twin == *twin && r.name == *name).cloned().collect();
        for row in &gone {
            let removed = self.kernel.remove(&row.device).await;
            removed.map_err(|e| CallError::failed(&e))?;
        }
        let written =
            kept.store.write(|tx| gone.iter().try_for_each(|r| tx.delete(TAPS, &r.key())));
        written.map_err(|e| CallError::failed(&e))?;
        kept.table.remove(twin, name);
        Ok(())
    }
}

fn open(copies: Copies) -> Result<(Kept, Option<Ipv4Net>), StoreError> {
    let store = Store::open(copies, "net", MIGRATIONS)?;
    let seed = match store.get::<Vec<u8>>(NETWORK, "seed")?.filter(|seed| seed.len() >= 16) {
        Some(seed) => seed,
        None => {
            let mut seed = vec![0; 16];
            let _ = getrandom::fill(&mut seed);
            store.write(|tx| tx.put(NETWORK, "seed", &seed))?;
            seed
        }
    };
    let subnet = store.get::<String>(NETWORK, "subnet")?.and_then(|text| text.parse().ok());
    let rows = store.list::<Row>(TAPS)?.into_iter().map(|(_, row)| row);
    let table = Table::new(rows);
    Ok((Kept { store, seed, table }, subnet))
}

fn tap(row: &Row, net: Ipv4Net) -> Tap {
    Tap {
        twin: row.twin,
        name: row.name.clone(),
        index: row.index,
        device: row.device.clone(),
        mac: mac_text(row.mac),
        address: IpAddr::V4(row.address(net)),
        addresses: subnet::candidates().map(|net| IpAddr::V4(row.address(net))).collect(),
    }
}
