//! The medium of a disk as a sparse file: brought forward along the log, and copied for each cut.
//!
//! ```text
//!  base.img ── forward(durable) ──▶ base.img        cuts come in their order, so nothing is done twice
//!      └────── cut(survivors) ────▶ copy            what is checked, and written to by that
//! ```

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, SeekFrom};

use super::log::{Entry, Kind, Log};
use super::replay::{Fate, pieces};
use crate::disk;

const PIECE: usize = 1 << 20;

/// A medium, and how much of the log is on it.
#[derive(Debug)]
pub struct Medium {
    path: PathBuf,
    file: File,
    size: u64,
    done: usize,
}

impl Medium {
    /// An empty one.
    pub fn new(path: &Path, size: u64) -> Result<Self> {
        disk::create(path, size)?;
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file, size, done: 0 })
    }

    /// Does all that the log has up to an entry. What is past already is begun anew.
    pub fn forward(&mut self, log: &Log, source: &File, to: usize) -> Result<()> {
        if self.done > to {
            disk::create(&self.path, self.size)?;
            self.done = 0;
        }
        for entry in &log.entries[self.done..to] {
            apply(&self.file, source, entry, Fate::Whole)?;
        }
        self.done = to;
        Ok(())
    }

    /// A copy with some more of the log on it.
    pub fn cut(&self, log: &Log, source: &File, more: &[(usize, Fate)], copy: &Path) -> Result<()> {
        disk::create(copy, self.size)?;
        let target = open(copy)?;
        copy_data(&self.file, &target)?;
        for (index, fate) in more {
            apply(&target, source, &log.entries[*index], *fate)?;
        }
        Ok(())
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

fn copy_data(from: &File, to: &File) -> Result<()> {
    let mut bytes = vec![0; PIECE];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data behind.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error).context("look for data"),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).context("look for a hole")?;
        at = start;
        while at < end {
            let length = PIECE.min(usize::try_from(end - at)?);
            from.read_exact_at(&mut bytes[..length], at).context("read a medium")?;
            to.write_all_at(&bytes[..length], at).context("copy a medium")?;
            at += length as u64;
        }
    }
}

/// Does what an entry says.
fn apply(medium: &File, log: &File, entry: &Entry, fate: Fate) -> Result<()> {
    let parts = match fate {
        Fate::Whole => vec![(0, entry.size)],
        Fate::Torn { piece, seed } => pieces(entry.size, piece, seed),
    };
    for (start, length) in parts {
        match entry.kind {
            Kind::None => {}
            Kind::Discard => punch(medium, entry.at + start, length)?,
            Kind::Write { data } => write(medium, log, data + start, entry.at + start, length)?,
        }
    }
    Ok(())
}

fn write(medium: &File, log: &File, from: u64, to: u64, length: u64) -> Result<()> {
    let mut bytes = vec![0; PIECE.min(usize::try_from(length)?)];
    let mut done = 0;
    while done < length {
        let piece = bytes.len().min(usize::try_from(length - done)?);
        log.read_exact_at(&mut bytes[..piece], from + done).context("read a write's bytes")?;
        if bytes[..piece].iter().all(|byte| *byte == 0) {
            // Gigabytes of zeros are written as such.
            punch(medium, to + done, piece as u64)?;
        } else {
            medium.write_all_at(&bytes[..piece], to + done).context("write to a medium")?;
        }
        done += piece as u64;
    }
    Ok(())
}

fn punch(medium: &File, at: u64, length: u64) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(medium.as_fd(), flags, at, length).context("discard on a medium")
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::Writer;
    use super::*;

    #[test]
    fn a_medium_is_what_was_written_and_a_copy_has_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut written = Writer::new();
        written.write(2, &[1; 1024]);
        written.write(100, &[2; 8192]);
        written.flush();
        written.discard(3, 1);
        written.write(2, &[3; 512]);
        written.write(200, &[4; 1024]);
        let path = dir.path().join("log");
        std::fs::write(&path, &written.0).unwrap();
        let source = File::open(&path).unwrap();
        let mut log = Log::of(1 << 20);
        log.read_on(&source).unwrap();

        let (base, copy) = (dir.path().join("base"), dir.path().join("copy"));
        let mut medium = Medium::new(&base, 1 << 20).unwrap();
        medium.forward(&log, &source, 3).unwrap();
        let torn = Fate::Torn { piece: 512, seed: 4 };
        medium.cut(&log, &source, &[(3, Fate::Whole), (5, torn)], &copy).unwrap();
        let (base, copy) = (std::fs::read(base).unwrap(), std::fs::read(copy).unwrap());
        assert_eq!((base[1024], base[1536], base[51200], base[102_400]), (1, 1, 2, 0));
        assert_eq!((copy[1024], copy[1536], copy[51200], copy.len()), (1, 0, 2, 1 << 20));
        let expected = pieces(1024, 512, 4);
        for start in [0, 512] {
            let there = expected.contains(&(start, 512));
            assert_eq!(copy[102_400 + usize::try_from(start).unwrap()], if there { 4 } else { 0 });
        }
    }
}
