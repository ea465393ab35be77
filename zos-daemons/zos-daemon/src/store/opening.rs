//! Files that end the program which reads them.
//!
//! ```text
//!  look ─▶ NAME.redb.opening: boot, file, how often ─▶ open, check ─▶ taken away
//!                    │                                     └─ the program dies: it stays
//!                    └─ this boot, this file, twice: not read any more
//! ```
//! Some rot makes redb panic where it should tell, and a panic ends a daemon of the image. The mark that the look
//! leaves then is what the next start knows of it. It isn't synced: it outlives a program, and what a power cut
//! leaves of it is another boot's. A single death says nothing (the daemon was killed meanwhile), so two count.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// So often a file may end its reader.
const DEATHS: u32 = 2;

/// How a mark's name ends.
pub(super) const ENDING: &str = ".opening";

/// Names the kernel's boot (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A look at a file: while it is held, the mark stands.
#[derive(Debug)]
pub(super) struct Opening {
    mark: PathBuf,
}

/// The file ended the program that read it, so often in this boot.
#[derive(Debug)]
pub(super) struct Deadly(pub(super) u32);

impl Opening {
    /// Begins to look at a file that is there. A mark that can't be read or written is no reason to fail: the look
    /// goes on as it would without one.
    pub(super) fn begin(path: &Path) -> Result<Self, Deadly> {
        let mark = mark(path);
        match here(path) {
            Ok(here) => {
                let deaths = deaths(&mark, &here);
                if deaths >= DEATHS {
                    return Err(Deadly(deaths));
                }
                if let Err(error) = put(&mark, &format!("{here} {}\n", deaths + 1)) {
                    tracing::debug!("{}: {error}", mark.display());
                }
            }
            Err(error) => tracing::debug!("{}: {error}", mark.display()),
        }
        Ok(Self { mark })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        forget(&self.mark);
    }
}

/// Takes the mark of a file away that was replaced.
pub(super) fn replaced(path: &Path) {
    forget(&mark(path));
}

fn forget(mark: &Path) {
    match fs::remove_file(mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{}: {error}", mark.display());
        }
        _ => {}
    }
}

fn mark(path: &Path) -> PathBuf {
    let mut mark = path.as_os_str().to_owned();
    mark.push(ENDING);
    mark.into()
}

/// This boot, and which file it is: one that was put in its place is another.
fn here(path: &Path) -> io::Result<String> {
    let boot = fs::read_to_string(BOOT)?;
    Ok(format!("{} {}", boot.trim(), fs::metadata(path)?.ino()))
}

/// How many looks at this file did not end, by the mark of the last.
fn deaths(mark: &Path, here: &str) -> u32 {
    let mut text = String::new();
    let read = fs::File::open(mark).and_then(|file| file.take(128).read_to_string(&mut text));
    let times =
        text.strip_prefix(here).and_then(|rest| rest.strip_prefix(' ')?.trim().parse().ok());
    read.ok().and(times).unwrap_or(0)
}

fn put(mark: &Path, text: &str) -> io::Result<()> {
    forget(mark);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(mark)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a program does that dies while it holds it.
    fn die(path: &Path) {
        std::mem::forget(Opening::begin(path).unwrap());
    }

    #[test]
    fn two_looks_that_did_not_end_are_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.redb");
        fs::write(&path, "rot").unwrap();
        die(&path);
        // One that ended between says that the file can be read.
        drop(Opening::begin(&path).unwrap());
        assert!(!mark(&path).exists());
        die(&path);
        die(&path);
        for _ in 0..2 {
            assert_eq!(Opening::begin(&path).unwrap_err().0, 2);
        }
        // Another file of that name is another.
        fs::write(folder.path().join("new"), "sound").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        drop(Opening::begin(&path).unwrap());
        assert!(!mark(&path).exists());
    }

    #[test]
    fn a_mark_of_another_boot_or_of_nobody_counts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.redb");
        fs::write(&path, "rot").unwrap();
        let here = here(&path).unwrap();
        let (_, file) = here.split_once(' ').unwrap();
        let check = |text: &[u8], deadly| {
            fs::write(mark(&path), text).unwrap();
            let begun = Opening::begin(&path);
            assert_eq!(begun.is_err(), deadly, "{}", String::from_utf8_lossy(text));
        };
        check(format!("{here} 2\n").as_bytes(), true);
        check(format!("{here} 7").as_bytes(), true);
        check(format!("{here} 1\n").as_bytes(), false);
        check(format!("{here}2\n").as_bytes(), false);
        check(format!("{here} -2\n").as_bytes(), false);
        check(format!("0b4a7b5e-52ac-4a4f-b3a8-1d6b0c5a0c11 {file} 2\n").as_bytes(), false);
        check(b"", false);
        check(b"\xff\xfe 2\n", false);
        check(&[b'2'; 4096], false);
    }

    #[test]
    fn a_mark_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.redb");
        fs::write(&path, "rot").unwrap();
        fs::create_dir(mark(&path)).unwrap();
        drop(Opening::begin(&path).unwrap());
        drop(Opening::begin(&path).unwrap());
        drop(Opening::begin(&folder.path().join("absent/test.redb")).unwrap());
    }
}
