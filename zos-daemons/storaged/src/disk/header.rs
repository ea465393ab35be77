//! The pool header: whose a pool is and how far its making got, readable without mounting anything.
//!
//! ```text
//!  512 KiB  slot 0 ┐  the valid one with the higher sequence counts; a write goes to the other,
//!  516 KiB  slot 1 ┘  so a power cut leaves the header before or after it
//!
//!  slot (4 KiB): magic "ZOSPOOL1" ‖ length u32 LE ‖ SHA-256 of the text ‖ text (JSON)
//! ```
//! It lies in the gap that GPT leaves before the first partition, and not in the file system: so a
//! pool of another node is recognised without a single byte of it being changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zos_types::NodeId;

use super::gpt::Guid;
use crate::copies::Mark;

/// Where the first slot lies, in bytes from the disk's begin.
pub const AT: u64 = 512 << 10;
/// Size of a slot.
pub const SLOT: usize = 4096;
/// Size of both slots.
pub const SIZE: usize = 2 * SLOT;
/// The version that this code writes, and the newest that it reads.
/// Version 1 knew one copy of the state, which has no mark.
pub const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"ZOSPOOL1";
const TEXT: usize = 8 + 4 + 32;

/// How far the making of a pool got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Begun; nothing was ever kept in it.
    Adopting,
    /// In use.
    Ready,
    /// In use, and being emptied by the farmer's word.
    Leaving,
    /// It is empty, and the disk is being wiped.
    Wiping,
    /// Nothing is left but this header. It keeps the disk from being adopted again unasked.
    Released,
}

/// What is known of a pool before it is opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Version of this form.
    pub version: u32,
    /// Counts the writes.
    pub sequence: u64,
    /// The pool's id: 16 hexadecimal digits.
    pub pool: String,
    /// The unique id of its partition, in hexadecimal as it lies in the table.
    pub partition: String,
    /// Size of the disk that it was made on, in bytes.
    pub disk_size: u64,
    /// How far it is made.
    pub stage: Stage,
    /// The node that it belongs to, once one has said so.
    pub owner: Option<NodeId>,
    /// Whether the node's state lies on it.
    pub state: bool,
    /// The pools on which the state lies: the record that a boot waits for.
    pub state_pools: Vec<String>,
    /// Made because the farmer said `zos.identity=new`: in place of these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Vec<NodeId>>,
    /// Made over what was on the disk, by the farmer's word: its fingerprint, as long as some of it may be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Which history of the state lies on it; none also on one with the state that an older ZOS made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Mark>,
}

/// What the slots hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing that begins like a header.
    None,
    /// A header.
    Header(Box<Header>),
    /// A header of a later version than this code knows.
    Newer(u32),
    /// Begins like one, but neither slot is whole.
    Broken,
}

impl Header {
    /// A slot's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("plain data");
        assert!(text.len() <= SLOT - TEXT, "a header fits its slot");
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&u32::try_from(text.len()).expect("below 4 KiB").to_le_bytes());
        slot.extend_from_slice(&Sha256::digest(&text));
        slot.extend_from_slice(&text);
        slot.resize(SLOT, 0);
        slot
    }

    /// Where this header's slot lies: they take turns.
    pub fn place(&self) -> u64 {
        AT + (self.sequence % 2) * SLOT as u64
    }

    /// The unique id of its partition; zeros if the text holds none.
    pub fn partition_id(&self) -> Guid {
        let mut id = [0; 16];
        let _ = hex::decode_to_slice(&self.partition, &mut id);
        Guid(id)
    }

    /// The id of the disk's table. It hangs on the partition's, so that a header says each byte of its table.
    pub fn table_id(&self) -> Guid {
        let hash = Sha256::new().chain_update("zos table").chain_update(self.partition_id().0);
        let mut id: [u8; 16] = hash.finalize()[..16].try_into().expect("a hash is longer");
        // RFC 9562, version 8: made in a way of one's own.
        id[7] = id[7] & 0x0f | 0x80;
        id[8] = id[8] & 0x3f | 0x80;
        Guid(id)
    }

    /// Where the other slot lies.
    pub fn other_place(&self) -> u64 {
        AT + (self.sequence.wrapping_add(1) % 2) * SLOT as u64
    }

    /// The file system's label.
    pub fn label(&self) -> String {
        format!("zos-{}", self.pool)
    }
}

/// Reads both slots.
pub fn read(slots: &[u8]) -> Found {
    let mut best: Option<Header> = None;
    let mut newer: Option<Version> = None;
    let mut begun = false;
    for slot in slots.chunks_exact(SLOT).take(2) {
        begun |= slot.starts_with(MAGIC);
        match decode(slot) {
            Some(Ok(header)) if best.as_ref().is_none_or(|b| b.sequence < header.sequence) => {
                best = Some(header);
            }
            Some(Err(version)) if newer.as_ref().is_none_or(|n| n.sequence < version.sequence) => {
                newer = Some(version);
            }
            _ => {}
        }
    }
    match (newer, best) {
        // The farmer may give a disk with a newer pool to this code, which then wrote last.
        (Some(newer), Some(header)) if header.sequence > newer.sequence => {
            Found::Header(Box::new(header))
        }
        (Some(newer), _) => Found::Newer(newer.version),
        (None, Some(header)) => Found::Header(Box::new(header)),
        (None, None) if begun => Found::Broken,
        (None, None) => Found::None,
    }
}

/// The sequence by which a header outdoes what the slots hold.
pub fn next_sequence(slots: &[u8]) -> u64 {
    let sequence = |slot| match decode(slot)? {
        Ok(header) => Some(header.sequence),
        // One that counts in another way is taken away after ours is written.
        Err(newer) => Some(newer.sequence).filter(|sequence| *sequence < u64::MAX),
    };
    slots.chunks_exact(SLOT).take(2).filter_map(sequence).max().map_or(1, |last| last + 1)
}

/// What a header of any version says of itself.
#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
    #[serde(default = "last")]
    sequence: u64,
}

fn last() -> u64 {
    u64::MAX
}

/// A slot's header; `Err`: of a newer version.
fn decode(slot: &[u8]) -> Option<Result<Header, Version>> {
    let rest = slot.strip_prefix(MAGIC)?;
    let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
    let text = rest.get(36..36 + usize::try_from(length).ok()?)?;
    if Sha256::digest(text)[..] != rest[4..36] {
        return None;
    }
    let version: Version = serde_json::from_slice(text).ok()?;
    if version.version > VERSION {
        return Some(Err(version));
    }
    let header: Header = serde_json::from_slice(text).ok()?;
    let plain = header.pool.len() == 16 && header.pool.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then_some(Ok(header))
}

#[cfg(test)]
pub(crate) fn sample(pool: u64) -> Header {
    Header {
        version: VERSION,
        sequence: 1,
        pool: format!("{pool:016x}"),
        partition: hex::encode([7; 16]),
        disk_size: 8 << 20,
        stage: Stage::Ready,
        owner: None,
        state: true,
        state_pools: vec![format!("{pool:016x}")],
        instead_of: None,
        over: None,
        copy: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::copies::Generation;
    use crate::copies::mark::PAST;

    fn slots(headers: &[&Header]) -> Vec<u8> {
        let mut slots = vec![0; SIZE];
        for header in headers {
            let at = usize::try_from(header.place() - AT).unwrap();
            slots[at..at + SLOT].copy_from_slice(&header.encode());
        }
        slots
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let first = sample(5);
        let second = Header { sequence: 2, stage: Stage::Adopting, ..first.clone() };
        let found = |slots: &[u8]| match read(slots) {
            Found::Header(header) => header.sequence,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(&slots(&[&first])), 1);
        let mut both = slots(&[&first, &second]);
        assert_eq!(found(&both), 2);
        // a torn write of the second leaves the first
        both[100] ^= 1;
        assert_eq!(found(&both), 1);
        both[SLOT + 100] ^= 1;
        assert_eq!(read(&both), Found::Broken);
        assert_eq!(read(&[0; SIZE]), Found::None);
    }

    #[test]
    fn a_newer_form_is_told() {
        let newer = Header { version: 9, sequence: 2, ..sample(5) };
        assert_eq!(read(&slots(&[&sample(5), &newer])), Found::Newer(9));
        assert_eq!(next_sequence(&slots(&[&sample(5), &newer])), 3);
        // unless this code wrote after it, by the farmer's word
        let ours = Header { sequence: 3, ..sample(6) };
        assert_eq!(read(&slots(&[&newer, &ours])), Found::Header(Box::new(ours)));
        assert_eq!(next_sequence(&[0; SIZE]), 1);
    }

    #[test]
    fn the_longest_header_fits() {
        let node = ("fgsmiakbzufxbctqdkkpguemah5bhwupbx9bf1rz116jgewspzmo").parse().unwrap();
        let header = Header {
            owner: Some(node),
            sequence: u64::MAX,
            state_pools: vec!["f".repeat(16); 8],
            instead_of: Some(vec![node; 16]),
            over: Some("f".repeat(super::super::fingerprint::LENGTH)),
            copy: Some(Mark {
                epoch: u64::MAX,
                past: vec![Generation(u64::MAX); PAST],
                ..Mark::first(Generation(u64::MAX))
            }),
            ..sample(u64::MAX)
        };
        assert_eq!(header.encode().len(), SLOT);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, at in 0..SIZE) {
            let mut slots = slots(&[&sample(1)]);
            let to = (at + bytes.len()).min(SIZE);
            slots[at..to].copy_from_slice(&bytes[..to - at]);
            let _ = read(&slots);
            let _ = read(&bytes);
        }
    }
}
