//! The farmer's words about the network, parsed once.
//!
//! ```text
//!  zos.nic=<mac | path>        only this NIC: 52:54:00:12:34:56, 0000:00:03.0 or eth0
//!  zos.ip=<addr/prefix,gateway>  no DHCP, on the first NIC with a cable
//!  zos.dns=<addr,addr>         instead of what DHCP says
//!  zos.vlan=<1..4094>          all of the node's own traffic in this VLAN
//! ```
//! A word that makes no sense is a fault that is shown, and the node does as if it weren't there:
//! one that can't be reached could not even say what is wrong.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use zos_daemon::{Config, Reader};

use crate::dhcp::lease::host;

/// What the farmer set.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    /// Only this NIC: a hardware address, the device's path or its name.
    pub nic: Option<String>,
    /// A fixed address instead of DHCP.
    pub fixed: Option<Fixed>,
    /// Name servers instead of those that DHCP tells.
    pub dns: Vec<IpAddr>,
    /// The VLAN of the uplinks.
    pub vlan: Option<u16>,
}

/// A fixed address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixed {
    /// The address within its network.
    pub address: Ipv4Net,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
}

impl Config for Settings {
    fn read(reader: &mut Reader<'_>) -> Self {
        let servers = |text: &str| -> Option<Vec<IpAddr>> {
            text.split(',').map(|word| word.trim().parse().ok().filter(usable)).collect()
        };
        let vlan = |text: &str| text.parse().ok().filter(|id| (1..4095).contains(id));
        Self {
            nic: reader.text("nic").map(str::to_ascii_lowercase),
            fixed: reader.with("ip", "write ADDRESS/PREFIX,GATEWAY: 192.0.2.7/24,192.0.2.1", fixed),
            dns: reader
                .with("dns", "write addresses with commas between", servers)
                .unwrap_or_default(),
            vlan: reader.with("vlan", "write a number from 1 to 4094", vlan),
        }
    }
}

fn usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => host(*address),
        IpAddr::V6(address) => {
            !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
        }
    }
}

fn fixed(text: &str) -> Option<Fixed> {
    let (address, gateway) = match text.split_once(',') {
        Some((address, gateway)) => (address, Some(gateway.trim().parse::<Ipv4Addr>().ok()?)),
        None => (text, None),
    };
    let address: Ipv4Net = address.trim().parse().ok()?;
    let fits = |gateway: Ipv4Addr| address.contains(&gateway) && gateway != address.addr();
    let good = address.prefix_len() > 0 && host(address.addr()) && gateway.is_none_or(fits);
    good.then_some(Fixed { address, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_followed_or_shown() {
        let check = |key: &str, value: &str, expected: &str| {
            let said = [(key.to_owned(), value.to_owned())].into_iter().collect();
            let (settings, faults) = Reader::config::<Settings>(&said);
            let found = match faults.first() {
                Some(fault) => fault.id.clone(),
                None => format!(
                    "{:?} {:?} {:?} {:?}",
                    settings.nic, settings.fixed, settings.dns, settings.vlan
                ),
            };
            assert!(found.contains(expected), "{key}={value}: {found}");
        };
        check("nic", "52:54:00:AA:00:01", "52:54:00:aa:00:01");
        check("ip", "192.0.2.7/24,192.0.2.1", "192.0.2.7/24, gateway: Some(192.0.2.1)");
        check("ip", "192.0.2.7/24", "gateway: None");
        check("ip", "192.0.2.7", "settings.refused:ip");
        check("ip", "192.0.2.7/24,10.0.0.1", "settings.refused:ip");
        check("ip", "127.0.0.1/8", "settings.refused:ip");
        check("dns", "9.9.9.9, 2620:fe::fe", "[9.9.9.9, 2620:fe::fe]");
        check("dns", "127.0.0.1", "settings.refused:dns");
        check("dns", "example.com", "settings.refused:dns");
        check("vlan", "100", "Some(100)");
        check("vlan", "0", "settings.refused:vlan");
        check("vlan", "4095", "settings.refused:vlan");
        check("vlan", "priv", "settings.refused:vlan");
    }
}
