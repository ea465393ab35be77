//! Numbers on the disk, each made durable: whether storage ever pauses, fails or forgets.
//!
//! ```text
//!  GET /write?seconds=N ─▶ a deadline ─▶ each 100 ms: write, fdatasync, acknowledged
//!
//!  vda, byte 8192, a ring of 64 sectors:  ZOSWRITE | number u64 LE | check u64 LE | zeros up to 512 bytes
//! ```
//!
//! The ring is written only where each of its sectors is empty or one of ours, and the boot counter before it is
//! ours, too: a disk with somebody's data keeps it. Nothing is written unless somebody asks.

use crate::disks::SECTOR;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where the ring begins: behind the boot counter, on a page of its own.
const RING_AT: u64 = 8192;
const RING_SECTORS: u64 = 64;
const MAGIC: [u8; 8] = *b"ZOSWRITE";
const PACE: Duration = Duration::from_millis(100);
/// The longest time that one request keeps the writer busy.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

/// What became of the numbers, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Writes {
    /// The highest number that the disk held at our start.
    pub(crate) found: u64,
    /// The highest number that is durable, as far as the disk says.
    pub(crate) acknowledged: u64,
    /// Writes that failed; each was tried again.
    pub(crate) failed: u64,
    /// The longest time between two acknowledgements while it wrote, in milliseconds.
    pub(crate) longest_pause_ms: u64,
    /// Whether it writes now.
    pub(crate) writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    writes: Writes,
    until: Option<Instant>,
}

/// A writer on one disk.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    shared: Arc<Mutex<Shared>>,
}

impl Writer {
    /// Looks for its ring, and waits to be asked; `None` when somebody's data stands there.
    pub(crate) fn spawn(node: &Path) -> io::Result<Option<Self>> {
        let Some(found) = highest(&File::open(node)?)? else { return Ok(None) };
        let writes = Writes { found, acknowledged: found, ..Writes::default() };
        let writer = Self { shared: Arc::new(Mutex::new(Shared { writes, until: None })) };
        let (ours, node) = (writer.clone(), PathBuf::from(node));
        thread::Builder::new().name("writer".into()).spawn(move || ours.run(&node))?;
        Ok(Some(writer))
    }

    /// Writes from now for so long.
    pub(crate) fn ask(&self, time: Duration) -> Writes {
        let mut shared = self.lock();
        shared.until = Some(Instant::now() + time.min(LONGEST));
        shared.writes
    }

    /// As it is now.
    pub(crate) fn writes(&self) -> Writes {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, node: &Path) {
        // Since when a number waits for the acknowledgement of the next one.
        let mut since: Option<Instant> = None;
        loop {
            thread::sleep(PACE);
            let number = {
                let mut shared = self.lock();
                let wanted = shared.until.is_some_and(|until| Instant::now() < until);
                shared.writes.writing = wanted;
                if !wanted {
                    since = None;
                    continue;
                }
                shared.writes.acknowledged + 1
            };
            let begun = *since.get_or_insert_with(Instant::now);
            let outcome = write(node, number);
            let pause = begun.elapsed();
            let mut shared = self.lock();
            shared.writes.longest_pause_ms = shared.writes.longest_pause_ms.max(millis(pause));
            match outcome {
                Ok(()) => {
                    shared.writes.acknowledged = number;
                    since = Some(Instant::now());
                }
                Err(error) => {
                    shared.writes.failed += 1;
                    println!("hello: number {number} can't be written: {error}");
                }
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn write(node: &Path, number: u64) -> io::Result<()> {
    let disk = File::options().write(true).open(node)?;
    disk.write_all_at(&record(number), RING_AT + number % RING_SECTORS * SECTOR as u64)?;
    disk.sync_data()
}

/// The highest number in the ring: 0 in an empty one, `None` where anything else stands.
fn highest(disk: &File) -> io::Result<Option<u64>> {
    let mut best = 0;
    for place in 0..RING_SECTORS {
        let mut sector = [0; SECTOR];
        disk.read_exact_at(&mut sector, RING_AT + place * SECTOR as u64)?;
        match number(&sector) {
            Some(number) => best = best.max(number),
            None => return Ok(None),
        }
    }
    Ok(Some(best))
}

fn record(number: u64) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(&MAGIC);
    sector[8..16].copy_from_slice(&number.to_le_bytes());
    sector[16..24].copy_from_slice(&check(number).to_le_bytes());
    sector
}

/// The number in a sector: 0 in an empty one, `None` in one that isn't ours.
fn number(sector: &[u8; SECTOR]) -> Option<u64> {
    let [_, _, _, _, _, _, _, _, n0, n1, n2, n3, n4, n5, n6, n7, ..] = *sector;
    let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    if sector.iter().all(|byte| *byte == 0) {
        Some(0)
    } else {
        (*sector == record(number)).then_some(number)
    }
}

/// FNV-1a over the number's bytes (draft-eastlake-fnv): a torn or foreign sector shows.
fn check(number: u64) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    number.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn disk(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("vda");
        fs::write(&node, content).unwrap();
        (folder, node)
    }

    fn found(node: &Path) -> Option<u64> {
        highest(&File::open(node).unwrap()).unwrap()
    }

    #[test]
    fn numbers_go_round_and_the_highest_is_found() {
        let (_folder, node) = disk(&vec![0; 65536]);
        assert_eq!(found(&node), Some(0));
        for number in 1..200 {
            write(&node, number).unwrap();
            assert_eq!(found(&node), Some(number));
        }
        let bytes = fs::read(&node).unwrap();
        assert!(bytes[..8192].iter().chain(&bytes[8192 + 64 * 512..]).all(|byte| *byte == 0));
    }

    #[test]
    fn foreign_data_is_spared() {
        for at in [8192, 8192 + 100, 8192 + 64 * 512 - 1] {
            let mut foreign = vec![0; 65536];
            foreign[at] = 7;
            let (_folder, node) = disk(&foreign);
            assert!(Writer::spawn(&node).unwrap().is_none());
            assert_eq!(fs::read(&node).unwrap(), foreign);
        }
        let (_folder, node) = disk(&[0; 8192]);
        assert!(Writer::spawn(&node).is_err());
    }

    #[test]
    fn nothing_is_written_before_somebody_asks() {
        let (_folder, node) = disk(&vec![0; 65536]);
        let writer = Writer::spawn(&node).unwrap().unwrap();
        thread::sleep(PACE * 3);
        assert_eq!(writer.writes(), Writes::default());
        writer.ask(LONGEST);
        let end = Instant::now() + Duration::from_secs(20);
        while writer.writes().acknowledged < 3 && Instant::now() < end {
            thread::sleep(PACE);
        }
        let writes = writer.writes();
        assert!(writes.acknowledged >= 3 && writes.failed == 0 && writes.writing, "{writes:?}");
        assert!(found(&node) >= Some(3));
    }

    proptest! {
        #[test]
        fn any_sector(bytes in prop::collection::vec(any::<u8>(), SECTOR), at in 0..SECTOR, flip in 1..=255u8) {
            let sector: [u8; SECTOR] = bytes.try_into().unwrap();
            number(&sector);
            let mut ours = record(77);
            ours[at] ^= flip;
            prop_assert_eq!(number(&ours), None);
        }
    }
}
