//! Two machines at a time on this computer, however many tests run: a lock file is a place.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Machines at a time; each has two threads, on two cores.
const PLACES: usize = 2;
/// How long to wait for a place: as long as all tests may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A place, until it is dropped (or its process is gone).
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

impl Slot {
    /// Waits for a place among the lock files in a folder.
    pub fn take(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let end = Instant::now() + PATIENCE;
        loop {
            for place in 0..PLACES {
                let path = dir.join(format!("place-{place}.lock"));
                let file =
                    File::create(&path).with_context(|| format!("make {}", path.display()))?;
                match file.try_lock() {
                    Ok(()) => return Ok(Self { _file: file }),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => {
                        return Err(error).context("lock a place for QEMU");
                    }
                }
            }
            if Instant::now() > end {
                bail!(
                    "no place for another QEMU in {} minutes: do old ones hang?",
                    PATIENCE.as_secs() / 60
                );
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
