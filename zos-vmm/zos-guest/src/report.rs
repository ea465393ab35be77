//! What the guest sees, as JSON and as a line.

use crate::disks::Disk;
use crate::machine::{self, Memory};
use crate::network::{Interface, Network};
use crate::shares::{self, Share};
use crate::writer::{Writer, Writes};
use serde::Serialize;

/// The answer of `GET /`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kernel: String,
    uptime_ms: u64,
    cpus: usize,
    memory: Memory,
    disks: Vec<Disk>,
    /// Starts with the first disk, when it has a counter.
    boots: Option<u64>,
    /// The numbers on that disk, when it has room for them.
    writes: Option<Writes>,
    /// The shared folders.
    shares: Vec<shares::Now>,
    networks: Vec<Interface>,
    /// Where DHCP stands.
    dhcp: String,
    gateway: Option<std::net::Ipv4Addr>,
    dns: Vec<std::net::Ipv4Addr>,
}

impl Report {
    /// As it is now.
    pub(crate) fn now(
        disks: &[Disk],
        shares: &[Share],
        network: &Network,
        writer: Option<&Writer>,
    ) -> Self {
        let status = network.status();
        Self {
            kernel: machine::kernel(),
            uptime_ms: machine::uptime_ms(),
            cpus: machine::cpus(),
            memory: machine::memory(),
            boots: disks.iter().find_map(|disk| disk.boots),
            writes: writer.map(Writer::writes),
            disks: disks.to_vec(),
            shares: shares.iter().map(Share::now).collect(),
            networks: crate::network::interfaces(),
            dhcp: status.words,
            gateway: status.gateway,
            dns: status.dns,
        }
    }

    /// The line of each second.
    pub(crate) fn line(&self) -> String {
        let Self { uptime_ms, cpus, memory, .. } = self;
        let (seconds, tenths) = (uptime_ms / 1000, uptime_ms % 1000 / 100);
        let total = memory.total >> 20;
        let mut line = format!("up {seconds}.{tenths} s, cpus {cpus}, memory {total} MiB");
        for disk in &self.disks {
            line += &format!(", {} {} MiB", disk.name, disk.bytes >> 20);
            if let Some(boots) = disk.boots {
                line += &format!(" boots: {boots}");
            }
        }
        for share in &self.shares {
            match (&share.start, &share.starts) {
                (Some(start), Some(starts)) => {
                    line += &format!(", share {} start {start} of {starts}", share.tag);
                }
                _ => line += &format!(", share {} fails", share.tag),
            }
        }
        for network in &self.networks {
            let addresses = network.addresses.join(" ");
            line += &format!(", {} {addresses}", network.name);
        }
        if !self.networks.is_empty() {
            line += &format!(", dhcp {}", self.dhcp);
        }
        line
    }
}
