//! A link by netlink: up, address, default route (rtnetlink(7)), the few messages that we need.

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const REQUEST_ACK: u16 = 1 | 4;
const CREATE_REPLACE: u16 = 0x400 | 0x100;
const IFF_UP: u32 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_DHCP: u8 = 16;
const PROTOCOL_STATIC: u8 = 4;
const TYPE_UNICAST: u8 = 1;
/// A netlink message's header: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;

/// An interface by its number.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
}

impl Link {
    /// Finds it by name.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
        let index = text.trim().parse().map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        Ok(Self { index })
    }

    /// Brings it up.
    pub(super) fn up(&self) -> io::Result<()> {
        request(RTM_NEWLINK, 0, &self.info(IFF_UP))
    }

    /// Sets the longest packet in bytes.
    pub(super) fn set_mtu(&self, bytes: u32) -> io::Result<()> {
        let mut body = self.info(0);
        attribute(&mut body, IFLA_MTU, &bytes.to_ne_bytes());
        request(RTM_NEWLINK, 0, &body)
    }

    /// `struct ifinfomsg`: family, pad, type, index, flags, change mask.
    fn info(&self, flags: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&self.index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body
    }

    /// Gives it an address, or renews it.
    pub(super) fn set_address(&self, address: IpAddr, prefix: u8) -> io::Result<()> {
        request(RTM_NEWADDR, CREATE_REPLACE, &self.address(address, prefix))
    }

    /// Takes an address away.
    pub(super) fn remove_address(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        request(RTM_DELADDR, 0, &self.address(address.into(), prefix))
    }

    fn address(&self, address: IpAddr, prefix: u8) -> Vec<u8> {
        let (family, octets) = octets(address);
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        let mut body = vec![family, prefix, 0, 0];
        body.extend_from_slice(&self.index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &octets);
        attribute(&mut body, IFA_ADDRESS, &octets);
        body
    }

    /// Sends everything without a route of its own to this router, which DHCP told.
    pub(super) fn set_default_route(&self, router: Ipv4Addr) -> io::Result<()> {
        self.route(router.into(), PROTOCOL_DHCP)
    }

    /// The same, as somebody set it.
    pub(super) fn set_static_route(&self, router: IpAddr) -> io::Result<()> {
        self.route(router, PROTOCOL_STATIC)
    }

    fn route(&self, router: IpAddr, protocol: u8) -> io::Result<()> {
        let (family, octets) = octets(router);
        // struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope,
        // type, flags
        let mut body = vec![family, 0, 0, 0, TABLE_MAIN, protocol, 0, TYPE_UNICAST];
        body.extend_from_slice(&0u32.to_ne_bytes());
        attribute(&mut body, RTA_GATEWAY, &octets);
        attribute(&mut body, RTA_OIF, &self.index.to_ne_bytes());
        request(RTM_NEWROUTE, CREATE_REPLACE, &body)
    }
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}

/// An interface's hardware address.
pub(super) fn mac(name: &str) -> io::Result<[u8; 6]> {
    let text = mac_text(name)?;
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte =
            u8::from_str_radix(part, 16).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    }
    Ok(mac)
}

/// The same as text.
pub(super) fn mac_text(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("/sys/class/net/{name}/address"))?.trim().to_owned())
}

/// Every address: interface and `address/prefix`.
pub(super) fn addresses() -> Vec<(String, String)> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|entry| {
        let address = entry.address?;
        let text = if let Some(v4) = address.as_sockaddr_in() {
            let mask = entry.netmask?.as_sockaddr_in()?.ip();
            format!("{}/{}", v4.ip(), u32::from(mask).count_ones())
        } else {
            let v6 = address.as_sockaddr_in6()?.ip();
            let mask = entry.netmask?.as_sockaddr_in6()?.ip();
            format!("{v6}/{}", u128::from(mask).count_ones())
        };
        Some((entry.interface_name, text))
    })
    .collect()
}

/// Appends `struct rtattr` and its value, of which each here is four or sixteen bytes: no padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or(4).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
}

/// Sends one message and waits for its acknowledgement.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(fd.as_raw_fd(), &message(kind, flags, body), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let count = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(&answer[..count])
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(REQUEST_ACK | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// An acknowledgement is an error message whose error is zero.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let wrong = || io::Error::from(ErrorKind::InvalidData);
    let kind = answer.get(4..6).ok_or_else(wrong)?;
    let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).ok_or_else(wrong)?;
    if u16::from_ne_bytes([kind[0], kind[1]]) != NLMSG_ERROR {
        return Err(wrong());
    }
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = message(kind, 0, &code.to_ne_bytes());
            bytes.extend_from_slice(&[0; 16]);
            bytes
        };
        acknowledged(&answer(NLMSG_ERROR, 0)).unwrap();
        let refused = acknowledged(&answer(NLMSG_ERROR, -1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert!(acknowledged(&answer(3, 0)).is_err());
        assert!(acknowledged(&[0; 5]).is_err());
    }
}
