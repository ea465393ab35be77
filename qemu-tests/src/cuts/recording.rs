//! A recording: the logs of a node's disks, and what was acknowledged when.
//!
//! ```text
//!  log 0   ...w w F w┃w F ...      how far all logs are is read twice; where both say the same, nothing came
//!  log 1   ...F w ┃w F w ...       between, and there was a moment at which they were so: the bars
//! ```
//! The logs tell no time. Such moments are all that is known of the order in which two disks did what they were told
//! ([`super::order`]).

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

/// How often it is noted how far the logs are.
const SAMPLE: Duration = Duration::from_micros(200);
/// How long it may take until nothing is being written.
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
    /// How many entries the logs had at one moment and the next, the last one included.
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
    logs: Mutex<Watched>,
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
        let over = Arc::new(AtomicBool::new(false));
        let (watched, stop) = (Watched::open(&disks)?, Arc::clone(&over));
        let sampler = std::thread::spawn(move || sample(watched, &stop));
        let logs = Mutex::new(Watched::open(&disks)?);
        Ok(Self { disks, logs, facts: Mutex::default(), over, sampler: Some(sampler) })
    }

    /// Something is about to be asked, after which `about` will be so.
    pub fn ask(&self, about: About, is: Value) -> Result<Asked> {
        let begun = self.counts()?;
        let mut facts = self.facts.lock().expect("no panic while it is held");
        facts.0.push(Fact { about, is, begun, done: None });
        Ok(Asked(facts.0.len() - 1))
    }

    /// It is acknowledged.
    pub fn done(&self, asked: &Asked) -> Result<()> {
        let done = self.moment()?;
        let mut facts = self.facts.lock().expect("no panic while it is held");
        facts.0[asked.0].done = Some(done);
        Ok(())
    }

    /// The same where only the answer tells what it is.
    pub fn done_as(&self, asked: &Asked, is: Value) -> Result<()> {
        self.facts.lock().expect("no panic while it is held").0[asked.0].is = is;
        self.done(asked)
    }

    fn counts(&self) -> Result<Vec<usize>> {
        let mut logs = self.logs.lock().expect("no panic while it is held");
        Ok(logs.read()?.0)
    }

    /// How many entries the logs have at a moment from now on: nothing that was answered is left out.
    fn moment(&self) -> Result<Vec<usize>> {
        let mut logs = self.logs.lock().expect("no panic while it is held");
        let end = Instant::now() + WHOLE;
        loop {
            if let Some(moment) = logs.moment()? {
                return Ok(moment);
            }
            if Instant::now() > end {
                bail!("no moment in {} s at which nothing is written", WHOLE.as_secs());
            }
        }
    }

    /// Ends; the machine has stopped.
    pub fn end(mut self) -> Result<Recording> {
        let last = self.counts()?;
        self.over.store(true, Ordering::Relaxed);
        let sampler = self.sampler.take().context("it ends once")?;
        let mut moments = sampler.join().ok().context("the sampler panicked")??;
        moments.push(last);
        let facts = std::mem::take(&mut *self.facts.lock().expect("no panic while it is held"));
        moments.extend(facts.0.iter().filter_map(|fact| fact.done.clone()));
        // Logs only grow: moments are in one order, whoever noted them.
        moments.sort();
        moments.dedup();
        Ok(Recording { disks: std::mem::take(&mut self.disks), facts, moments })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Logs that are read while they grow.
#[derive(Debug)]
struct Watched(Vec<(Log, File)>);

impl Watched {
    fn open(disks: &[Disk]) -> Result<Self> {
        let open = |disk: &Disk| {
            let file = File::open(&disk.log).context("open a log")?;
            Ok((Log::of(disk.size), file))
        };
        disks.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// How many entries each log has, one after another; and whether each ended with a whole one.
    fn read(&mut self) -> Result<(Vec<usize>, bool)> {
        let (mut counts, mut whole) = (Vec::new(), true);
        for (log, file) in &mut self.0 {
            whole &= log.read_on(file)? == End::Whole;
            counts.push(log.entries.len());
        }
        Ok((counts, whole))
    }

    /// How many entries all of them had at one moment of this call; none: they grew meanwhile.
    fn moment(&mut self) -> Result<Option<Vec<usize>>> {
        let (before, _) = self.read()?;
        let (after, whole) = self.read()?;
        // An entry behind a hole may be answered already, and would be left out.
        Ok((whole && before == after).then_some(after))
    }
}

fn sample(mut logs: Watched, over: &AtomicBool) -> Result<Vec<Vec<usize>>> {
    let mut moments: Vec<Vec<usize>> = vec![vec![0; logs.0.len()]];
    while !over.load(Ordering::Relaxed) {
        if let Some(moment) = logs.moment()?
            && moments.last() != Some(&moment)
        {
            moments.push(moment);
        }
        std::thread::sleep(SAMPLE);
    }
    Ok(moments)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::log::tests::Writer;
    use super::*;

    #[test]
    fn a_moment_is_one_of_all_logs_and_leaves_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str| Disk { log: dir.path().join(name), size: 1 << 20 };
        let disks = [disk("a"), disk("b")];
        let append = |disk: &Disk, bytes: &[u8]| {
            let file = File::options().create(true).append(true).open(&disk.log);
            file.unwrap().write_all(bytes).unwrap();
        };
        let mut first = Writer::new();
        first.write(3, &[7; 1024]);
        append(&disks[0], &first.0);
        append(&disks[1], &Writer::new().0);
        let mut logs = Watched::open(&disks).unwrap();
        assert_eq!(logs.moment().unwrap(), Some(vec![1, 0]));
        // A hole, and behind it an entry that may be answered.
        let mut more = Writer(Vec::new());
        more.flush();
        append(&disks[1], &[&[0; 512], &more.0[..]].concat());
        assert_eq!(logs.moment().unwrap(), None);
        assert_eq!(logs.read().unwrap(), (vec![1, 0], false));
    }
}
