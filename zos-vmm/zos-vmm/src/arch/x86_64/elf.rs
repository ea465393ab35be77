//! An ELF kernel's headers, looked at before anything is loaded.
//!
//! | A stranger's kernel may | What happens |
//! |---|---|
//! | have 65535 headers that each name the whole file | at most 64, and together they load at most the file |
//! | name bytes behind the file's end, or more bytes in the file than in memory | refused |
//! | name memory that the VM doesn't have, or that wraps around | refused |
//! | have notes without end (each step reads 12 bytes) | at most 64 KiB of notes |
//! | start outside of what it loads | refused |

use std::io::{Read, Seek, SeekFrom};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const MOST_SEGMENTS: u16 = 64;
const MOST_NOTE_BYTES: u64 = 64 << 10;

/// Looks at the headers of a file of `length` bytes, for a VM whose RAM below the hole ends at
/// `ram_end`. Says what is wrong.
pub(super) fn check(
    kernel: &mut (impl Read + Seek),
    length: u64,
    ram_end: u64,
) -> Result<(), &'static str> {
    const SHORT: &str = "its headers are cut off";
    let mut header = [0; HEADER_BYTES];
    kernel.seek(SeekFrom::Start(0)).map_err(|_| SHORT)?;
    kernel.read_exact(&mut header).map_err(|_| SHORT)?;
    let kind = (header[4], header[5], half(&header, 18));
    if header[..4] != MAGIC || kind != (CLASS_64, LITTLE_ENDIAN, MACHINE_X86_64) {
        return Err("it is no ELF of x86_64");
    }
    let (entry, at, count) = (long(&header, 24), long(&header, 32), half(&header, 56));
    if usize::from(half(&header, 54)) != SEGMENT_BYTES || count > MOST_SEGMENTS {
        return Err("its program headers have another size, or there are more than 64");
    }
    kernel.seek(SeekFrom::Start(at)).map_err(|_| SHORT)?;
    let (mut loaded, mut noted, mut has_entry) = (0u64, 0u64, false);
    for _ in 0..count {
        let mut segment = [0; SEGMENT_BYTES];
        kernel.read_exact(&mut segment).map_err(|_| SHORT)?;
        let (offset, address) = (long(&segment, 8), long(&segment, 24));
        let (in_file, in_memory) = (long(&segment, 32), long(&segment, 40));
        let kind = u32::from(half(&segment, 0)) | u32::from(half(&segment, 2)) << 16;
        if !matches!(kind, LOAD | NOTE) {
            continue;
        }
        if offset.checked_add(in_file).is_none_or(|end| end > length) {
            return Err("a segment lies behind the file's end");
        }
        if kind == NOTE {
            noted = noted.saturating_add(in_file);
            continue;
        }
        loaded = loaded.saturating_add(in_file);
        let end = address.checked_add(in_memory).filter(|end| *end <= ram_end);
        let Some(end) = end.filter(|_| in_file <= in_memory) else {
            return Err("a segment doesn't fit into the VM's memory");
        };
        has_entry |= (address..end).contains(&entry);
    }
    if loaded > length || noted > MOST_NOTE_BYTES {
        return Err("its segments are larger than the file, or its notes than 64 KiB");
    }
    if has_entry { Ok(()) } else { Err("it starts outside of what it loads") }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    /// A kernel of one page at 16 MiB, with a PVH entry in a note.
    pub(in super::super) fn kernel(pvh: bool) -> Vec<u8> {
        let mut bytes = vec![0; 0x2000];
        bytes[..4].copy_from_slice(&MAGIC);
        (bytes[4], bytes[5], bytes[18], bytes[54]) = (CLASS_64, LITTLE_ENDIAN, 62, 56);
        bytes[24..32].copy_from_slice(&0x100_0000u64.to_le_bytes());
        (bytes[32], bytes[56]) = (64, 2);
        for (at, kind, offset, address, length) in
            [(64, LOAD, 0x1000u64, 0x100_0000u64, 0x1000u64), (120, NOTE, 0x800, 0, 20)]
        {
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            for (field, value) in [(8, offset), (24, address), (32, length), (40, length)] {
                bytes[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        let kind = if pvh { 18u32 } else { 17 };
        for (field, value) in [(0, 4), (4, 4), (8, kind), (16, 0x100_0040)] {
            bytes[0x800 + field..0x804 + field].copy_from_slice(&u32::to_le_bytes(value));
        }
        bytes[0x80c..0x810].copy_from_slice(b"Xen\0");
        bytes
    }

    #[test]
    fn what_is_wrong_is_said() {
        type Spoil = fn(&mut Vec<u8>);
        let rows: [(&str, Spoil); 12] = [
            ("", |_| {}),
            ("cut off", |k| k.truncate(63)),
            ("cut off", |k| k.truncate(100)),
            ("no ELF", |k| k[4] = 1),
            ("no ELF", |k| k[18] = 183),
            ("more than 64", |k| (k[56], k[57]) = (0xff, 0xff)),
            ("behind the file's end", |k| k[64 + 8..64 + 16].fill(0xff)),
            ("behind the file's end", |k| k[120 + 34] = 1),
            ("doesn't fit", |k| k[64 + 40..64 + 48].fill(0xff)),
            ("doesn't fit", |k| k[64 + 41] = 0),
            ("doesn't fit", |k| k[64 + 28] = 1),
            ("starts outside", |k| k[26] = 0xff),
        ];
        for (wanted, spoil) in rows {
            let mut bytes = kernel(true);
            spoil(&mut bytes);
            let length = bytes.len() as u64;
            let said = check(&mut Cursor::new(bytes), length, 64 << 20).err().unwrap_or_default();
            assert!(
                said.contains(wanted) && said.is_empty() == wanted.is_empty(),
                "{wanted}: {said}"
            );
        }
    }

    /// The file is read once, however many headers name it.
    #[test]
    fn headers_that_load_the_file_again_and_again_are_refused() {
        for (kind, words) in [(LOAD, "larger than the file"), (NOTE, "64 KiB")] {
            let mut bytes = kernel(true);
            bytes.resize(0x8000, 0);
            bytes[56] = 40;
            for at in (120..64 + 40 * SEGMENT_BYTES).step_by(SEGMENT_BYTES) {
                let mut segment: Vec<u8> = bytes[64..64 + SEGMENT_BYTES].to_vec();
                segment[..4].copy_from_slice(&kind.to_le_bytes());
                bytes[at..at + SEGMENT_BYTES].copy_from_slice(&segment);
            }
            let length = bytes.len() as u64;
            let said = check(&mut Cursor::new(bytes), length, 64 << 20).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
