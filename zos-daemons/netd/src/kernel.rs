//! What is asked of the kernel: links, addresses, routes and neighbours by rtnetlink, the rest by
//! sysctl. Each verb may be done twice.
//!
//! `/proc/sys/net` opens to CAP_NET_ADMIN in the network namespace, so netd needs no other user for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, CacheInfo};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteProtocol};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVlan, MulticastGroup, RouteMessageBuilder,
};
use tokio::sync::mpsc;

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

/// The kernel said no.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// To a netlink request.
    #[error("{0}")]
    Netlink(String, #[source] rtnetlink::Error),
    /// To reading or writing a file, or opening a socket.
    #[error("{0}")]
    File(String, #[source] io::Error),
    /// There is no such link.
    #[error("no link {0}")]
    NoLink(String),
}

type Result<T, E = KernelError> = std::result::Result<T, E>;

/// An address on a link.
#[derive(Clone, Debug)]
pub struct Held {
    /// The link.
    pub index: u32,
    /// The address within its network.
    pub net: IpNet,
    /// How long the kernel still keeps it; none: for ever.
    pub lasts: Option<Duration>,
    message: AddressMessage,
}

/// The connection to the kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    handle: Handle,
}

impl Kernel {
    /// Connects; the channel gets a word each time links, addresses or routes have changed.
    pub fn connect() -> Result<(Self, mpsc::Receiver<()>)> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let opened = rtnetlink::new_multicast_connection(&groups);
        let (connection, handle, mut messages) =
            opened.map_err(|e| KernelError::File("open a netlink socket".into(), e))?;
        tokio::spawn(connection);
        // One word stands for any number of changes: who hears it looks at all there is.
        let (tell, changes) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let _: (NetlinkMessage<RouteNetlinkMessage>, _) = message;
                let _ = tell.try_send(());
            }
        });
        Ok((Self { handle }, changes))
    }

    /// A link's number.
    pub async fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, &[ENODEV]) => Ok(None),
            Err(error) => Err(KernelError::Netlink(format!("find link {name}"), error)),
        }
    }

    async fn needed(&self, name: &str) -> Result<u32> {
        self.index(name).await?.ok_or_else(|| KernelError::NoLink(name.to_owned()))
    }

    /// Brings a link up.
    pub async fn up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let result = self.handle.link().change(message).execute().await;
        result.map_err(|e| KernelError::Netlink(format!("bring link {index} up"), e))
    }

    /// The VLAN `id` of a link, made if it isn't there.
    pub async fn vlan(&self, name: &str, base: u32, id: u16) -> Result<u32> {
        let message = LinkVlan::new(name, base, id).build();
        self.add(name, message).await
    }

    /// The bridge, made if it isn't there, with the hardware address `mac`.
    pub async fn bridge(&self, name: &str, mac: [u8; 6]) -> Result<u32> {
        let message = LinkBridge::new(name).mcast_snooping(false).address(mac.to_vec()).build();
        self.add(name, message).await
    }

    async fn add(&self, name: &str, message: LinkMessage) -> Result<u32> {
        if let Some(index) = self.index(name).await? {
            return Ok(index);
        }
        match self.handle.link().add(message).execute().await {
            Ok(()) => {}
            Err(error) if is(&error, &[EEXIST]) => {}
            Err(error) => return Err(KernelError::Netlink(format!("make link {name}"), error)),
        }
        self.needed(name).await
    }

    /// Makes a link a port of a bridge that speaks with the bridge alone: isolated, it learns and
    /// floods nothing, and the one hardware address behind it is written down.
    pub async fn port(&self, name: &str, bridge: u32, mac: [u8; 6]) -> Result<()> {
        let index = self.needed(name).await?;
        let said = |e| KernelError::Netlink(format!("make {name} a port of the bridge"), e);
        let join = LinkUnspec::new_with_index(index).controller(bridge).build();
        self.handle.link().change(join).execute().await.map_err(said)?;
        let settings = LinkBridgePort::new(index)
            .isolated(true)
            .hairpin(false)
            .learning(false)
            .flood(false)
            .mcast_flood(false)
            .bcast_flood(false)
            .build();
        self.handle.link().set_port(settings).execute().await.map_err(said)?;
        let entry = self.handle.neighbours().add_bridge(index, &mac);
        let entry = entry.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller);
        entry.replace().execute().await.map_err(said)?;
        self.up(index).await
    }

    /// Writes down who has an address on a link, so that nobody is asked and nobody can lie.
    pub async fn neighbour(&self, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let entry = self.handle.neighbours().add(index, IpAddr::V4(address));
        let entry = entry.state(NeighbourState::Permanent).link_layer_address(&mac);
        let result = entry.replace().execute().await;
        result.map_err(|e| KernelError::Netlink(format!("pin neighbour {address}"), e))
    }

    /// Takes a link away. Done also when there is none.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if !is(&error, &[ENODEV]) => {
                Err(KernelError::Netlink(format!("remove link {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Every address of every link.
    pub async fn addresses(&self) -> Result<Vec<Held>> {
        let mut found = Vec::new();
        let mut messages = self.handle.address().get().execute();
        loop {
            match messages.try_next().await {
                Ok(Some(message)) => found.extend(held(message)),
                Ok(None) => return Ok(found),
                Err(error) => return Err(KernelError::Netlink("list addresses".into(), error)),
            }
        }
    }

    /// Gives a link an IPv4 address for a while, or for ever, and takes its others away.
    pub async fn set_address(
        &self,
        index: u32,
        net: Ipv4Net,
        lasts: Option<Duration>,
    ) -> Result<()> {
        let mut request =
            self.handle.address().add(index, IpAddr::V4(net.addr()), net.prefix_len()).replace();
        let mut times = CacheInfo::default();
        times.ifa_valid = lasts.map_or(u32::MAX, |lasts| {
            u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX - 1).max(1)
        });
        times.ifa_preferred = times.ifa_valid;
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(times));
        let result = request.execute().await;
        result.map_err(|e| KernelError::Netlink(format!("add address {net}"), e))?;
        self.clear_addresses(index, Some(net)).await
    }

    /// Takes a link's IPv4 addresses away, all but one.
    pub async fn clear_addresses(&self, index: u32, but: Option<Ipv4Net>) -> Result<()> {
        for held in self.addresses().await? {
            let other = matches!(held.net, IpNet::V4(net) if Some(net) != but);
            if held.index != index || !other {
                continue;
            }
            match self.handle.address().del(held.message).execute().await {
                Err(error) if !is(&error, &[EADDRNOTAVAIL, ENODEV]) => {
                    let what = format!("remove address {}", held.net);
                    return Err(KernelError::Netlink(what, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes `gateway` a link's way out at a metric, in place of what it had; none: no way out.
    pub async fn set_gateway(
        &self,
        index: u32,
        gateway: Option<Ipv4Addr>,
        metric: u32,
    ) -> Result<()> {
        let base =
            || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).priority(metric);
        let Some(gateway) = gateway else {
            return match self.handle.route().del(base().build()).execute().await {
                Err(error) if !is(&error, &[ESRCH, ENODEV]) => {
                    Err(KernelError::Netlink(format!("remove the way out of link {index}"), error))
                }
                _ => Ok(()),
            };
        };
        let message = base().gateway(gateway).protocol(RouteProtocol::Dhcp).build();
        let result = self.handle.route().add(message).replace().execute().await;
        result.map_err(|e| KernelError::Netlink(format!("make {gateway} the way out"), e))
    }

    /// The way out by IPv6 that a router announced, on one of these links.
    pub async fn gateway6(&self, links: &[u32]) -> Option<IpAddr> {
        let query = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes = self.handle.route().get(query).execute();
        while let Ok(Some(route)) = routes.try_next().await {
            if route.header.destination_prefix_length != 0 {
                continue;
            }
            let on = route
                .attributes
                .iter()
                .any(|a| matches!(a, RouteAttribute::Oif(index) if links.contains(index)));
            let gateway = route.attributes.iter().find_map(|a| match a {
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(*address),
                _ => None,
            });
            if let (true, Some(gateway)) = (on, gateway) {
                return Some(gateway.into());
            }
        }
        None
    }
}

fn held(message: AddressMessage) -> Option<Held> {
    let mut address = None;
    let mut local = None;
    let mut lasts = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::CacheInfo(times) if times.ifa_valid != u32::MAX => {
                lasts = Some(Duration::from_secs(times.ifa_valid.into()));
            }
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Held { index: message.header.index, net, lasts, message })
}

fn is(error: &rtnetlink::Error, numbers: &[i32]) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(said) => numbers.contains(&-said.raw_code()),
        _ => false,
    }
}

/// Writes `/proc/sys/net/<path>`, unless it says so already.
pub fn sysctl(path: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/net/{path}");
    let said = |e| KernelError::File(format!("write {value} to {file}"), e);
    if std::fs::read_to_string(&file).map_err(said)?.trim() == value {
        return Ok(());
    }
    std::fs::write(&file, value).map_err(said)
}
