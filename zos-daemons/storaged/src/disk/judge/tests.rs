//! Disks as rows: what lies where, and what that makes the disk.

use proptest::prelude::*;

use super::*;
use crate::disk::gpt::Guid;
use crate::disk::read::Bytes;

const SIZE: u64 = 200 << 20;

/// A disk of one constant byte, but for what was put on it; a place may fail reads.
#[derive(Clone)]
struct Sparse {
    byte: u8,
    pieces: Vec<(u64, Vec<u8>)>,
    broken: Option<u64>,
}

impl Sparse {
    fn new(byte: u8) -> Self {
        Self { byte, pieces: Vec::new(), broken: None }
    }

    fn put(mut self, at: u64, bytes: &[u8]) -> Self {
        self.pieces.push((at, bytes.to_vec()));
        self
    }

    fn judge(&self) -> Verdict {
        examine(self, 512, |_| true)
    }
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let end = offset + length as u64;
        assert!(end <= SIZE, "reads stay on the disk: {offset} + {length}");
        if self.broken.is_some_and(|broken| (offset..end).contains(&broken)) {
            return Err(io::Error::other("Input/output error"));
        }
        let mut bytes = vec![self.byte; length];
        for (at, piece) in &self.pieces {
            for (at, byte) in (*at..).zip(piece).filter(|(at, _)| (offset..end).contains(at)) {
                bytes[usize::try_from(at - offset).unwrap()] = *byte;
            }
        }
        Ok(Bytes::from(&bytes[..]))
    }
}

/// A disk with a pool's header and table on it.
fn pool(stage: Stage, table: bool) -> Sparse {
    let header = Header { disk_size: SIZE, stage, ..header::sample(3) };
    let mut disk = Sparse::new(0).put(header.place(), &header.encode());
    if table {
        let id = Guid([7; 16]);
        disk.pieces.extend(gpt::build(SIZE, 512, Guid([9; 16]), id));
    }
    disk
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ours(_) => "ours".into(),
        Verdict::Unfinished(_) => "unfinished".into(),
        Verdict::Wiping(_) => "wiping".into(),
        Verdict::Released(_) => "released".into(),
        Verdict::Trace(what) => format!("trace: {what}"),
        Verdict::Foreign(what) => format!("foreign: {what}"),
        Verdict::Blank => "blank".into(),
        Verdict::Empty => "empty".into(),
        Verdict::Unreadable(what) => format!("unreadable: {what}"),
    }
}

fn check(disk: &Sparse, expected: &str) {
    let verdict = word(&disk.judge());
    assert!(verdict.starts_with(expected), "{verdict} is not {expected}");
}

#[test]
fn empty_disks() {
    check(&Sparse::new(0), "empty");
    check(&Sparse::new(0xff), "empty");
    check(&Sparse::new(0x53), "empty");
    // where nobody looks
    check(&Sparse::new(0).put(40 << 20, &[1]), "empty");
    // the first and the last 16 MiB, and 1 MiB of every 64 MiB
    for at in [0, 12345, (16 << 20) - 1, SIZE - (16 << 20), SIZE - 1] {
        check(&Sparse::new(0).put(at, &[1]), "foreign: data of unknown kind");
        check(&Sparse::new(0xff).put(at, &[0]), "foreign: data of unknown kind");
    }
    check(&Sparse::new(0).put(64 << 20, &[1]), "foreign: data of unknown kind at 64 MiB");
    check(&Sparse::new(0).put((129 << 20) - 1, &[1]), "foreign: data of unknown kind at 128 MiB");
}

#[test]
fn failing_disks() {
    for broken in [0, 8 << 20, 64 << 20, SIZE - 1] {
        let disk = Sparse { broken: Some(broken), ..Sparse::new(0) };
        check(&disk, "unreadable: Input/output error");
    }
    assert_eq!(probe(&Sparse { broken: Some(64 << 20), ..Sparse::new(0) }, 512), Verdict::Blank);
}

#[test]
fn pools() {
    check(&pool(Stage::Ready, true), "ours");
    check(&pool(Stage::Adopting, true), "unfinished");
    check(&pool(Stage::Adopting, false), "unfinished");
    check(&pool(Stage::Ready, false), "trace: a pool whose partition table is gone");
    // the pool's own data may look like anything
    check(&pool(Stage::Ready, true).put(100 << 20, b"XFSB"), "ours");
    let mut labelled = vec![0; 512];
    labelled[..24].copy_from_slice(b"zos-0000000000000003\0\0\0\0");
    let btrfs = |disk: Sparse, label: &[u8]| {
        disk.put((1 << 20) + 0x1_0040, b"_BHRfS_M").put((1 << 20) + 0x1_012b, label)
    };
    check(&btrfs(pool(Stage::Ready, true), &labelled), "ours");
    check(&btrfs(pool(Stage::Adopting, true), &labelled), "unfinished");
    check(&btrfs(pool(Stage::Adopting, true), b"home"), "foreign: btrfs, written over");
    // somebody took the disk for something else
    check(&pool(Stage::Ready, true).put(1 << 20, b"XFSB"), "foreign: xfs, written over");
    check(&pool(Stage::Adopting, true).put(1 << 20, b"LUKS\xba\xbe"), "foreign: LUKS, written");
    check(&pool(Stage::Adopting, false).put(0, b"XFSB"), "foreign: xfs, written over");
    check(&pool(Stage::Adopting, false).put(5 << 20, &[1]), "trace: a pool begun, and something");
    check(&pool(Stage::Adopting, false).put(SIZE - (8 << 20), &[1]), "trace: a pool begun");
    // a header that is gone, broken, newer, or of another disk
    let table =
        Sparse { pieces: gpt::build(SIZE, 512, Guid([9; 16]), Guid([7; 16])), ..Sparse::new(0) };
    check(&table, "trace: a pool whose header is gone or broken");
    check(&table.clone().put(header::AT, b"ZOSPOOL1"), "trace: a pool whose header is gone");
    check(&Sparse::new(0).put(header::AT, b"ZOSPOOL1"), "trace: what is left of a pool");
    let torn = Sparse::new(0).put(header::AT, b"ZOSPOOL1").put(0, b"XFSB");
    check(&torn, "trace: what is left of a pool of ZOS, beside xfs");
    let newer = Header { version: 7, ..header::sample(3) };
    check(&table.put(newer.place(), &newer.encode()), "trace: a pool of a newer version (7)");
    let copied = Header { disk_size: SIZE / 2, ..header::sample(3) };
    let copied = Sparse::new(0).put(copied.place(), &copied.encode());
    check(&copied, "trace: a pool made on a disk of");
}

#[test]
fn pools_that_leave() {
    check(&pool(Stage::Leaving, true), "ours");
    check(&pool(Stage::Leaving, false), "trace: a pool whose partition table is gone");
    for table in [true, false] {
        check(&pool(Stage::Wiping, table), "wiping");
        check(&pool(Stage::Wiping, table).put(0, b"XFSB"), "foreign: xfs, written over");
    }
    check(&pool(Stage::Wiping, true).put(1 << 20, b"LUKS\xba\xbe"), "foreign: LUKS, written over");
    check(&pool(Stage::Released, false), "released");
    // where nobody looks, and nothing was wiped
    check(&pool(Stage::Released, false).put(40 << 20, &[1]), "released");
    check(&pool(Stage::Released, true), "foreign: data of unknown kind, on a disk that was");
    for at in [0, 4096, (1 << 20) - 1, 5 << 20, SIZE - 1] {
        check(&pool(Stage::Released, false).put(at, &[1]), "foreign: data of unknown kind");
    }
    check(&pool(Stage::Released, false).put(0, b"XFSB"), "foreign: xfs, written over");
}

/// A power cut in the writing of the table, after each piece and in the midst of it.
#[test]
fn a_table_cut_short_is_still_provably_ours() {
    let header = Header { disk_size: SIZE, stage: Stage::Adopting, ..header::sample(3) };
    let pieces = gpt::build(SIZE, 512, Guid([9; 16]), Guid([7; 16]));
    for whole in 0..=pieces.len() {
        for cut in [0, 512] {
            let mut disk = Sparse::new(0xff).put(header.place(), &header.encode());
            disk.pieces.extend(pieces[..whole].iter().cloned());
            if let Some((at, bytes)) = pieces.get(whole) {
                disk.pieces.push((*at, bytes[..cut.min(bytes.len())].to_vec()));
            }
            check(&disk, "unfinished");
        }
    }
}

#[test]
fn a_look_can_be_ended() {
    let mut looks = 0;
    let verdict = examine(&Sparse::new(0), 512, |_| {
        looks += 1;
        looks < 2
    });
    assert!(matches!(verdict, Verdict::Unreadable(_)) && looks == 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one byte in a place that is looked at does, the disk isn't empty.
    #[test]
    fn no_byte_in_sight_goes_unseen(byte: u8, other: u8, place: prop::sample::Index) {
        prop_assume!(byte != other);
        let seen: Vec<(u64, u64)> = vec![
            (0, 16 << 20),
            (SIZE - (16 << 20), 16 << 20),
            (64 << 20, 1 << 20),
            (128 << 20, 1 << 20),
        ];
        let all = seen.iter().map(|(_, length)| length).sum::<u64>();
        let mut at = place.index(usize::try_from(all).unwrap()) as u64;
        let range = seen.iter().find(|(_, length)| {
            let within = at < *length;
            if !within { at -= length; }
            within
        });
        let disk = Sparse::new(byte).put(range.unwrap().0 + at, &[other]);
        prop_assert!(matches!(disk.judge(), Verdict::Foreign(_)));
    }

    #[test]
    fn any_bytes_over_a_pool_are_judged_without_a_panic(
        bytes: Vec<u8>, at in 0..(2u64 << 20), table: bool,
    ) {
        let _ = pool(Stage::Adopting, table).put(at, &bytes).judge();
        let _ = pool(Stage::Ready, table).put(at, &bytes).judge();
    }
}
