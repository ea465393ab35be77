//! The header of a packet (virtio 1.2, 5.10.6): 44 bytes, little-endian, then `len` bytes of data.
//!
//! Read once into memory of ours, so that the guest can't change it between check and use. It may
//! lie in any number of buffers (2.7.4), so it is taken from the chain as bytes.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;
/// Most bytes of data in one packet.
pub(super) const MOST_DATA: usize = 64 << 10;
/// The host's context id.
pub(super) const HOST: u64 = 2;
/// A connection of bytes.
pub(super) const STREAM: u16 = 1;

/// What a packet says.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of `SHUTDOWN`: the sender receives no more, sends no more.
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// A packet's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// From the wire.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = &bytes[..];
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// For the wire.
    pub(super) fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.src_cid.to_le_bytes());
        put(&self.dst_cid.to_le_bytes());
        put(&self.src_port.to_le_bytes());
        put(&self.dst_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The refusal of this packet (5.10.6): to where it came from, of the same kind.
    pub(super) fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// Takes the next field off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut field = [0; N];
    let (head, tail) = rest.split_at(N.min(rest.len()));
    field[..head.len()].copy_from_slice(head);
    *rest = tail;
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use virtio_queue::desc::{RawDescriptor, split::Descriptor};
    use virtio_queue::mock::MockSplitQueue;
    use virtio_vsock::packet::VsockPacket;
    use vm_memory::{Bytes, GuestAddress};

    proptest! {
        /// Another implementation (rust-vmm's) reads the same fields out of the same bytes.
        #[test]
        fn as_others_read_it(bytes in prop::array::uniform32(any::<u8>()), more in any::<[u8; 12]>()) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&more);
            // No data, which that one would look for.
            all[24..28].fill(0);
            let header = Header::parse(&all);
            prop_assert_eq!(header.bytes(), all);
            let memory = crate::memory::create(&[(GuestAddress(0), 0x10_0000)]).unwrap();
            memory.write_slice(&all, GuestAddress(0x8000)).unwrap();
            let queue = MockSplitQueue::new(&memory, 16);
            let descriptors =
                [RawDescriptor::from(Descriptor::new(0x8000, 44, 0, 0))];
            let mut chain = queue.build_desc_chain(&descriptors).unwrap();
            let other = VsockPacket::from_tx_virtq_chain(&memory, &mut chain, 4096).unwrap();
            let fields = (
                (header.src_cid, header.dst_cid, header.src_port, header.dst_port, header.len),
                (header.kind, header.op, header.flags, header.buf_alloc, header.fwd_cnt),
            );
            let others = (
                (other.src_cid(), other.dst_cid(), other.src_port(), other.dst_port(), other.len()),
                (other.type_(), other.op(), other.flags(), other.buf_alloc(), other.fwd_cnt()),
            );
            prop_assert_eq!(fields, others);
        }
    }
}
