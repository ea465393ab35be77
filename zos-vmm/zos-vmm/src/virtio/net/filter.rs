//! Which frames of a guest may leave: those that say truly who sent them.
//!
//! ```text
//!  frame ─▶ Ethernet source is ours? ─▶ ARP:  sender's hardware and protocol address are ours
//!             no: dropped               IPv4: source is ours, or a question for DHCP
//!                                       IPv6: source is ours, or :: while it looks for one
//!                                             neighbour discovery speaks of our addresses only
//!                                       else: dropped
//! ```
//!
//! The addresses are those of the spec, and one more: the link-local address that follows from the
//! MAC (RFC 4291, appendix A). A guest that makes its link-local address in another way has to have
//! it in the spec: with all of fe80::/64 it could answer for its neighbours and for the router.
//!
//! | A guest may try | What happens |
//! |---|---|
//! | VLAN tags, other ethertypes, 802.3 lengths | dropped |
//! | a checksum to be written over what was checked | dropped: [`Verdict::Pass`] says how far that is |
//! | neighbour discovery behind an extension header or in fragments | dropped: its hop limit is 255 |
//! | to be a router: advertisements, redirects | dropped |
//! | to claim or defend an address that isn't its own (DAD) | dropped |
//! | a source below 0.0.0.0 or :: that isn't on its way to an address | dropped |
//!
//! For a fragment, and for a packet with extension headers, the source address is enough.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zos_vmm_spec::Mac;

/// As much of a frame as a verdict can need: neighbour discovery with a few options.
pub(super) const HEAD: usize = 116;

const ETHERNET: usize = 14;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Ethernet, IPv4, and the lengths of their addresses (RFC 826).
const ARP_FORM: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_END: usize = ETHERNET + 28;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const UDP: u8 = 17;
/// Client and server ports.
const BOOTP: [u8; 4] = [0, 68, 0, 67];
const IPV6_END: usize = ETHERNET + 40;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
/// Routing, fragment, AH, destination options, mobility, HIP, shim6.
const EXTENSIONS: [u8; 8] = [HOP_BY_HOP, 43, 44, 51, 60, 135, 139, 140];
/// ICMPv6 types (RFC 4861, RFC 2710, RFC 3810).
const MLD_REPORTS: [u8; 3] = [131, 132, 143];
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ICMPV6_REDIRECT: u8 = 137;
/// Options with an Ethernet address: source's and target's.
const LINK_ADDRESSES: [u8; 2] = [1, 2];

/// Who a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    mac: [u8; 6],
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may leave. Nothing may be written any more into so many bytes at its begin.
    Pass(usize),
    /// It may not.
    Drop,
}

impl Filter {
    /// For a guest with this MAC and these addresses.
    pub(super) fn new(mac: Mac, addresses: &[IpAddr]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), vec![link_local(mac)]);
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        Self { mac: mac.0, v4, v6 }
    }

    /// Looks at a frame's begin: all of it, or its first [`HEAD`] bytes.
    pub(super) fn look(&self, frame: &[u8]) -> Verdict {
        self.seen(frame).map_or(Verdict::Drop, Verdict::Pass)
    }

    fn seen(&self, frame: &[u8]) -> Option<usize> {
        if frame.get(6..12)? != self.mac {
            return None;
        }
        match u16::from_be_bytes(field(frame, 12)?) {
            ARP => self.arp(frame),
            IPV4 => self.ipv4(frame),
            IPV6 => self.ipv6(frame),
            _ => None,
        }
    }

    fn arp(&self, frame: &[u8]) -> Option<usize> {
        let form = field(frame, ETHERNET)? == ARP_FORM;
        let [0, operation] = field(frame, 20)? else { return None };
        let address = Ipv4Addr::from(field::<4>(frame, 28)?);
        let right = match operation {
            // Without an address yet: does anybody have this one? (RFC 5227)
            REQUEST => address.is_unspecified() || self.v4.contains(&address),
            REPLY => self.v4.contains(&address),
            _ => false,
        };
        let own = field(frame, 22)? == self.mac;
        // The target's fields end the packet.
        (form && own && right && frame.len() >= ARP_END).then_some(ARP_END)
    }

    fn ipv4(&self, frame: &[u8]) -> Option<usize> {
        let [first] = field(frame, ETHERNET)?;
        let end = ETHERNET + usize::from(first & 15) * 4;
        if first >> 4 != 4 || end < ETHERNET + 20 || frame.len() < end {
            return None;
        }
        let source = Ipv4Addr::from(field::<4>(frame, 26)?);
        if self.v4.contains(&source) {
            return Some(end);
        }
        let [fragment, offset] = field(frame, 20)?;
        let dhcp = source.is_unspecified()
            && Ipv4Addr::from(field::<4>(frame, 30)?).is_broadcast()
            && [fragment & 0x3f, offset] == [0, 0]
            && field(frame, 23)? == [UDP]
            && field(frame, end)? == BOOTP;
        dhcp.then_some(end + BOOTP.len())
    }

    fn ipv6(&self, frame: &[u8]) -> Option<usize> {
        let [first] = field(frame, ETHERNET)?;
        let [next, hops] = field(frame, 20)?;
        let source = Ipv6Addr::from(field::<16>(frame, 22)?);
        if first >> 4 != 6 || frame.len() < IPV6_END {
            return None;
        }
        let own = self.v6.contains(&source);
        if !own && !source.is_unspecified() {
            return None;
        }
        if next == ICMPV6 {
            let [kind] = field(frame, IPV6_END)?;
            return match kind {
                NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
                    self.neighbour(frame, kind, own)
                }
                ROUTER_SOLICITATION => self.options(frame, IPV6_END + 8),
                ROUTER_ADVERTISEMENT | ICMPV6_REDIRECT => None,
                _ => own.then_some(IPV6_END + 1),
            };
        }
        if own {
            // Nobody listens to neighbour discovery with another hop limit.
            let hides = hops == 255 && EXTENSIONS.contains(&next);
            return (!hides).then_some(IPV6_END);
        }
        // A multicast listener's report: a router alert of eight bytes, then ICMPv6 (RFC 3590).
        let [inner, length] = field(frame, IPV6_END)?;
        let [kind] = field(frame, IPV6_END + 8)?;
        let report = next == HOP_BY_HOP
            && hops != 255
            && (inner, length) == (ICMPV6, 0)
            && MLD_REPORTS.contains(&kind);
        report.then_some(IPV6_END + 9)
    }

    /// A question or an answer about an address, which must be the guest's where it claims one.
    fn neighbour(&self, frame: &[u8], kind: u8, own: bool) -> Option<usize> {
        let target = Ipv6Addr::from(field::<16>(frame, IPV6_END + 8)?);
        // From :: it says: "I want this one".
        let claims = kind == NEIGHBOUR_ADVERTISEMENT || !own;
        if claims && !self.v6.contains(&target) || kind == NEIGHBOUR_ADVERTISEMENT && !own {
            return None;
        }
        self.options(frame, IPV6_END + 24)
    }

    /// All options to the packet's end: where they name an Ethernet address it is the guest's.
    fn options(&self, frame: &[u8], mut at: usize) -> Option<usize> {
        let length = usize::from(u16::from_be_bytes(field(frame, 18)?));
        let end = IPV6_END + length;
        // Longer than what is seen: nobody could say what the rest holds.
        if end > frame.len() || at > end {
            return None;
        }
        while at < end {
            let [kind, units] = field(frame, at)?;
            let next = at + usize::from(units) * 8;
            if units == 0 || next > end {
                return None;
            }
            if LINK_ADDRESSES.contains(&kind) && (units != 1 || field(frame, at + 2)? != self.mac) {
                return None;
            }
            at = next;
        }
        Some(end)
    }
}

/// The link-local address of an interface with this MAC.
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn field<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
