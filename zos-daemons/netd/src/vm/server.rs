//! The DHCP server for VMs: what is answered to whom. Pure.
//!
//! ```text
//!  Discover ─▶ Offer    Request for its own address ─▶ Ack, for another ─▶ Nak
//!  Inform   ─▶ Ack      unknown hardware address, anything else: silence
//! ```
//! There is nothing to lease, in truth: a VM's address is fixed. A lease is short so that guests follow soon
//! when the subnet had to move.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use ipnet::Ipv4Net;

use super::subnet;
use super::table::Table;

/// What a lease lasts, in seconds.
pub const LEASE: u32 = 600;

/// The answer to a guest's message, if it deserves one.
pub fn answer(table: &Table, net: Ipv4Net, request: &Message) -> Option<Message> {
    if request.opcode() != Opcode::BootRequest || request.hlen() != 6 {
        return None;
    }
    let mac: [u8; 6] = request.chaddr().try_into().ok()?;
    let address = table.by_mac(mac)?.address(net);
    let gateway = subnet::gateway(net);
    let options = request.opts();
    let for_other = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => *server != gateway.addr(),
        _ => false,
    };
    if for_other {
        return None;
    }
    let asked = match options.get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(asked)) => *asked,
        _ => request.ciaddr(),
    };
    let kind = match options.msg_type()? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request if asked == address => MessageType::Ack,
        MessageType::Request => MessageType::Nak,
        MessageType::Inform if request.ciaddr() == address => MessageType::Ack,
        _ => return None,
    };
    Some(reply(request, kind, address, gateway))
}

fn reply(request: &Message, kind: MessageType, address: Ipv4Addr, gateway: Ipv4Net) -> Message {
    let zero = Ipv4Addr::UNSPECIFIED;
    let inform = request.opts().msg_type() == Some(MessageType::Inform);
    let yours = if kind == MessageType::Nak || inform { zero } else { address };
    let mut message =
        Message::new_with_id(request.xid(), zero, yours, zero, zero, request.chaddr());
    message.set_opcode(Opcode::BootReply);
    message.set_flags(request.flags());
    if kind == MessageType::Ack {
        message.set_ciaddr(request.ciaddr());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(gateway.addr()));
    if let Some(id) = request.opts().get(OptionCode::ClientIdentifier) {
        // to be given back (RFC 6842)
        options.insert(id.clone());
    }
    if kind == MessageType::Nak {
        return message;
    }
    options.insert(DhcpOption::SubnetMask(gateway.netmask()));
    options.insert(DhcpOption::Router(vec![gateway.addr()]));
    options.insert(DhcpOption::DomainNameServer(vec![gateway.addr()]));
    if !inform {
        options.insert(DhcpOption::AddressLeaseTime(LEASE));
        options.insert(DhcpOption::Renewal(LEASE / 2));
        options.insert(DhcpOption::Rebinding(LEASE / 8 * 7));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::table::Row;
    use dhcproto::{Decodable, Decoder};
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn table() -> Table {
        let twin = (0u8..=255).find_map(|n| zos_types::TwinId::from_bytes([n; 32]).ok()).unwrap();
        let name = "demo/hello".parse().unwrap();
        Table::new([Row { twin, name, index: 0, device: "t1".into(), mac: MAC, host: 300 }])
    }

    fn net() -> Ipv4Net {
        "100.64.0.0/16".parse().unwrap()
    }

    fn question(kind: MessageType, mac: [u8; 6]) -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, zero, zero, zero, zero, &mac);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message
    }

    #[test]
    fn known_guests_get_their_own_address_and_nobody_else_anything() {
        let check = |kind, change: &dyn Fn(&mut Message), expected: Option<(MessageType, &str)>| {
            let mut message = question(kind, MAC);
            change(&mut message);
            let found = answer(&table(), net(), &message);
            let found = found.map(|m| (m.opts().msg_type().unwrap(), m.yiaddr().to_string()));
            let expected = expected.map(|(kind, address)| (kind, address.to_owned()));
            assert_eq!(found, expected, "{kind:?}");
        };
        use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        let asks = |address: [u8; 4]| {
            move |m: &mut Message| {
                m.opts_mut().insert(DhcpOption::RequestedIpAddress(address.into()));
            }
        };
        check(Discover, &|_| (), Some((Offer, "100.64.1.44")));
        check(Discover, &asks([10, 0, 0, 1]), Some((Offer, "100.64.1.44")));
        check(
            Discover,
            &|m| {
                m.set_chaddr(&[2, 0, 0, 0, 0, 8]);
            },
            None,
        );
        check(
            Discover,
            &|m| {
                m.set_opcode(Opcode::BootReply);
            },
            None,
        );
        check(Request, &asks([100, 64, 1, 44]), Some((Ack, "100.64.1.44")));
        check(Request, &asks([100, 64, 1, 45]), Some((Nak, "0.0.0.0")));
        check(
            Request,
            &|m| {
                m.set_ciaddr([100, 64, 1, 44]);
            },
            Some((Ack, "100.64.1.44")),
        );
        let other = |m: &mut Message| {
            m.opts_mut().insert(DhcpOption::ServerIdentifier([1, 1, 1, 1].into()));
        };
        check(Request, &other, None);
        check(
            Inform,
            &|m| {
                m.set_ciaddr([100, 64, 1, 44]);
            },
            Some((Ack, "0.0.0.0")),
        );
        check(Inform, &|_| (), None);
        check(Release, &|_| (), None);
        check(Decline, &|_| (), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes: Vec<u8>) {
            if let Ok(message) = Message::decode(&mut Decoder::new(&bytes)) {
                prop_assert!(answer(&Table::default(), net(), &message).is_none());
                let _ = answer(&table(), net(), &message);
            }
        }
    }
}
