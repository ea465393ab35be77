//! The network: links up, an address for eth0 by DHCPv4, for ever.
//!
//! ```text
//!  lo, eth0 up ─▶ dhcp::Client ── sends ──▶ UDP 68 → 255.255.255.255:67
//!                      ▲  └── Bound(lease) ─▶ address, route, /etc/resolv.conf
//!                      └──── receives ◀── UDP
//! ```

mod dhcp;
mod link;
mod packet;

use dhcp::{Change, Client};
use link::Link;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use serde::Serialize;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const DEVICE: &str = "eth0";
const CLIENT_PORT: u16 = 68;
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::BROADCAST), 67);
/// Largest answer that is read: more than any Ethernet frame.
const LONGEST_PACKET: usize = 2048;

/// Where DHCP stands, for the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// In words.
    pub(crate) words: String,
    /// The router.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub(crate) dns: Vec<Ipv4Addr>,
}

/// Told by the network's thread, read by the report.
#[derive(Debug, Default)]
pub(crate) struct Network {
    status: Mutex<Status>,
}

impl Network {
    /// As it is now.
    pub(crate) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// An interface, as the kernel has it.
#[derive(Debug, Serialize)]
pub(crate) struct Interface {
    /// `eth0` ...
    pub(crate) name: String,
    /// Hardware address.
    pub(crate) mac: String,
    /// `address/prefix`.
    pub(crate) addresses: Vec<String>,
}

/// Every interface but the loopback.
pub(crate) fn interfaces() -> Vec<Interface> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| fs::read_link(format!("/sys/class/net/{name}/device")).is_ok());
    names.sort_unstable();
    let addresses = link::addresses();
    let of = |name: &str| -> Vec<String> {
        addresses.iter().filter(|(owner, _)| owner == name).map(|(_, text)| text.clone()).collect()
    };
    names
        .into_iter()
        .map(|name| Interface {
            mac: link::mac_text(&name).unwrap_or_default(),
            addresses: of(&name),
            name,
        })
        .collect()
}

/// Gives an interface what the host wants it to have.
pub(crate) fn set_up(wanted: &zos_agent::Interface) -> Result<(), String> {
    let name = &wanted.name;
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{name}: {what}: {error}");
    // The name becomes part of a path.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(format!("`{name}` is no interface's name"));
    }
    let link = Link::find(name).map_err(|e| failed("find it", &e))?;
    if let Some(bytes) = wanted.mtu {
        link.set_mtu(bytes).map_err(|e| failed(&format!("packets of {bytes} bytes"), &e))?;
    }
    link.up().map_err(|e| failed("bring it up", &e))?;
    for (address, prefix) in &wanted.addresses {
        link.set_address(*address, *prefix)
            .map_err(|e| failed(&format!("address {address}/{prefix}"), &e))?;
    }
    for router in &wanted.gateways {
        link.set_static_route(*router)
            .map_err(|e| failed(&format!("default route by {router}"), &e))?;
    }
    if !wanted.name_servers.is_empty() {
        write_resolv_conf(&wanted.name_servers).map_err(|e| failed("name its servers", &e))?;
    }
    Ok(())
}

/// Starts the network's thread.
pub(crate) fn spawn(network: Arc<Network>) -> io::Result<()> {
    thread::Builder::new().name("network".into()).spawn(move || {
        if let Ok(lo) = Link::find("lo") {
            let _ = lo.up();
        }
        loop {
            let Err(error) = run(&network);
            network.set(Status { words: format!("failed: {error}"), ..Status::default() });
            thread::sleep(Duration::from_secs(5));
        }
    })?;
    Ok(())
}

fn run(network: &Network) -> io::Result<std::convert::Infallible> {
    let link = Link::find(DEVICE)?;
    link.up()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
    socket.set_broadcast(true)?;
    setsockopt(&socket, BindToDevice, &DEVICE.into())?;
    let mut client = Client::new(link::mac(DEVICE)?, random()?);
    let start = Instant::now();
    let mut packet = [0; LONGEST_PACKET];
    loop {
        let turn = client.poll(start.elapsed());
        if let Some(change) = turn.change {
            apply(&link, network, change)?;
        }
        if let Some(bytes) = turn.send {
            // A link that isn't up yet refuses: the client tries again by itself.
            let _ = socket.send_to(&bytes, SERVER);
        }
        let patience = turn.wake.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(patience))?;
        if let Ok((count, _)) = socket.recv_from(&mut packet)
            && let Some(change) = client.receive(start.elapsed(), &packet[..count])
        {
            apply(&link, network, change)?;
        }
    }
}

fn apply(link: &Link, network: &Network, change: Change) -> io::Result<()> {
    match change {
        Change::Searching => network.set(Status { words: "searching".into(), ..Status::default() }),
        Change::Bound(lease) => {
            link.set_address(lease.address.into(), lease.prefix)?;
            if let Some(router) = lease.router {
                link.set_default_route(router)?;
            }
            write_resolv_conf(&lease.dns)?;
            network.set(Status {
                words: format!("bound to {}/{}", lease.address, lease.prefix),
                gateway: lease.router,
                dns: lease.dns,
            });
        }
        Change::Lost(lease) => {
            link.remove_address(lease.address, lease.prefix)?;
            network.set(Status { words: "lost its lease".into(), ..Status::default() });
        }
    }
    Ok(())
}

fn write_resolv_conf(servers: &[impl std::fmt::Display]) -> io::Result<()> {
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write("/etc/resolv.conf", lines)
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}
