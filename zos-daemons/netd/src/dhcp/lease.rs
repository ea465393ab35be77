//! What a server answered, judged. Anybody on the link can be the server: after `judge` an
//! address is one that a host may have, in a network that it can be in, for a time that makes sense.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use ipnet::Ipv4Net;

/// Shorter leases are refused: the link would do nothing but renew.
const SHORTEST: u32 = 20;
/// At most so many name servers are kept.
const NAME_SERVERS: usize = 4;
/// What a lease without an end lasts, in seconds (RFC 2131, section 3.3).
const FOREVER: u32 = u32::MAX;

/// An address for a while, and what goes with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address within its network.
    pub address: Ipv4Net,
    /// The way out; always within the network and never the address itself.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// Who leases it.
    pub server: Ipv4Addr,
    /// The hardware address that the answer came from.
    pub server_mac: [u8; 6],
    /// For how long; none: for ever.
    pub lasts: Option<Duration>,
    /// When to ask the server for more.
    pub renew: Duration,
    /// When to ask any server for more.
    pub rebind: Duration,
}

/// An answer to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It may have this.
    Offer(Lease),
    /// It has this.
    Ack(Lease),
    /// It can't have what it asked for.
    Nak {
        /// Who says so.
        server: Ipv4Addr,
    },
}

/// Why an answer is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It is for somebody else.
    #[error("for somebody else")]
    NotOurs,
    /// It is no answer, or lacks what each must have.
    #[error("it lacks {0}")]
    Lacks(&'static str),
    /// No host can have that address.
    #[error("no host can have the address {0}")]
    Address(Ipv4Addr),
    /// No such network mask.
    #[error("{0} is no usable network mask")]
    Mask(Ipv4Addr),
    /// Too short.
    #[error("a lease of {0} s is too short")]
    Short(u32),
}

/// Judges a message as an answer to the exchange `xid` of the link `mac`.
pub fn judge(message: &Message, from: [u8; 6], mac: [u8; 6], xid: u32) -> Result<Answer, Refusal> {
    let ours = message.opcode() == Opcode::BootReply
        && message.xid() == xid
        && message.hlen() == 6
        && message.chaddr() == mac;
    if !ours {
        return Err(Refusal::NotOurs);
    }
    let kind = message.opts().msg_type().ok_or(Refusal::Lacks("a message type"))?;
    let server = match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) if host(*server) => *server,
        _ => return Err(Refusal::Lacks("a server identifier")),
    };
    match kind {
        MessageType::Offer => Ok(Answer::Offer(lease(message, from, server)?)),
        MessageType::Ack => Ok(Answer::Ack(lease(message, from, server)?)),
        MessageType::Nak => Ok(Answer::Nak { server }),
        _ => Err(Refusal::Lacks("an answer's message type")),
    }
}

fn lease(message: &Message, from: [u8; 6], server: Ipv4Addr) -> Result<Lease, Refusal> {
    let options = message.opts();
    let address = message.yiaddr();
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => mask_length(*mask).ok_or(Refusal::Mask(*mask))?,
        // Without a mask, the class of the address tells (RFC 2132, section 3.3).
        _ => match address.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        },
    };
    let network = Ipv4Net::new(address, prefix).map_err(|_| Refusal::Address(address))?;
    let edge = prefix < 31 && (address == network.network() || address == network.broadcast());
    if edge || !host(address) || address.is_link_local() {
        return Err(Refusal::Address(address));
    }
    let seconds = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
        _ => return Err(Refusal::Lacks("a lease time")),
    };
    if seconds < SHORTEST {
        return Err(Refusal::Short(seconds));
    }
    let gateway = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers
            .iter()
            .copied()
            .find(|router| network.contains(router) && host(*router) && *router != address),
        _ => None,
    };
    let dns = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers
            .iter()
            .copied()
            .filter(|dns| host(*dns) && *dns != address)
            .take(NAME_SERVERS)
            .collect(),
        _ => Vec::new(),
    };
    let (renew, rebind) = times(message, seconds);
    Ok(Lease {
        address: network,
        gateway,
        dns,
        server,
        server_mac: from,
        lasts: (seconds != FOREVER).then(|| Duration::from_secs(seconds.into())),
        renew,
        rebind,
    })
}

/// T1 and T2: what the server says if it is in order, else 1/2 and 7/8 (RFC 2131, section 4.4.5).
fn times(message: &Message, lasts: u32) -> (Duration, Duration) {
    let asked = |code| match message.opts().get(code) {
        Some(DhcpOption::Renewal(seconds) | DhcpOption::Rebinding(seconds)) => Some(*seconds),
        _ => None,
    };
    let rebind = asked(OptionCode::Rebinding).filter(|t2| *t2 >= SHORTEST / 2 && *t2 < lasts);
    let rebind = rebind.unwrap_or(lasts / 8 * 7);
    let renew = asked(OptionCode::Renewal).filter(|t1| *t1 >= SHORTEST / 4 && *t1 < rebind);
    let renew = renew.unwrap_or((lasts / 2).min(rebind));
    (Duration::from_secs(renew.into()), Duration::from_secs(rebind.into()))
}

/// Whether one host can have the address (RFC 6890's special blocks can't).
pub fn host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 240 && !address.is_loopback() && !address.is_multicast()
}

/// The length of a mask of 8 ones or more without a hole.
fn mask_length(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    let whole = ones >= 8 && bits.checked_shl(ones).unwrap_or(0) == 0;
    u8::try_from(ones).ok().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, Decoder};
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const XID: u32 = 77;

    fn answer() -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message =
            Message::new_with_id(XID, zero, "192.168.7.50".parse().unwrap(), zero, zero, &MAC);
        message.set_opcode(Opcode::BootReply);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Ack));
        options.insert(DhcpOption::ServerIdentifier([192, 168, 7, 1].into()));
        options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        options.insert(DhcpOption::Router(vec![[192, 168, 7, 1].into()]));
        options.insert(DhcpOption::DomainNameServer(vec![[192, 168, 7, 2].into()]));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        message
    }

    #[test]
    fn a_good_answer_becomes_a_lease() {
        let Ok(Answer::Ack(lease)) = judge(&answer(), [1; 6], MAC, XID) else { panic!() };
        assert_eq!(lease.address.to_string(), "192.168.7.50/24");
        assert_eq!(lease.gateway, Some([192, 168, 7, 1].into()));
        assert_eq!((lease.renew.as_secs(), lease.rebind.as_secs()), (1800, 3150));
        assert_eq!(lease.server_mac, [1; 6]);
    }

    #[test]
    fn hostile_answers_are_refused_or_cut() {
        let check = |change: &dyn Fn(&mut Message), expected: &str| {
            let mut message = answer();
            change(&mut message);
            let found = match judge(&message, [1; 6], MAC, XID) {
                Ok(Answer::Ack(lease)) => {
                    format!("{} via {:?} dns {:?}", lease.address, lease.gateway, lease.dns)
                }
                Ok(other) => format!("{other:?}"),
                Err(refusal) => refusal.to_string(),
            };
            assert!(found.contains(expected), "{found}, expected {expected}");
        };
        let yiaddr = |address: [u8; 4]| {
            move |m: &mut Message| {
                m.set_yiaddr(address);
            }
        };
        let option = |option: DhcpOption| {
            move |m: &mut Message| {
                m.opts_mut().insert(option.clone());
            }
        };
        check(
            &|m| {
                m.set_xid(1);
            },
            "somebody else",
        );
        check(
            &|m| {
                m.set_chaddr(&[1; 6]);
            },
            "somebody else",
        );
        check(
            &|m| {
                m.set_opcode(Opcode::BootRequest);
            },
            "somebody else",
        );
        check(&|m| drop(m.opts_mut().remove(OptionCode::ServerIdentifier)), "server identifier");
        check(&|m| drop(m.opts_mut().remove(OptionCode::AddressLeaseTime)), "lease time");
        check(&|m| drop(m.opts_mut().remove(OptionCode::SubnetMask)), "192.168.7.50/24");
        check(&yiaddr([0, 0, 0, 0]), "no host");
        check(&yiaddr([127, 0, 0, 1]), "no host");
        check(&yiaddr([224, 0, 0, 1]), "no host");
        check(&yiaddr([255, 255, 255, 255]), "no host");
        check(&yiaddr([169, 254, 1, 1]), "no host");
        check(&yiaddr([192, 168, 7, 0]), "no host");
        check(&yiaddr([192, 168, 7, 255]), "no host");
        check(&option(DhcpOption::SubnetMask([0, 0, 0, 0].into())), "mask");
        check(&option(DhcpOption::SubnetMask([255, 0, 255, 0].into())), "mask");
        check(&option(DhcpOption::AddressLeaseTime(1)), "too short");
        check(&option(DhcpOption::Router(vec![[10, 0, 0, 1].into()])), "via None");
        check(&option(DhcpOption::Router(vec![[192, 168, 7, 50].into()])), "via None");
        check(
            &option(DhcpOption::DomainNameServer(vec![
                [127, 0, 0, 1].into(),
                [192, 168, 7, 50].into(),
                [224, 0, 0, 5].into(),
                [9, 9, 9, 9].into(),
            ])),
            "dns [9.9.9.9]",
        );
        check(&option(DhcpOption::MessageType(MessageType::Discover)), "message type");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>) {
            if let Ok(message) = Message::decode(&mut Decoder::new(&bytes)) {
                let _ = judge(&message, [1; 6], MAC, message.xid());
            }
        }

        #[test]
        fn a_lease_is_always_in_order(
            address: u32, mask: u32, router: u32, lasts: u32, t1: u32, t2: u32,
        ) {
            let mut message = answer();
            message.set_yiaddr(address);
            let options = message.opts_mut();
            options.insert(DhcpOption::SubnetMask(mask.into()));
            options.insert(DhcpOption::Router(vec![router.into()]));
            options.insert(DhcpOption::AddressLeaseTime(lasts));
            options.insert(DhcpOption::Renewal(t1));
            options.insert(DhcpOption::Rebinding(t2));
            if let Ok(Answer::Ack(lease)) = judge(&message, [1; 6], MAC, XID) {
                prop_assert!(host(lease.address.addr()));
                prop_assert!(lease.renew <= lease.rebind && lease.renew.as_secs() >= 5);
                prop_assert!(lease.lasts.is_none_or(|lasts| lease.rebind < lasts));
                prop_assert!(lease.gateway.is_none_or(|gateway| lease.address.contains(&gateway)));
            }
        }
    }
}
