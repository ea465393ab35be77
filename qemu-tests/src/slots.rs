//! Two machines at a time on this computer, however many tests run: a lock file is a place.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Machines at a time; each has two threads, on two cores.
const PLACES: usize = 2;
/// How long to wait for a place: as long as all tests may take.
pub const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A place, until it is dropped (or its process is gone).
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

impl Slot {
    /// Waits for a place for a machine among the lock files in a folder.
    pub fn take(dir: &Path) -> Result<Self> {
        let places: Vec<PathBuf> =
            (0..PLACES).map(|place| dir.join(format!("place-{place}.lock"))).collect();
        Self::one_of(&places, PATIENCE)
    }

    /// Waits for one of these lock files.
    pub fn one_of(files: &[PathBuf], patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        loop {
            for path in files {
                let dir = path.parent().context("a lock file has a folder")?;
                std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
                let file =
                    File::create(path).with_context(|| format!("make {}", path.display()))?;
                match file.try_lock() {
                    Ok(()) => return Ok(Self { _file: file }),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error).context("lock a file"),
                }
            }
            if Instant::now() > end {
                let held = files.first().map(|path| path.display().to_string()).unwrap_or_default();
                bail!("{held} is held by another run for {} s", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_a_time_and_the_third_when_one_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Slot::take(dir.path()).unwrap();
        let _second = Slot::take(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let third = std::thread::spawn(move || Slot::take(&path).is_ok());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!third.is_finished());
        drop(first);
        assert!(third.join().unwrap());
    }
}
