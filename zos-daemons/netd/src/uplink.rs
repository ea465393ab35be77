//! One way out: a NIC, or the VLAN on it, with its DHCP client or its fixed address.
//!
//! ```text
//!  Nic ── up, sysctls, VLAN? ──▶ Uplink ── Client ── actions ──▶ frames on the packet socket
//!                                  │                           └▶ Wish: the address it should have
//!                                  └─ carrier, addresses: seen in the kernel
//! ```
//! An uplink only wishes for an address: the node loads the firewall for it first. With several
//! uplinks each has its address and its way out; that of the lowest slot (NICs by their place on the
//! bus, then as they are plugged in) goes first, by metrics 100, 110, … , and one without a cable is no way.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder, Encodable};
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::dhcp::frame::{BROADCAST, CLIENT, Datagram, SERVER};
use crate::dhcp::socket::PacketSocket;
use crate::dhcp::{Action, Client, Event};
use crate::kernel::{Kernel, KernelError, sysctl};
use crate::links::Nic;
use crate::settings::{Fixed, Settings};

/// BOOTP's least size, which old relays insist on (RFC 1542, section 2.1).
const LEAST: usize = 300;

/// A frame that came for a NIC's client.
pub type Frame = (String, Vec<u8>);

/// What an uplink should have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The address within its network.
    pub address: Ipv4Net,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// For how long; none: for ever.
    pub lasts: Option<Duration>,
}

/// A way out.
#[derive(Debug)]
pub struct Uplink {
    /// The NIC.
    pub nic: Nic,
    /// The interface that has the addresses: the NIC or a VLAN on it.
    pub device: String,
    /// Its number.
    pub index: u32,
    /// Its place among the uplinks; the way out of a lower one goes first.
    pub slot: u32,
    /// What it should have.
    pub wish: Option<Wish>,
    /// Whether it has what it should have. An address of an earlier life stays until the client has had
    /// its say.
    pub applied: bool,
    client: Option<Client>,
    socket: Option<(Arc<PacketSocket>, JoinHandle<()>)>,
    frames: mpsc::Sender<Frame>,
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if let Some((_, reader)) = &self.socket {
            reader.abort();
        }
    }
}

impl Uplink {
    /// Prepares a NIC and brings it up.
    pub async fn open(
        kernel: &Kernel,
        nic: Nic,
        slot: u32,
        settings: &Settings,
        frames: mpsc::Sender<Frame>,
        now: Duration,
    ) -> Result<Self, KernelError> {
        let (device, index) = match settings.vlan {
            None => (nic.name.clone(), nic.index),
            Some(id) => {
                // The bare NIC carries the VLAN and has no addresses of its own.
                ipv6(&nic.name, false);
                let name = format!("v{id}.{}", nic.index);
                let index = kernel.vlan(&name, nic.index, id).await?;
                (name, index)
            }
        };
        prepare(&device);
        kernel.up(nic.index).await?;
        if index != nic.index {
            kernel.up(index).await?;
        }
        let remembered = remembered(kernel, index, now).await?;
        let client = settings.fixed.is_none().then(|| Client::new(nic.mac, remembered));
        let (wish, applied, socket) = (None, true, None);
        Ok(Self { nic, device, index, slot, wish, applied, client, socket, frames })
    }

    /// The metric of its way out.
    pub fn metric(&self) -> u32 {
        100 + 10 * self.slot
    }

    /// Follows the NIC's carrier.
    pub fn carrier(&mut self, now: Duration, carrier: bool) {
        self.nic.carrier = carrier;
        if carrier && self.client.is_some() && self.socket.is_none() {
            self.listen();
        }
        let event = if carrier { Event::Carrier } else { Event::NoCarrier };
        self.drive(now, &event);
    }

    /// Makes a fixed address its wish; none: it isn't used.
    pub fn fix(&mut self, fixed: Option<&Fixed>) {
        let wish = fixed.map(|fixed| Wish {
            address: fixed.address,
            gateway: fixed.gateway,
            dns: Vec::new(),
            lasts: None,
        });
        if self.wish != wish {
            self.wish = wish;
            self.applied = false;
        }
    }

    fn listen(&mut self) {
        let socket = match PacketSocket::client(&self.device) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                tracing::warn!("open a packet socket on {}: {error}", self.device);
                return;
            }
        };
        let (name, frames, reading) =
            (self.nic.name.clone(), self.frames.clone(), Arc::clone(&socket));
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 2048];
            loop {
                match reading.receive(&mut buffer).await {
                    Ok(frame) => {
                        if frames.send((name.clone(), frame.to_vec())).await.is_err() {
                            return;
                        }
                    }
                    // The link went down, or away; it comes back or the reader is ended.
                    Err(error) => {
                        tracing::debug!("receive on {name}: {error}");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        });
        self.socket = Some((socket, reader));
    }

    /// Takes a frame from the wire.
    pub fn frame(&mut self, now: Duration, frame: &[u8]) {
        let Some(datagram) = Datagram::read(frame) else { return };
        let ours = datagram.target_mac == BROADCAST || datagram.target_mac == self.nic.mac;
        if !ours || datagram.target.1 != CLIENT || datagram.source.1 != SERVER {
            return;
        }
        // dhcproto's `chaddr` panics on a hardware address longer than its field of 16 bytes.
        if datagram.payload.get(2).is_none_or(|length| *length > 16) {
            return;
        }
        let Ok(message) = Message::decode(&mut Decoder::new(datagram.payload)) else { return };
        self.drive(now, &Event::Message(&message, datagram.source_mac));
    }

    /// Lets time pass.
    pub fn time(&mut self, now: Duration) {
        self.drive(now, &Event::Time);
    }

    fn drive(&mut self, now: Duration, event: &Event<'_>) {
        let Some(client) = &mut self.client else { return };
        let mut bytes = [0; 4];
        let _ = getrandom::fill(&mut bytes);
        for action in client.handle(now, u32::from_ne_bytes(bytes), event) {
            match action {
                Action::Broadcast(message) => {
                    self.send(&message, BROADCAST, message.ciaddr(), Ipv4Addr::BROADCAST);
                }
                Action::Unicast(message, lease) => {
                    self.send(&message, lease.server_mac, message.ciaddr(), lease.server);
                }
                Action::Configure(lease) => {
                    tracing::info!("{}: {} from {}", self.nic.name, lease.address, lease.server);
                    self.wish = Some(Wish {
                        address: lease.address,
                        gateway: lease.gateway,
                        dns: lease.dns.iter().copied().map(IpAddr::V4).collect(),
                        lasts: lease.lasts,
                    });
                    self.applied = false;
                }
                Action::Deconfigure => {
                    tracing::info!("{}: its address has ended", self.nic.name);
                    self.wish = None;
                    self.applied = false;
                }
            }
        }
    }

    fn send(&self, message: &Message, mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) {
        let Some((socket, _)) = &self.socket else { return };
        let Some(frame) = wrap(message, (self.nic.mac, source, CLIENT), (mac, target, SERVER))
        else {
            return;
        };
        if let Err(error) = socket.send(&frame) {
            tracing::debug!("send on {}: {error}", self.nic.name);
        }
    }

    /// Until when it does nothing by itself.
    pub fn deadline(&self) -> Option<Duration> {
        self.client.as_ref()?.deadline()
    }

    /// Since when it has waited for an answer without having an address.
    pub fn waiting_since(&self) -> Option<Duration> {
        self.client.as_ref()?.waiting_since()
    }

    /// What it does or waits for, in words for people.
    pub fn words(&self) -> &'static str {
        match (&self.client, &self.wish) {
            _ if !self.nic.carrier => "no cable",
            (Some(client), _) => client.words(),
            (None, Some(_)) => "fixed address",
            (None, None) => "not used: another NIC has the fixed address",
        }
    }
}

/// A DHCP message as a frame, from and to a hardware address, an address and a port.
pub fn wrap(
    message: &Message,
    source: ([u8; 6], Ipv4Addr, u16),
    target: ([u8; 6], Ipv4Addr, u16),
) -> Option<Vec<u8>> {
    let mut payload = message.to_vec().ok()?;
    payload.resize(payload.len().max(LEAST), 0);
    let datagram = Datagram {
        source_mac: source.0,
        target_mac: target.0,
        source: (source.1, source.2),
        target: (target.1, target.2),
        payload: &payload,
    };
    datagram.write()
}

/// An address from an earlier life of this daemon: one that the kernel keeps for a while.
async fn remembered(
    kernel: &Kernel,
    index: u32,
    now: Duration,
) -> Result<Option<(Ipv4Addr, Duration)>, KernelError> {
    let held = kernel.addresses().await?;
    let mut mine = held.iter().filter(|held| held.index == index);
    Ok(mine.find_map(|held| match (held.net, held.lasts) {
        (IpNet::V4(net), Some(lasts)) => Some((net.addr(), now + lasts)),
        _ => None,
    }))
}

fn prepare(device: &str) {
    ipv6(device, true);
    let rows = [
        // Announced by routers also when some day IPv6 is forwarded here.
        (format!("ipv6/conf/{device}/accept_ra"), "2"),
        (format!("ipv6/conf/{device}/autoconf"), "1"),
        // A link without a cable is no way out.
        (format!("ipv4/conf/{device}/ignore_routes_with_linkdown"), "1"),
        // Two links in one network: each answers for its own addresses, and replies may go by either.
        (format!("ipv4/conf/{device}/arp_ignore"), "1"),
        (format!("ipv4/conf/{device}/arp_announce"), "2"),
        (format!("ipv4/conf/{device}/rp_filter"), "2"),
        (format!("ipv4/conf/{device}/accept_redirects"), "0"),
        (format!("ipv4/conf/{device}/accept_source_route"), "0"),
    ];
    for (path, value) in rows {
        set(&path, value);
    }
}

fn ipv6(device: &str, on: bool) {
    set(&format!("ipv6/conf/{device}/disable_ipv6"), if on { "0" } else { "1" });
}

/// A setting whose absence costs comfort, not safety: the kernel may lack IPv6.
fn set(path: &str, value: &str) {
    if let Err(error) = sysctl(path, value) {
        tracing::debug!("{error}");
    }
}
