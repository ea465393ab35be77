//! `virtio_net_hdr` (virtio 1.2, 5.1.6): what stands before every frame, and when we believe it.
//!
//! ```text
//!  flags  gso_type  hdr_len  gso_size  csum_start  csum_offset  num_buffers      12 bytes, little-endian
//!   1        1         2        2          2            2            2
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a checksum outside the frame, or over its Ethernet header | dropped |
//! | segments of a kind that was not agreed on, or that doesn't fit the frame's protocol | dropped |
//! | one frame that becomes tens of thousands | at most 2048 segments |
//! | flags that mean nothing in this direction | cleared |

use super::features::{F_CSUM, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO};

/// Its length.
pub(super) const BYTES: usize = 12;
/// `num_buffers` stands here.
pub(super) const NUM_BUFFERS_AT: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// Shortest network headers.
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Transport headers: length, and where the checksum stands.
const TCP: (usize, usize) = (20, 16);
const UDP: (usize, usize) = (8, 6);
/// TCP may come down to 36 bytes a segment with a peer that wants so; what is below serves nobody.
const MOST_SEGMENTS: usize = 2048;

/// The header of a frame that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso: u8,
    header_bytes: u16,
    segment: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// What a header says that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    header: Header,
    /// Frames on the wire.
    pub(super) segments: usize,
    /// Where in the frame the kernel will write a checksum of two bytes.
    pub(super) checksum_at: Option<usize>,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; BYTES]) -> Self {
        let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = *bytes;
        Self {
            flags,
            gso,
            header_bytes: u16::from_le_bytes([h0, h1]),
            segment: u16::from_le_bytes([s0, s1]),
            csum_start: u16::from_le_bytes([c0, c1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// As the tap is to read it.
    fn bytes(self) -> [u8; BYTES] {
        let [h0, h1] = self.header_bytes.to_le_bytes();
        let [s0, s1] = self.segment.to_le_bytes();
        let [c0, c1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
    }

    /// Checks it against the frame behind it, of `length` bytes that begin with `frame`, and
    /// against the features that were agreed on. `None`: it isn't to be sent.
    pub(super) fn check(self, frame: &[u8], length: usize, features: u64) -> Option<Checked> {
        if length < ETHERNET {
            return None;
        }
        let checksum_at = match self.flags & NEEDS_CSUM {
            0 => None,
            _ => Some(self.checksum(length).filter(|_| features & F_CSUM != 0)?),
        };
        // Without a meaning for the receiver they are zero: the driver may leave anything there.
        let mut header = Self { flags: self.flags & NEEDS_CSUM, ..self };
        if checksum_at.is_none() {
            (header.csum_start, header.csum_offset) = (0, 0);
        }
        let segments = if self.gso == GSO_NONE {
            (header.header_bytes, header.segment) = (0, 0);
            1
        } else {
            checksum_at?;
            self.segments(frame, length, features)?
        };
        Some(Checked { header, segments, checksum_at })
    }

    /// Where the checksum goes: inside the frame and behind its Ethernet header.
    fn checksum(self, length: usize) -> Option<usize> {
        let start = usize::from(self.csum_start);
        let at = start + usize::from(self.csum_offset);
        (start >= ETHERNET && at + 2 <= length).then_some(at)
    }

    /// Into how many frames it will be cut; none when it can't be.
    fn segments(self, frame: &[u8], length: usize, features: u64) -> Option<usize> {
        let kind: [u8; 2] = frame.get(12..ETHERNET)?.try_into().ok()?;
        let (families, needed, transport): (&[_], _, _) = match self.gso & !GSO_ECN {
            GSO_TCPV4 => (&[(IPV4, IPV4_BYTES)], F_HOST_TSO4, TCP),
            GSO_TCPV6 => (&[(IPV6, IPV6_BYTES)], F_HOST_TSO6, TCP),
            GSO_UDP_L4 => (&[(IPV4, IPV4_BYTES), (IPV6, IPV6_BYTES)], F_HOST_USO, UDP),
            _ => return None,
        };
        let ecn = self.gso & GSO_ECN != 0;
        let agreed =
            features & needed != 0 && (!ecn || transport == TCP && features & F_HOST_ECN != 0);
        // Behind a VLAN tag stands what the kernel will look at itself.
        let network = match families.iter().find(|(family, _)| *family == kind) {
            Some((_, bytes)) => *bytes,
            None if VLAN.contains(&kind) => 4 + IPV4_BYTES,
            None => return None,
        };
        let (transport_bytes, checksum_at) = transport;
        let start = usize::from(self.csum_start);
        let payload = length.checked_sub(start + transport_bytes)?;
        let segment = usize::from(self.segment);
        let right = agreed
            && start >= ETHERNET + network
            && usize::from(self.csum_offset) == checksum_at
            && usize::from(self.header_bytes) <= length
            && segment > 0;
        let segments = payload.div_ceil(segment.max(1)).max(1);
        (right && segments <= MOST_SEGMENTS).then_some(segments)
    }
}

impl Checked {
    /// What the tap gets before the frame.
    pub(super) fn bytes(self) -> [u8; BYTES] {
        self.header.bytes()
    }
}

#[cfg(test)]
mod tests;
