//! A packet socket for DHCP: sends and receives whole frames on one link, address or none.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

const ETH_P_IP: u16 = 0x0800;

/// An open socket, bound to a link.
///
/// tokio's UDP socket is but recv(2), send(2) and readiness here, which are the same for packets;
/// it gives them without an unsafe promise about the descriptor.
#[derive(Debug)]
pub struct PacketSocket(UdpSocket);

impl PacketSocket {
    /// Sends on `device`, and receives what comes for UDP port 68. Needs CAP_NET_RAW.
    pub fn client(device: &str) -> io::Result<Self> {
        Self::open(device, ETH_P_IP, Some(&to_port(super::frame::CLIENT)))
    }

    /// Only sends on `device`. Needs CAP_NET_RAW.
    pub fn sender(device: &str) -> io::Result<Self> {
        Self::open(device, 0, None)
    }

    fn open(device: &str, protocol: u16, filter: Option<&[SockFilter]>) -> io::Result<Self> {
        let protocol = i32::from(protocol.to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)))?;
        if let Some(filter) = filter {
            socket.attach_filter(filter)?;
        }
        socket.set_nonblocking(true)?;
        bind(socket.as_raw_fd(), &link(device)?)?;
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// The next frame's bytes within `buffer`.
    pub async fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.0.recv(buffer).await?;
        Ok(&buffer[..length])
    }

    /// Sends a frame; one that finds the queue full is lost, as on a wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.try_send(frame).map(drop)
    }
}

fn link(device: &str) -> io::Result<LinkAddr> {
    nix::ifaddrs::getifaddrs()?
        .filter(|entry| entry.interface_name == device)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {device}")))
}

/// Lets through whole IPv4 packets for a UDP port (classic BPF, linux/filter.h).
fn to_port(port: u16) -> [SockFilter; 11] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_HALF_BEHIND: u16 = 0x48;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let row = SockFilter::new;
    [
        row(LOAD_HALF, 0, 0, 12),
        row(EQUAL, 0, 8, ETH_P_IP.into()),
        row(LOAD_BYTE, 0, 0, 23),
        row(EQUAL, 0, 6, 17),
        row(LOAD_HALF, 0, 0, 20),
        row(ANY_BIT, 4, 0, 0x1fff),
        row(LOAD_HEADER_LENGTH, 0, 0, 14),
        row(LOAD_HALF_BEHIND, 0, 0, 16),
        row(EQUAL, 0, 1, port.into()),
        row(RETURN, 0, 0, 0xffff),
        row(RETURN, 0, 0, 0),
    ]
}
