//! A disk past the page cache: throughput in large pieces, operations a second one at a time and 32 at a time.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use serde_json::{Value, json};

const SMALL: usize = 4096;
const LARGE: usize = 256 << 10;
/// How much of the disk is used.
pub(crate) const SPAN: u64 = 64 << 20;
/// And from where: what a disk says of itself at its start stays, so that the node holds it for somebody's.
const START: u64 = 16 << 20;

/// A buffer at a page's start, as direct I/O wants it.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl Aligned {
    pub(crate) fn new(size: usize) -> Self {
        let bytes = vec![0x5a; size + SMALL];
        let start = bytes.as_ptr().align_offset(SMALL);
        Self { bytes, start, size }
    }

    pub(crate) fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

/// Where a guest has its disk.
pub(crate) const FIRST: &str = "/dev/vda";

pub(crate) fn open(path: &str) -> Result<File> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).context("a flag")?;
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(direct)
        .open(path)
        .with_context(|| format!("open {path}"))
}

/// A number that looks random, the same in each run.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

pub(crate) fn speed(path: &str, time: Duration) -> Result<Value> {
    let disk = open(path)?;
    Ok(json!({
        "read_mib": stream(&disk, time, false)?,
        "write_mib": stream(&disk, time, true)?,
        "read_iops_1": operations(&disk, time, 1, false)?,
        "read_iops_32": operations(&disk, time, 32, false)?,
        "write_iops_1": operations(&disk, time, 1, true)?,
        "write_iops_32": operations(&disk, time, 32, true)?,
    }))
}

/// MiB a second in one stream.
#[allow(clippy::cast_precision_loss)] // counts of pieces
fn stream(disk: &File, time: Duration, write: bool) -> Result<f64> {
    let mut buffer = Aligned::new(LARGE);
    let (start, mut done) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        once(disk, buffer.get(), done * LARGE as u64 % SPAN, write)?;
        done += 1;
    }
    Ok(done as f64 * LARGE as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64())
}

/// Operations a second in random places, so many at once.
#[allow(clippy::cast_precision_loss)] // counts of operations
fn operations(disk: &File, time: Duration, depth: u64, write: bool) -> Result<f64> {
    let done = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let one = |seed: u64| -> Result<()> {
            let (mut buffer, mut state) = (Aligned::new(SMALL), seed * 0x9e37_79b9 + 1);
            while start.elapsed() < time {
                let at = next(&mut state) % (SPAN / SMALL as u64) * SMALL as u64;
                once(disk, buffer.get(), at, write)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (1..=depth).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a thread died")?)
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

pub(crate) fn once(disk: &File, buffer: &mut [u8], at: u64, write: bool) -> Result<()> {
    let at = START + at;
    let done = if write { disk.write_all_at(buffer, at) } else { disk.read_exact_at(buffer, at) };
    done.with_context(|| format!("{} at {at}", if write { "write" } else { "read" }))
}
