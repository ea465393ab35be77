//! The client against a server made of rows, and against any bytes.

use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const XID: u32 = 0x1234_5678;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A server's answer: 10.0.0.7 for 120 s, from 10.0.0.1.
fn reply(kind: Kind, mask: Ipv4Addr) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let question = Question { kind, transaction: XID, mac: MAC, own: none, offer: None };
    let mut bytes = question.to_bytes();
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&[10, 0, 0, 7]);
    bytes.truncate(240);
    bytes.extend_from_slice(&[option::KIND, 1, kind as u8, option::MASK, 4]);
    bytes.extend_from_slice(&mask.octets());
    for code in [option::ROUTER, option::DNS, option::SERVER] {
        bytes.extend_from_slice(&[code, 4, 10, 0, 0, 1]);
    }
    bytes.extend_from_slice(&[option::LEASE_TIME, 4, 0, 0, 0, 120, option::END]);
    bytes
}

fn good(kind: Kind) -> Vec<u8> {
    reply(kind, Ipv4Addr::new(255, 255, 255, 0))
}

fn sent(turn: &Turn) -> Option<Kind> {
    let bytes = turn.send.as_ref()?;
    // The type is the first option.
    match bytes[240..243] {
        [option::KIND, 1, 1] => Some(Kind::Discover),
        [option::KIND, 1, 3] => Some(Kind::Request),
        _ => None,
    }
}

/// A client that got an address at second 1.
fn bound() -> Client {
    let mut client = Client::new(MAC, XID);
    assert_eq!(sent(&client.poll(seconds(0))), Some(Kind::Discover));
    assert_eq!(client.receive(seconds(1), &good(Kind::Offer)), None);
    assert_eq!(sent(&client.poll(seconds(1))), Some(Kind::Request));
    let change = client.receive(seconds(1), &good(Kind::Ack));
    let Some(Change::Bound(lease)) = change else { panic!("{change:?}") };
    assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 0, 7), 24));
    assert_eq!(lease.router, Some(Ipv4Addr::new(10, 0, 0, 1)));
    client
}

#[test]
fn discovery_goes_on_for_ever_with_growing_pauses() {
    let mut client = Client::new(MAC, XID);
    let mut now = Duration::ZERO;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let turn = client.poll(now);
        assert_eq!(sent(&turn), Some(Kind::Discover));
        pauses.push((turn.wake - now).as_secs());
        now = turn.wake;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
}

#[test]
fn a_lease_is_renewed_at_half_its_time() {
    let mut client = bound();
    assert_eq!(sent(&client.poll(seconds(60))), None);
    let turn = client.poll(seconds(61));
    assert_eq!(sent(&turn), Some(Kind::Request));
    let again = client.receive(seconds(62), &good(Kind::Ack));
    assert!(matches!(again, Some(Change::Bound(_))));
    assert_eq!(client.poll(seconds(63)).wake, seconds(122));
}

#[test]
fn a_lease_without_an_answer_is_lost_at_its_end() {
    let mut client = bound();
    let mut now = seconds(61);
    let lost = loop {
        let turn = client.poll(now);
        if let Some(change) = turn.change {
            break change;
        }
        now = turn.wake;
    };
    assert!(matches!(lost, Change::Lost(_)) && now >= seconds(121) && now < seconds(160));
    assert_eq!(client.receive(now, &good(Kind::Offer)), None);
    assert_eq!(sent(&client.poll(now)), Some(Kind::Request));
}

#[test]
fn a_refusal_starts_again() {
    let mut client = bound();
    client.poll(seconds(61));
    let change = client.receive(seconds(62), &good(Kind::Nak));
    assert!(matches!(change, Some(Change::Lost(_))));
    assert_eq!(sent(&client.poll(seconds(62))), Some(Kind::Discover));
}

#[test]
fn a_silent_server_is_given_up() {
    let mut client = Client::new(MAC, XID);
    client.poll(seconds(0));
    client.receive(seconds(0), &good(Kind::Offer));
    let mut now = seconds(0);
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let turn = client.poll(now);
        kinds.extend(sent(&turn));
        now = turn.wake;
    }
    assert_eq!(kinds[..4], [Kind::Request; 4]);
    assert_eq!(kinds[4], Kind::Discover);
}

#[test]
fn leases_that_no_interface_can_have_are_ignored() {
    let mut client = Client::new(MAC, XID);
    client.poll(seconds(0));
    client.receive(seconds(0), &reply(Kind::Offer, Ipv4Addr::new(255, 0, 255, 0)));
    assert_eq!(sent(&client.poll(seconds(1))), Some(Kind::Discover));
}

proptest! {
    /// Any bytes: no panic, and nothing but an answer to us changes anything.
    #[test]
    fn any_packet(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((0usize..300, any::<u8>()), 0..6),
    ) {
        let mut client = bound();
        prop_assert_eq!(client.receive(seconds(5), &bytes), None);
        let mut packet = good(Kind::Ack);
        for (at, value) in flips {
            let length = packet.len();
            packet[at % length] = value;
        }
        let mut client = Client::new(MAC, XID);
        client.poll(seconds(0));
        client.receive(seconds(0), &packet);
        client.receive(seconds(0), &good(Kind::Offer));
        if let Some(Change::Bound(lease)) = client.receive(seconds(1), &packet) {
            prop_assert!(lease.prefix <= 32 && lease.time >= SHORTEST_LEASE);
        }
    }
}
