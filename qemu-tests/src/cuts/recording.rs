//! A recording: the logs of a node's disks, and what was acknowledged when.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::facts::{About, Fact, Facts, Value};
use super::log::{End, Log};

/// How often it is noted how far each log is, where there are several.
const SAMPLE: Duration = Duration::from_millis(2);
/// How long a log may take to be whole between two writes.
const WHOLE: Duration = Duration::from_secs(20);

/// A disk that was recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Its log.
    pub log: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// What is kept of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// The disks.
    pub disks: Vec<Disk>,
    /// What was acknowledged.
    pub facts: Facts,
    /// How many entries the logs had at one moment and the next.
    pub moments: Vec<Vec<usize>>,
}

impl Recording {
    /// Keeps it beside its logs.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("write a recording")?;
        fs::write(folder.join("recording.json"), text).context("keep a recording")
    }

    /// Loads what was kept, if anything was.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("recording.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(path).context("read a recording")?;
        serde_json::from_slice(&text).map(Some).context("read a recording")
    }

    /// Opens the logs.
    pub fn logs(&self) -> Result<Vec<(Log, File)>> {
        let open = |disk: &Disk| {
            let file = File::open(&disk.log).context("open a log")?;
            let mut log = Log::of(disk.size);
            log.read_on(&file)?;
            Ok((log, file))
        };
        self.disks.iter().map(open).collect()
    }
}

/// Notes what is asked and acknowledged while the logs grow.
#[derive(Debug)]
pub struct Recorder {
    disks: Vec<Disk>,
    logs: Mutex<Vec<(Log, File)>>,
    facts: Mutex<Facts>,
    over: Arc<AtomicBool>,
    sampler: Option<JoinHandle<Result<Vec<Vec<usize>>>>>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked(usize);

impl Recorder {
    /// Begins; the logs are there and empty.
    pub fn begin(disks: Vec<Disk>) -> Result<Self> {
        let open = |disk: &Disk| {
            let file = File::open(&disk.log).context("open a log")?;
            Ok((Log::of(disk.size), file))
        };
        let logs = || disks.iter().map(open).collect::<Result<Vec<_>>>();
        let over = Arc::new(AtomicBool::new(false));
        let (watched, stop) = (logs()?, Arc::clone(&over));
        let sampler = std::thread::spawn(move || sample(watched, &stop));
        let logs = Mutex::new(logs()?);
        Ok(Self { disks, logs, facts: Mutex::default(), over, sampler: Some(sampler) })
    }

    /// Something is about to be asked, after which `about` will be so.
    pub fn ask(&self, about: About, is: Value) -> Result<Asked> {
        let begun = self.counts(false)?;
        let mut facts = self.facts.lock().expect("no panic while it is held");
        facts.0.push(Fact { about, is, begun, done: None });
        Ok(Asked(facts.0.len() - 1))
    }

    /// It is acknowledged.
    pub fn done(&self, asked: &Asked) -> Result<()> {
        let done = self.counts(true)?;
        let mut facts = self.facts.lock().expect("no panic while it is held");
        facts.0[asked.0].done = Some(done);
        Ok(())
    }

    /// The same where only the answer tells what it is.
    pub fn done_as(&self, asked: &Asked, is: Value) -> Result<()> {
        self.facts.lock().expect("no panic while it is held").0[asked.0].is = is;
        self.done(asked)
    }

    /// How many entries each log has. `whole`: at a moment when nothing is being written, so that nothing that was answered
    /// is left out.
    fn counts(&self, whole: bool) -> Result<Vec<usize>> {
        let mut logs = self.logs.lock().expect("no panic while it is held");
        let end = Instant::now() + WHOLE;
        let mut counts = Vec::new();
        for (log, file) in logs.iter_mut() {
            while log.read_on(file)? == End::Growing && whole {
                if Instant::now() > end {
                    bail!("a log did not come to an end in {} s", WHOLE.as_secs());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            counts.push(log.entries.len());
        }
        Ok(counts)
    }

    /// Ends; the machine has stopped.
    pub fn end(mut self) -> Result<Recording> {
        let last = self.counts(false)?;
        self.over.store(true, Ordering::Relaxed);
        let sampler = self.sampler.take().context("it ends once")?;
        let mut moments = sampler.join().ok().context("the sampler panicked")??;
        moments.push(last);
        let facts = std::mem::take(&mut *self.facts.lock().expect("no panic while it is held"));
        Ok(Recording { disks: std::mem::take(&mut self.disks), facts, moments })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn sample(mut logs: Vec<(Log, File)>, over: &AtomicBool) -> Result<Vec<Vec<usize>>> {
    let mut moments: Vec<Vec<usize>> = vec![vec![0; logs.len()]];
    while !over.load(Ordering::Relaxed) {
        let mut counts = Vec::new();
        for (log, file) in &mut logs {
            log.read_on(file)?;
            counts.push(log.entries.len());
        }
        if moments.last() != Some(&counts) {
            moments.push(counts);
        }
        std::thread::sleep(SAMPLE);
    }
    Ok(moments)
}
