//! Headers right and wrong.

use super::super::features::offered;
use super::*;
use proptest::prelude::*;

const ALL: u64 = u64::MAX;

fn header(flags: u8, gso: u8, numbers: [u16; 4]) -> Header {
    let [header_bytes, segment, csum_start, csum_offset] = numbers;
    Header { flags, gso, header_bytes, segment, csum_start, csum_offset }
}

/// A frame of this protocol.
fn frame(kind: [u8; 2], length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[12..14].copy_from_slice(&kind);
    frame
}

#[test]
fn what_a_kernel_sends_passes() {
    for (header, kind, length, segments, checksum_at) in [
        (header(0, 0, [0; 4]), IPV4, 60, 1, None),
        (header(1, 0, [0, 0, 34, 16]), IPV4, 1514, 1, Some(50)),
        (header(1, 0, [0, 0, 54, 6]), IPV6, 1514, 1, Some(60)),
        (header(1, GSO_TCPV4, [66, 1448, 34, 16]), IPV4, 66 + 14480, 11, Some(50)),
        (header(1, GSO_TCPV4 | GSO_ECN, [66, 1448, 34, 16]), IPV4, 54 + 1448, 1, Some(50)),
        (header(1, GSO_TCPV6, [86, 1428, 54, 16]), IPV6, 74 + 2 * 1428, 2, Some(70)),
        (header(1, GSO_UDP_L4, [42, 1200, 34, 6]), IPV4, 42 + 12001, 11, Some(40)),
        (header(1, GSO_UDP_L4, [62, 1200, 54, 6]), IPV6, 62 + 1200, 1, Some(60)),
        (header(1, GSO_TCPV4, [70, 1448, 38, 16]), VLAN[0], 58 + 1448, 1, Some(54)),
    ] {
        let checked = header.check(&frame(kind, length), length, ALL).unwrap();
        assert_eq!((checked.segments, checked.checksum_at), (segments, checksum_at), "{header:?}");
        assert_eq!(Header::parse(&checked.bytes()), header);
    }
}

#[test]
fn what_lies_is_refused() {
    let tcp = [54, 1448, 34, 16];
    for (header, kind, length, features) in [
        // Checksums: past the end, over the Ethernet header, not agreed on.
        (header(1, 0, [0, 0, 34, 16]), IPV4, 51, ALL),
        (header(1, 0, [0, 0, 0xffff, 0xffff]), IPV4, 60, ALL),
        (header(1, 0, [0, 0, 0, 6]), IPV4, 60, ALL),
        (header(1, 0, [0, 0, 34, 16]), IPV4, 60, ALL & !F_CSUM),
        // Segments: unknown, UFO, not agreed on, without a checksum, of another protocol.
        (header(1, 2, tcp), IPV4, 3000, ALL),
        (header(1, 3, [42, 1448, 34, 6]), IPV4, 3000, ALL),
        (header(1, 0x40, tcp), IPV4, 3000, ALL),
        (header(1, GSO_ECN, tcp), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, tcp), IPV4, 3000, ALL & !F_HOST_TSO4),
        (header(1, GSO_TCPV4 | GSO_ECN, tcp), IPV4, 3000, ALL & !F_HOST_ECN),
        (header(1, GSO_UDP_L4 | GSO_ECN, [42, 1200, 34, 6]), IPV4, 3000, ALL),
        (header(1, GSO_UDP_L4, [42, 1200, 34, 6]), IPV4, 3000, ALL & !F_HOST_USO),
        (header(0, GSO_TCPV4, tcp), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, tcp), IPV6, 3000, ALL),
        (header(1, GSO_TCPV6, [74, 1428, 54, 16]), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, tcp), [0x08, 0x06], 3000, ALL),
        // Of no length, of too many, with headers longer than the frame.
        (header(1, GSO_TCPV4, [54, 0, 34, 16]), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, [54, 1, 34, 16]), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, [3001, 1448, 34, 16]), IPV4, 3000, ALL),
        (header(1, GSO_TCPV4, tcp), IPV4, 53, ALL),
        // A transport header inside the network's, a checksum that isn't TCP's.
        (header(1, GSO_TCPV4, [54, 1448, 33, 16]), IPV4, 3000, ALL),
        (header(1, GSO_TCPV6, [54, 1448, 34, 16]), IPV6, 3000, ALL),
        (header(1, GSO_TCPV4, [54, 1448, 34, 6]), IPV4, 3000, ALL),
        // Less than an Ethernet header.
        (header(0, 0, [0; 4]), [0; 2], 13, ALL),
    ] {
        let frame = frame(kind, length.max(14));
        assert_eq!(header.check(&frame[..length], length, features), None, "{header:?} {length}");
    }
}

#[test]
fn what_means_nothing_is_cleared() {
    let odd = header(0xfe, 0, [700, 9, 0xffff, 0xffff]);
    let checked = odd.check(&frame(IPV4, 60), 60, ALL).unwrap();
    assert_eq!(checked.bytes(), [0; BYTES]);
}

proptest! {
    /// Whatever a guest writes: what passes lies within the frame and was agreed on.
    #[test]
    fn any_header(
        flags in any::<u8>(),
        gso in prop_oneof![Just(0u8), 1u8..6, any::<u8>()],
        numbers in any::<[u16; 4]>(),
        near in prop::collection::vec(0u16..200, 4),
        small in any::<bool>(),
        kind in prop_oneof![Just(IPV4), Just(IPV6), Just(VLAN[0]), any::<[u8; 2]>()],
        length in 0usize..70_000,
        uso in any::<bool>(),
    ) {
        let numbers = if small { [near[0], near[1], near[2], near[3]] } else { numbers };
        let features = offered(true, 1, uso);
        let frame = frame(kind, length.max(14));
        let seen = &frame[..length.min(116)];
        if let Some(checked) = header(flags, gso, numbers).check(seen, length, features) {
            let sent = Header::parse(&checked.bytes());
            prop_assert_eq!(sent.flags & !NEEDS_CSUM, 0);
            prop_assert!(checked.checksum_at.is_none_or(|at| at >= 14 && at + 2 <= length));
            prop_assert!([0, 1, 4, 5, 0x81, 0x84].contains(&sent.gso) && (uso || sent.gso != 5));
            prop_assert!((1..=MOST_SEGMENTS).contains(&checked.segments));
            prop_assert!(usize::from(sent.header_bytes) <= length);
        }
    }
}
