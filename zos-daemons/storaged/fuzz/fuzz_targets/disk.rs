//! Whatever lies on a disk: no panic, and no bytes but a whole header of ours make it ours.
//!
//! An input is patches of a disk of zeros: a place (by what lies there on real disks), an offset, a length, bytes.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use storaged::disk::header::{self, Found};
use storaged::disk::judge::{self, Verdict};
use storaged::disk::read::{Bytes, ReadAt};
use storaged::disk::{gpt, marks};

const SIZE: u64 = 96 << 20;
/// Where tables, superblocks and headers lie.
const PLACES: [u64; 16] = [
    0, 512, 1024, 4096, 8192, 16 << 10, 32 << 10, 64 << 10, 128 << 10, header::AT, 1 << 20,
    (1 << 20) + 1024, (1 << 20) + (64 << 10), SIZE - (17 << 10), SIZE - 8192, SIZE - 512,
];

struct Disk<'a>(Vec<(u64, &'a [u8])>);

impl ReadAt for Disk<'_> {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= SIZE);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; length];
        for (at, patch) in &self.0 {
            let (from, to) = (offset.max(*at), end.min(at + patch.len() as u64));
            if from < to {
                let part = &patch[(from - at) as usize..(to - at) as usize];
                bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            }
        }
        Ok(Bytes::from(&bytes[..]))
    }
}

fuzz_target!(|input: &[u8]| {
    let mut patches = Vec::new();
    let mut rest = input;
    while let [place, high, low, length, more @ ..] = rest {
        let at = PLACES[usize::from(place % 16)] + u64::from(u16::from_be_bytes([*high, *low]) % 4096);
        let (patch, next) = more.split_at(usize::from(*length).min(more.len()));
        patches.push((at.min(SIZE - patch.len() as u64), patch));
        rest = next;
    }
    let disk = Disk(patches);
    let _ = marks::look(&disk, &[]);
    for block in [512, 4096] {
        let _ = gpt::read(&disk, block);
        if let Verdict::Ours(_) = judge::probe(&disk, block) {
            let slots = disk.read_at(header::AT, header::SIZE).expect("on the disk");
            assert!(matches!(header::read(&slots), Found::Header(_)), "ours without a header");
        }
    }
});
