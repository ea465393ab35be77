//! The bridge and what serves on it: the effects of the VM network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder};
use ipnet::Ipv4Net;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dns::{Forwarder, Servers};
use super::table::{Row, Table};
use super::{BRIDGE, server, subnet};
use crate::dhcp::frame::{CLIENT, SERVER};
use crate::dhcp::socket::PacketSocket;
use crate::kernel::{Kernel, KernelError, sysctl};
use crate::uplink::wrap;

/// The bridge, up, with an address in the VMs' network.
#[derive(Debug)]
pub struct Bridge {
    /// Its number.
    pub index: u32,
    /// The VMs' network.
    pub net: Ipv4Net,
    mac: [u8; 6],
    sender: PacketSocket,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Bridge {
    /// Makes the bridge, or finds it made, and serves DHCP and DNS on it. Messages of guests go into
    /// `guests`. The firewall must stand already.
    pub async fn open(
        kernel: &Kernel,
        mac: [u8; 6],
        net: Ipv4Net,
        servers: Servers,
        guests: mpsc::Sender<Vec<u8>>,
    ) -> Result<Self, KernelError> {
        let index = kernel.bridge(BRIDGE, mac).await?;
        quiet(BRIDGE)?;
        sysctl(&format!("ipv4/conf/{BRIDGE}/rp_filter"), "1")?;
        sysctl(&format!("ipv4/conf/{BRIDGE}/arp_ignore"), "1")?;
        sysctl(&format!("ipv4/conf/{BRIDGE}/accept_redirects"), "0")?;
        sysctl(&format!("ipv4/conf/{BRIDGE}/send_redirects"), "0")?;
        let gateway = subnet::gateway(net);
        kernel.set_address(index, gateway, None).await?;
        kernel.up(index).await?;

        let said = |e| KernelError::File(format!("serve on {BRIDGE}"), e);
        let sender = PacketSocket::sender(BRIDGE).map_err(said)?;
        let dhcp = udp(Ipv4Addr::UNSPECIFIED, SERVER).map_err(said)?;
        let forwarder = Forwarder::new(servers, 53);
        let (by_udp, by_tcp) =
            (udp(gateway.addr(), 53).map_err(said)?, tcp(gateway.addr(), 53).map_err(said)?);
        let tasks = vec![
            tokio::spawn(listen(dhcp, guests)),
            tokio::spawn(until_failed("DNS by UDP", forwarder.clone().serve_udp(by_udp))),
            tokio::spawn(until_failed("DNS by TCP", forwarder.serve_tcp(by_tcp))),
        ];
        Ok(Self { index, net, mac, sender, tasks })
    }

    /// Whether all that it serves still does.
    pub fn serves(&self) -> bool {
        self.tasks.iter().all(|task| !task.is_finished())
    }

    /// Answers a guest's DHCP message: to its hardware address alone, since taps hear no broadcast.
    pub fn answer(&self, table: &Table, message: &[u8]) {
        // dhcproto's `chaddr` panics on a hardware address longer than its field of 16 bytes.
        if message.get(2).is_none_or(|length| *length > 16) {
            return;
        }
        let Ok(request) = Message::decode(&mut Decoder::new(message)) else { return };
        let Some(reply) = server::answer(table, self.net, &request) else { return };
        let Ok(guest) = <[u8; 6]>::try_from(request.chaddr()) else { return };
        let target = if request.flags().broadcast() || reply.yiaddr().is_unspecified() {
            Ipv4Addr::BROADCAST
        } else {
            reply.yiaddr()
        };
        let gateway = subnet::gateway(self.net).addr();
        let frame = wrap(&reply, (self.mac, gateway, SERVER), (guest, target, CLIENT));
        if let Some(Err(error)) = frame.map(|frame| self.sender.send(&frame)) {
            tracing::debug!("answer a guest: {error}");
        }
    }

    /// Makes an interface a VM's port. The firewall must know it already.
    pub async fn attach(&self, kernel: &Kernel, row: &Row) -> Result<(), KernelError> {
        quiet(&row.device)?;
        kernel.neighbour(self.index, row.address(self.net), row.mac).await?;
        kernel.port(&row.device, self.index, row.mac).await
    }
}

/// The node says nothing by IPv6 here.
fn quiet(device: &str) -> Result<(), KernelError> {
    let path = format!("ipv6/conf/{device}/disable_ipv6");
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    sysctl(&path, "1")
}

async fn listen(socket: UdpSocket, guests: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; 2048];
    loop {
        match socket.recv(&mut buffer).await {
            // A flood is dropped here: guests ask again.
            Ok(length) => drop(guests.try_send(buffer[..length].to_vec())),
            Err(error) => {
                tracing::warn!("DHCP for VMs: {error}");
                return;
            }
        }
    }
}

async fn until_failed(what: &str, serve: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serve.await {
        tracing::warn!("{what}: {error}");
    }
}

fn socket(kind: Type, protocol: Protocol, address: Ipv4Addr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(BRIDGE.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(address), port).into())?;
    Ok(socket)
}

fn udp(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket(Type::DGRAM, Protocol::UDP, address, port)?.into())
}

fn tcp(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = socket(Type::STREAM, Protocol::TCP, address, port)?;
    socket.listen(64)?;
    TcpListener::from_std(socket.into())
}
