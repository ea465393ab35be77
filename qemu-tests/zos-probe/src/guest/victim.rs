//! What a quiet guest feels: how late its timer wakes it, how long its disk and its network take.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::samples::Samples;
use super::{disk, net};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// A round of each, one after another.
pub(crate) fn round(to: Ipv4Addr, time: Duration) -> Result<Value> {
    Ok(json!({
        "timer": timer(time).tell(),
        "disk": trips(time)?.tell(),
        "network": net::trips(to, time, PAUSE)?.tell(),
    }))
}

/// How long after its time a sleeper runs.
fn timer(time: Duration) -> Samples {
    let (mut samples, start) = (Samples::default(), Instant::now());
    while start.elapsed() < time {
        let before = Instant::now();
        std::thread::sleep(PAUSE);
        samples.add(before.elapsed().saturating_sub(PAUSE));
    }
    samples
}

/// A sector written, and another one read.
fn trips(time: Duration) -> Result<Samples> {
    let file = disk::open(disk::FIRST)?;
    let (mut buffer, mut state) = (disk::Aligned::new(4096), 1);
    let (mut samples, start) = (Samples::default(), Instant::now());
    while start.elapsed() < time {
        let places = disk::SPAN / 4096;
        let (written, read) = (disk::next(&mut state) % places, disk::next(&mut state) % places);
        let before = Instant::now();
        disk::once(&file, buffer.get(), written * 4096, true)?;
        disk::once(&file, buffer.get(), read * 4096, false)?;
        samples.add(before.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(samples)
}
