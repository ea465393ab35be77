//! Ethernet frames around DHCP messages.
//!
//! ```text
//!  0           14        34     42
//!  │ Ethernet  │ IPv4    │ UDP  │ DHCP message …
//!  │ dst src t │ 20..60  │ 8    │
//! ```
//! Read: IEEE 802.3, RFC 791, RFC 768. The UDP checksum of what comes in isn't looked at: with
//! checksum offload (virtio, veth) the kernel hands out frames without it.

use std::net::Ipv4Addr;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
/// To everyone on the link.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// The server's port.
pub const SERVER: u16 = 67;
/// The client's port.
pub const CLIENT: u16 = 68;

/// A UDP datagram with what is around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Hardware address it is from.
    pub source_mac: [u8; 6],
    /// Hardware address it is for.
    pub target_mac: [u8; 6],
    /// Address and port it is from.
    pub source: (Ipv4Addr, u16),
    /// Address and port it is for.
    pub target: (Ipv4Addr, u16),
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a frame; `None` for anything but a whole, unfragmented UDP datagram over IPv4.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
        if ethernet[12..14] != [0x08, 0x00] || packet.len() < IPV4 {
            return None;
        }
        let header = usize::from(packet[0] & 0x0f) * 4;
        let total = usize::from(word(packet, 2)?);
        let whole = packet[0] >> 4 == 4
            && header >= IPV4
            && total >= header + UDP
            && total <= packet.len()
            && word(packet, 6)? & 0x3fff == 0
            && packet[9] == 17
            && sum(&packet[..header], 0) == 0xffff;
        if !whole {
            return None;
        }
        let udp = &packet[header..total];
        let length = usize::from(word(udp, 4)?);
        if length < UDP || length > udp.len() {
            return None;
        }
        Some(Self {
            source_mac: ethernet[6..12].try_into().ok()?,
            target_mac: ethernet[..6].try_into().ok()?,
            source: (address(packet, 12)?, word(udp, 0)?),
            target: (address(packet, 16)?, word(udp, 2)?),
            payload: &udp[UDP..length],
        })
    }

    /// The frame's bytes; `None` when the payload is too long for one packet.
    pub fn write(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(UDP + self.payload.len()).ok()?;
        let total = length.checked_add(20)?;
        let mut frame = Vec::with_capacity(ETHERNET + usize::from(total));
        frame.extend(self.target_mac);
        frame.extend(self.source_mac);
        frame.extend([0x08, 0x00]);

        // version 4, 5 words; DSCP CS6 as network control; don't fragment; TTL 64; UDP
        frame.extend([0x45, 0xc0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(self.source.0.octets());
        frame.extend(self.target.0.octets());
        let check = !sum(&frame[ETHERNET..], 0);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&check.to_be_bytes());

        let udp = frame.len();
        frame.extend(self.source.1.to_be_bytes());
        frame.extend(self.target.1.to_be_bytes());
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(self.payload);
        // the pseudo header: both addresses, protocol, length
        let pseudo = sum(&frame[ETHERNET + 12..ETHERNET + 20], 17 + u32::from(length));
        let check = match !sum(&frame[udp..], u32::from(pseudo)) {
            0 => 0xffff,
            check => check,
        };
        frame[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
        Some(frame)
    }
}

/// The Internet's checksum, not yet inverted (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0xffff)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            source_mac: [2, 0, 0, 0, 0, 1],
            target_mac: BROADCAST,
            source: (Ipv4Addr::UNSPECIFIED, CLIENT),
            target: (Ipv4Addr::BROADCAST, SERVER),
            payload,
        }
    }

    #[test]
    fn what_is_no_datagram_is_none() {
        let good = sample(b"hello").write().unwrap();
        assert_eq!(Datagram::read(&good), Some(sample(b"hello")));
        let check = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = good.clone();
            change(&mut frame);
            assert_eq!(Datagram::read(&frame), None, "{what}");
        };
        check("empty", &|f| f.clear());
        check("IPv6", &|f| f[12] = 0x86);
        check("cut", &|f| f.truncate(45));
        check("header checksum", &|f| f[24] ^= 1);
        check("header of 16 bytes", &|f| f[14] = 0x44);
        check("UDP longer than the packet", &|f| f[38] = 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payload: Vec<u8>, source: [u8; 6], from: u32, port: u16) {
            prop_assume!(payload.len() < 1400);
            let datagram = Datagram {
                source_mac: source,
                source: (from.into(), port),
                ..sample(&payload)
            };
            let frame = datagram.write().unwrap();
            prop_assert_eq!(Datagram::read(&frame), Some(datagram.clone()));
            // padding to Ethernet's least size is no part of it
            let padded = [frame, vec![0; 18]].concat();
            prop_assert_eq!(Datagram::read(&padded), Some(datagram));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Datagram::read(&bytes);
        }

        #[test]
        fn any_change_is_read_without_a_panic(at in 0usize..47, byte: u8) {
            let mut frame = sample(b"hello").write().unwrap();
            frame[at] = byte;
            let _ = Datagram::read(&frame);
        }
    }
}
