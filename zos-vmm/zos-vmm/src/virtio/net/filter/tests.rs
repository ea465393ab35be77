//! The filter against tables of frames, and against a model of whose addresses stand in one.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const V4: [u8; 4] = [10, 0, 0, 2];

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn own6() -> Ipv6Addr {
    v6("fd00::2")
}

fn local6() -> Ipv6Addr {
    v6("fe80::5054:ff:fe01:203")
}

fn filter() -> Filter {
    Filter::new(Mac(MAC), &[IpAddr::from(V4), own6().into()])
}

/// Pieces in a row.
fn all(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn ethernet(source: [u8; 6], kind: u16) -> Vec<u8> {
    all(&[&[0xff; 6], &source, &kind.to_be_bytes()])
}

fn arp(operation: u8, hardware: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let form = [0, 1, 8, 0, 6, 4, 0, operation];
    all(&[&ethernet(MAC, ARP), &form, &hardware, &address, &[0; 6], &[10, 0, 0, 1]])
}

/// Protocol, fragment word, source, destination, what follows.
fn ipv4(protocol: u8, fragment: u16, from: [u8; 4], to: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let start = [0x45, 0, 0, 40, 0, 0];
    let middle = [64, protocol, 0, 0];
    all(&[&ethernet(MAC, IPV4), &start, &fragment.to_be_bytes(), &middle, &from, &to, rest])
}

fn ipv6(next: u8, hops: u8, from: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    let to = v6("ff02::1").octets();
    let start = [0x60, 0, 0, 0, length[0], length[1], next, hops];
    all(&[&ethernet(MAC, IPV6), &start, &from.octets(), &to, rest])
}

/// An option with an Ethernet address.
fn link(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    all(&[&[kind, 1], &mac])
}

fn neighbour(kind: u8, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    ipv6(ICMPV6, 255, from, &all(&[&[kind, 0, 0, 0, 0, 0, 0, 0], &target.octets(), options]))
}

const ANY: [u8; 4] = [0; 4];
const ALL: [u8; 4] = [255; 4];
const FOREIGN: [u8; 4] = [10, 0, 0, 3];

#[test]
fn arp_speaks_of_its_own() {
    for (frame, seen) in [
        (arp(1, MAC, V4), Some(42)),
        (arp(2, MAC, V4), Some(42)),
        (arp(1, MAC, ANY), Some(42)),
        (arp(2, MAC, ANY), None),
        (arp(1, OTHER, V4), None),
        (arp(1, MAC, FOREIGN), None),
        (arp(2, MAC, FOREIGN), None),
        (arp(3, MAC, V4), None),
        (arp(1, MAC, V4)[..41].to_vec(), None),
    ] {
        assert_eq!(filter().seen(&frame), seen, "{frame:x?}");
    }
    // Other hardware, another protocol, other lengths.
    for (at, value) in [(15, 6), (17, 1), (18, 8), (19, 16), (20, 1)] {
        let mut frame = arp(1, MAC, V4);
        frame[at] = value;
        assert_eq!(filter().look(&frame), Verdict::Drop, "{at}");
    }
}

#[test]
fn ipv4_has_a_true_source_or_asks_for_one() {
    let mut options = ipv4(6, 0, V4, ALL, &[0; 40]);
    options[14] = 0x4f;
    let mut short = options.clone();
    short[14] = 0x44;
    let mut version = options.clone();
    version[14] = 0x65;
    for (frame, seen) in [
        (ipv4(6, 0, V4, FOREIGN, &[]), Some(34)),
        (ipv4(17, 0x2001, V4, FOREIGN, &[]), Some(34)),
        (options, Some(74)),
        (short, None),
        (version, None),
        (ipv4(6, 0, FOREIGN, V4, &[0; 20]), None),
        (ipv4(6, 0, ANY, V4, &[0; 20]), None),
        (ipv4(UDP, 0, ANY, ALL, &[0, 68, 0, 67]), Some(38)),
        (ipv4(UDP, 0x4000, ANY, ALL, &[0, 68, 0, 67]), Some(38)),
        (ipv4(UDP, 0, ANY, ALL, &[0, 68, 0]), None),
        (ipv4(UDP, 0, ANY, ALL, &[0, 67, 0, 68]), None),
        (ipv4(UDP, 0x2000, ANY, ALL, &[0, 68, 0, 67]), None),
        (ipv4(UDP, 1, ANY, ALL, &[0, 68, 0, 67]), None),
        (ipv4(6, 0, ANY, ALL, &[0, 68, 0, 67]), None),
        (ipv4(UDP, 0, ANY, FOREIGN, &[0, 68, 0, 67]), None),
        (ipv4(6, 0, V4, FOREIGN, &[])[..33].to_vec(), None),
    ] {
        assert_eq!(filter().seen(&frame), seen, "{frame:x?}");
    }
}

#[test]
fn ipv6_has_a_true_source_or_looks_for_one() {
    let none = Ipv6Addr::UNSPECIFIED;
    let (foreign, stranger) = (v6("fd00::3"), v6("fe80::1"));
    let report = |kind| [ICMPV6, 0, 5, 2, 0, 0, 1, 0, kind, 0, 0, 0];
    for (frame, seen) in [
        (ipv6(6, 64, own6(), &[0; 20]), Some(54)),
        (ipv6(6, 64, local6(), &[0; 20]), Some(54)),
        (ipv6(6, 64, foreign, &[0; 20]), None),
        (ipv6(6, 64, stranger, &[0; 20]), None),
        (ipv6(6, 64, none, &[0; 20]), None),
        (ipv6(44, 64, own6(), &[0; 20]), Some(54)),
        (ipv6(ICMPV6, 64, own6(), &[128, 0, 0, 0]), Some(55)),
        (ipv6(ICMPV6, 64, none, &[128, 0, 0, 0]), None),
        // Who is new: reports, and nothing else behind a router alert.
        (ipv6(0, 1, none, &report(143)), Some(63)),
        (ipv6(0, 1, none, &report(131)), Some(63)),
        (ipv6(0, 1, none, &report(130)), None),
        (ipv6(0, 255, none, &report(143)), None),
        (ipv6(60, 1, none, &report(143)), None),
        (ipv6(0, 1, local6(), &report(143)), Some(54)),
    ] {
        assert_eq!(filter().seen(&frame), seen, "{frame:x?}");
    }
}

#[test]
fn neighbour_discovery_speaks_of_its_own() {
    let none = Ipv6Addr::UNSPECIFIED;
    let foreign = v6("fd00::3");
    let (ask, tell) = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    for (frame, passes) in [
        (neighbour(ask, own6(), foreign, &link(1, MAC)), true),
        (neighbour(ask, local6(), foreign, &link(1, MAC)), true),
        (neighbour(ask, own6(), foreign, &link(1, OTHER)), false),
        (neighbour(ask, foreign, own6(), &link(1, MAC)), false),
        (neighbour(tell, own6(), own6(), &link(2, MAC)), true),
        (neighbour(tell, local6(), own6(), &[]), true),
        (neighbour(tell, own6(), foreign, &link(2, MAC)), false),
        (neighbour(tell, own6(), own6(), &link(2, OTHER)), false),
        (neighbour(tell, own6(), own6(), &all(&[&nonce, &link(2, OTHER)])), false),
        (neighbour(tell, none, own6(), &link(2, MAC)), false),
        // Is my address free? Never: is yours?
        (neighbour(ask, none, own6(), &nonce), true),
        (neighbour(ask, none, local6(), &[]), true),
        (neighbour(ask, none, foreign, &nonce), false),
        (neighbour(ROUTER_ADVERTISEMENT, local6(), own6(), &[]), false),
        (neighbour(ICMPV6_REDIRECT, local6(), own6(), &[]), false),
        // Options of no length, past the end, more than can be seen.
        (neighbour(ask, own6(), foreign, &[1, 0, 0, 0, 0, 0, 0, 0]), false),
        (neighbour(ask, own6(), foreign, &[14, 2, 0, 0, 0, 0, 0, 0]), false),
        (neighbour(ask, own6(), foreign, &[14]), false),
        (neighbour(ask, own6(), foreign, &[&[14, 5][..], &[0; 38]].concat()), false),
        (
            ipv6(ICMPV6, 255, local6(), &[133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 1, 2, 3]),
            true,
        ),
        (ipv6(ICMPV6, 255, none, &[133, 0, 0, 0, 0, 0, 0, 0]), true),
        (ipv6(ICMPV6, 255, local6(), &[133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1]), false),
        (ipv6(ICMPV6, 255, local6(), &[133, 0, 0]), false),
    ] {
        let seen = &frame[..frame.len().min(HEAD)];
        assert_eq!(filter().look(seen) != Verdict::Drop, passes, "{frame:x?}");
    }
    // The same hidden behind each extension header.
    for next in EXTENSIONS {
        let hidden = ipv6(next, 255, own6(), &[ICMPV6, 0, 0, 0, 0, 0, 0, 0, tell, 0, 0, 0]);
        assert_eq!(filter().look(&hidden), Verdict::Drop, "{next}");
    }
}

#[test]
fn nothing_else_leaves() {
    let body = ipv4(6, 0, V4, FOREIGN, &[0; 20])[14..].to_vec();
    for kind in [0x8100, 0x88a8, 0x8863, 0x8847, 0x0805, 0x8035, 46, 0] {
        let frame = all(&[&ethernet(MAC, kind), &body]);
        assert_eq!(filter().look(&frame), Verdict::Drop, "{kind:x}");
    }
    let foreign = all(&[&ethernet(OTHER, IPV4), &body]);
    assert_eq!(filter().look(&foreign), Verdict::Drop);
    for length in 0..34 {
        let frame = &ipv4(6, 0, V4, FOREIGN, &[])[..length];
        assert_eq!(filter().look(frame), Verdict::Drop, "{length}");
    }
    // Without addresses there is only what looks for one.
    let nobody = Filter::new(Mac(MAC), &[]);
    assert_eq!(nobody.look(&ipv4(6, 0, V4, FOREIGN, &[])), Verdict::Drop);
    assert_ne!(nobody.look(&ipv4(UDP, 0, ANY, ALL, &[0, 68, 0, 67])), Verdict::Drop);
    assert_ne!(nobody.look(&arp(1, MAC, ANY)), Verdict::Drop);
}

/// Whether a frame says of anybody else that it came from there: no parser, only fixed places.
fn is_foreign(frame: &[u8]) -> bool {
    let at = |from: usize, length: usize| frame.get(from..from + length).unwrap_or(&[]);
    let mine6 = |bytes: &[u8]| bytes == own6().octets() || bytes == local6().octets();
    let source = match at(12, 2) {
        [8, 6] => at(22, 6) == MAC && (at(28, 4) == V4 || at(28, 4) == ANY),
        [8, 0] => at(26, 4) == V4 || at(26, 4) == ANY && at(30, 4) == ALL,
        [0x86, 0xdd] => mine6(at(22, 16)) || at(22, 16) == [0; 16],
        _ => false,
    };
    let claims = at(12, 2) == [0x86, 0xdd]
        && at(20, 1) == [ICMPV6]
        && (at(54, 1) == [136] || at(54, 1) == [135] && at(22, 16) == [0; 16]);
    at(6, 6) != MAC || !source || claims && !mine6(at(62, 16))
}

fn seeds() -> Vec<Vec<u8>> {
    let none = Ipv6Addr::UNSPECIFIED;
    vec![
        arp(1, MAC, V4),
        arp(2, MAC, V4),
        ipv4(6, 0, V4, FOREIGN, &[0; 30]),
        ipv4(UDP, 0, ANY, ALL, &[0, 68, 0, 67, 0, 0, 0, 0]),
        ipv6(6, 64, own6(), &[0; 30]),
        neighbour(135, own6(), v6("fd00::3"), &link(1, MAC)),
        neighbour(136, local6(), own6(), &link(2, MAC)),
        neighbour(135, none, own6(), &[]),
        ipv6(0, 1, none, &[ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    /// Frames of a kernel with some bytes changed, and noise: none that passes is another's.
    #[test]
    fn no_foreign_source_passes(
        seed in 0usize..10,
        noise in prop::collection::vec(any::<u8>(), 0..160),
        changes in prop::collection::vec(
            (0usize..100, prop_oneof![any::<u8>(), Just(0u8), Just(255u8), Just(58u8)]), 0..4),
        cut in 0usize..160,
    ) {
        let mut frame = seeds().get(seed).cloned().unwrap_or(noise);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.max(20));
        let seen = &frame[..frame.len().min(HEAD)];
        match filter().look(seen) {
            Verdict::Pass(end) => {
                prop_assert!(!is_foreign(&frame), "{frame:x?}");
                prop_assert!(end <= seen.len());
                // The verdict rests on what it says that it rests on.
                let mut other = frame.clone();
                other[end..].fill(0xa5);
                let other = &other[..seen.len()];
                prop_assert_eq!(filter().look(other), Verdict::Pass(end));
            }
            Verdict::Drop => {}
        }
    }

    /// What the guest's own kernel sends passes, whatever it carries.
    #[test]
    fn own_frames_pass(seed in 0usize..9, rest in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut frame = seeds().swap_remove(seed);
        // Ethernet's padding.
        frame.extend_from_slice(&rest);
        let seen = &frame[..frame.len().min(HEAD)];
        prop_assert!(filter().look(seen) != Verdict::Drop, "{frame:x?}");
    }
}
