//! What the state disk remembers of the node's runs, for who asks why it booted.
//!
//! ```text
//!  settled on a state disk ─▶ the last run's record ─▶ Init.SetLastEnd, once a boot
//!                             Init.ListCrashes ──────▶ /state/storage/crashes/<number>.<time>.<name>, the newest 8
//!                             record: this boot, running
//!  SIGTERM while the node ends ─▶ record: this boot, ended so
//! ```
//! A run whose record still says that it runs never ended: the power was cut. Each file is made under another name and
//! renamed when it is whole. All of it goes on beside the daemon's work: a disk that fails must not hold that up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use zos_api::local::User;
use zos_api::local::init::{self, Action, Crash, Crashes, SetLastEnd};
use zos_api::local::storage::{Settled, StateCopies, StateCopy};
use zos_daemon::{Bus, CallError};

use crate::Places;
use crate::keeper::Event;

/// Crashes that are kept.
const MOST: usize = 8;
/// Bytes of one that are kept: its end.
const LIMIT: usize = 80 << 10;
/// How long PID 1 and the disk may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same on the way down.
const PATIENCE_DOWN: Duration = Duration::from_secs(3);

/// The record of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Run {
    /// The kernel's id of that boot.
    boot: String,
    /// How it ended; none: it runs, or never said.
    end: Option<Action>,
}

/// What this boot is to be told of the run before; nothing when it was told already.
fn last_end(record: Option<&Run>, boot: &str) -> Option<Option<Action>> {
    match record {
        // The first run on this disk: nothing was cut short.
        None => Some(Some(Action::Poweroff)),
        Some(run) if run.boot == boot => None,
        Some(run) => Some(run.end),
    }
}

/// The node's past, as far as a disk keeps it.
#[derive(Clone, Debug)]
pub struct Past {
    folder: PathBuf,
    /// The kernel's id of this boot; without one (a simulated node) nothing is kept.
    boot: Option<String>,
    settled: watch::Receiver<Option<Settled>>,
    /// Where the copies of the state lie, when there may be several.
    copies: Option<watch::Receiver<Option<StateCopies>>>,
    /// Whether this boot's part is written, as far as it can be.
    written: watch::Sender<bool>,
}

impl Past {
    /// Of a node that settles.
    pub fn new(places: &Places, settled: watch::Receiver<Option<Settled>>) -> Self {
        Self {
            folder: places.state.join("storage"),
            boot: places.root.attribute("/proc/sys/kernel/random/boot_id"),
            settled,
            copies: None,
            written: watch::Sender::new(false),
        }
    }

    /// The same, written to each copy of the state.
    #[must_use]
    pub fn in_each(mut self, copies: watch::Receiver<Option<StateCopies>>) -> Self {
        self.copies = Some(copies);
        self
    }

    /// The daemon's folder in each copy, those that count first.
    fn folders(&self) -> Vec<PathBuf> {
        let Some(copies) = &self.copies else { return vec![self.folder.clone()] };
        let told = copies.borrow();
        let list = told.as_ref().map(|told| told.copies.as_slice()).unwrap_or_default();
        let folder = |copy: &StateCopy| Path::new(&copy.path).join("storage");
        let mut folders: Vec<PathBuf> = list.iter().filter(|c| c.current).map(folder).collect();
        folders.extend(list.iter().filter(|copy| !copy.current).map(folder));
        if folders.is_empty() { vec![self.folder.clone()] } else { folders }
    }

    /// Copies what is kept to each copy of the state that is being filled, and says so.
    pub async fn join(self, news: mpsc::Sender<Event>) {
        let Some(mut copies) = self.copies.clone() else { return };
        loop {
            let told = copies.borrow_and_update().clone().unwrap_or_default();
            let from = told.copies.iter().find(|copy| copy.current).cloned();
            for copy in told.copies.into_iter().filter(|copy| !copy.current) {
                let Some(from) = &from else { continue };
                let from = Path::new(&from.path).join("storage");
                let to = Path::new(&copy.path).join("storage");
                let (pool, coming) = (copy.pool, copy.coming);
                let event = match on_disk(move || copy_files(&from, &to)).await {
                    Ok(()) => Event::StateJoined(pool, coming, User::Storage),
                    Err(error) => Event::StateLost(pool, coming, error.to_string()),
                };
                if news.send(event).await.is_err() {
                    return;
                }
            }
            if copies.changed().await.is_err() {
                return;
            }
        }
    }

    /// Once the state's place is known: tells PID 1 how the last run ended, and keeps the crashes that it found.
    pub async fn begin(self, bus: Bus) {
        if let (Some(boot), true) = (self.boot.clone(), self.durable().await) {
            let done = tokio::time::timeout(PATIENCE, self.write_begin(boot, &bus)).await;
            let done = done.unwrap_or_else(|_| Err(CallError::busy("it takes too long")));
            if let Err(error) = done {
                tracing::warn!("remember the last run: {error}");
            }
        }
        self.written.send_replace(true);
    }

    /// The daemon stops: if the node ends, the disk shall know.
    pub async fn end(&self, bus: &Bus) {
        let durable = self.settled.borrow().as_ref().is_some_and(|settled| settled.durable);
        let (Some(boot), true) = (self.boot.clone(), durable) else { return };
        let work = async {
            let Some(end) = bus.call(init::Describe {}).await?.ending else { return Ok(()) };
            let folders = self.folders();
            on_disk(move || {
                let run = Run { boot, end: Some(end) };
                each(&folders, |folder| write_run(folder, &run))
            })
            .await
        };
        let done = tokio::time::timeout(PATIENCE_DOWN, work).await;
        if let Err(error) = done.unwrap_or_else(|_| Err(CallError::busy("it takes too long"))) {
            tracing::warn!("write down how the node ends: {error}");
        }
    }

    /// What kernels that died left, newest first: from the disk, or without one as PID 1 found it.
    pub async fn crashes(&self, bus: &Bus) -> Result<Crashes, CallError> {
        if !self.durable().await || self.boot.is_none() {
            return bus.call(init::ListCrashes {}).await;
        }
        let folder = self.first().join("crashes");
        let read = async {
            let mut written = self.written.subscribe();
            let _ = written.wait_for(|written| *written).await;
            on_disk(move || read_crashes(&folder)).await
        };
        let late = |_| CallError::busy("the state disk does not answer");
        let crashes =
            tokio::time::timeout(PATIENCE + PATIENCE_DOWN, read).await.map_err(late)??;
        Ok(Crashes { crashes })
    }

    fn first(&self) -> PathBuf {
        self.folders().into_iter().next().unwrap_or_else(|| self.folder.clone())
    }

    async fn durable(&self) -> bool {
        let mut settled = self.settled.clone();
        let known = settled.wait_for(Option::is_some).await;
        known.is_ok_and(|known| known.as_ref().is_some_and(|settled| settled.durable))
    }

    async fn write_begin(&self, boot: String, bus: &Bus) -> Result<(), CallError> {
        let folder = self.first();
        let record = on_disk(move || read_run(&folder)).await?;
        let Some(end) = last_end(record.as_ref(), &boot) else { return Ok(()) };
        bus.call(SetLastEnd { end }).await?;
        let found = bus.call(init::ListCrashes {}).await?.crashes;
        let folders = self.folders();
        on_disk(move || {
            // The record comes last: what is cut short before it is done again, twice at worst.
            each(&folders, |folder| {
                keep_crashes(&folder.join("crashes"), &found, Timestamp::now())?;
                write_run(folder, &Run { boot: boot.clone(), end: None })
            })
        })
        .await
    }
}

/// In a thread of its own: a disk may take as long as it likes.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CallError> {
    let done =
        tokio::task::spawn_blocking(work).await.map_err(|error| CallError::failed(&error))?;
    done.map_err(|error| CallError::failed(&error))
}

/// In each copy; it is done when one has it, since a copy that fails is lost by those who acknowledge.
fn each(folders: &[PathBuf], write: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let done: Vec<io::Result<()>> = folders.iter().map(|folder| write(folder)).collect();
    for (folder, failed) in folders.iter().zip(&done) {
        if let Err(error) = failed {
            tracing::warn!("write to {}: {error}", folder.display());
        }
    }
    if done.iter().any(Result::is_ok) { Ok(()) } else { done.into_iter().collect() }
}

/// Makes one folder hold what another one does, with its folders; what else is there stays.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_files(&from, &to)?;
        } else if from.extension().is_none_or(|extension| extension != "new") {
            write_whole(&to, &fs::read(&from)?)?;
        }
    }
    File::open(to)?.sync_all()
}

fn read_run(folder: &Path) -> io::Result<Option<Run>> {
    match fs::read(folder.join("last-run.json")) {
        // Whoever damaged it: it doesn't tell that the run ended.
        Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("the last run's record is damaged: {error}");
            Run { boot: String::new(), end: None }
        }))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_run(folder: &Path, run: &Run) -> io::Result<()> {
    write_whole(&folder.join("last-run.json"), &serde_json::to_vec(run)?)
}

/// Files are numbered, for a node's clock may be wrong; and bear the time, for people.
fn keep_crashes(folder: &Path, crashes: &[Crash], now: Timestamp) -> io::Result<()> {
    if crashes.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let last = names(folder)?.last().map_or(0, |(number, _)| *number);
    for (number, crash) in (last + 1..).zip(crashes) {
        // PID 1 names them by pstore's files; what is no plain name here must not become a path.
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = crash.name.chars().take(64).map(plain).collect();
        let mut from = crash.text.len().saturating_sub(LIMIT);
        while !crash.text.is_char_boundary(from) {
            from += 1;
        }
        let seconds = now.strftime("%Y%m%dT%H%M%SZ");
        let path = folder.join(format!("{number:06}.{seconds}.{name}"));
        write_whole(&path, &crash.text.as_bytes()[from..])?;
    }
    let kept = names(folder)?;
    for (_, name) in &kept[..kept.len().saturating_sub(MOST)] {
        fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

/// Newest first.
fn read_crashes(folder: &Path) -> io::Result<Vec<Crash>> {
    let mut crashes = Vec::new();
    for (_, name) in names(folder)?.into_iter().rev() {
        let text = String::from_utf8_lossy(&fs::read(folder.join(&name))?).into_owned();
        crashes.push(Crash { name, text });
    }
    Ok(crashes)
}

/// Kept crashes by number; what is no crash of ours is left alone.
fn names(folder: &Path) -> io::Result<Vec<(u64, String)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let number = name.split_once('.').and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number.filter(|_| !name.ends_with(".new")) {
            names.push((number, name));
        }
    }
    names.sort();
    Ok(names)
}

/// A file that is there whole or not at all; durable when it returns.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
