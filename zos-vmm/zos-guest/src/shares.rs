//! The shared folders: each is mounted, and this start is counted there.
//!
//! ```text
//!  /sys/fs/virtiofs/<n>/tag ─▶ mount on /run/shares/<n> ─▶ zos-hello/<start>, made by whoever is first
//! ```
//! Several VMs may have a folder at once, so a start is a file of its own, that no two can make.

use rustix::mount::{MountFlags, mount};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where our files lie in a share.
const FOLDER: &str = "zos-hello";

/// One share, as it was at the start.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    tag: String,
    folder: PathBuf,
    /// The number of this start, or why there is none.
    start: Result<u64, String>,
}

/// A share as it is now.
#[derive(Debug, Serialize)]
pub(crate) struct Now {
    /// What it was mounted by.
    pub(crate) tag: String,
    /// The number of our start: how often VMs started with it, up to ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<u64>,
    /// How many starts are written there now, by us and by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) starts: Option<u64>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Mounts every share, and counts this start on each.
pub(crate) fn survey() -> Vec<Share> {
    let Ok(entries) = fs::read_dir("/sys/fs/virtiofs") else { return Vec::new() };
    let tag = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("tag")).ok();
    let mut tags: Vec<String> = entries.flatten().filter_map(tag).collect();
    tags.sort_unstable();
    let share = |(at, tag): (usize, &String)| {
        let tag = tag.trim_end_matches('\n').to_owned();
        let folder = PathBuf::from(format!("/run/shares/{at}"));
        let start = attach(&tag, &folder).map_err(|error| error.to_string());
        Share { tag, folder, start }
    };
    tags.iter().enumerate().map(share).collect()
}

fn attach(tag: &str, folder: &Path) -> io::Result<u64> {
    fs::create_dir_all(folder)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(tag, folder, "virtiofs", flags, None)?;
    count_start(folder)
}

impl Share {
    /// As it is now.
    pub(crate) fn now(&self) -> Now {
        let starts = self.start.clone().and_then(|start| {
            let found = starts(&self.folder).map_err(|error| error.to_string())?;
            Ok((start, found.len() as u64))
        });
        let (start, starts, error) = match starts {
            Ok((start, starts)) => (Some(start), Some(starts), None),
            Err(error) => (self.start.clone().ok(), None, Some(error)),
        };
        let system = rustix::fs::statvfs(&self.folder).ok().filter(|_| start.is_some());
        let size = system.map(|system| system.f_blocks.saturating_mul(system.f_frsize));
        Now { tag: self.tag.clone(), start, starts, size, error }
    }
}

/// Writes this start behind the others, durable when it returns.
fn count_start(folder: &Path) -> io::Result<u64> {
    let ours = folder.join(FOLDER);
    match fs::create_dir(&ours) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => File::open(folder)?.sync_all()?,
    }
    let mut next = starts(folder)?.last().map_or(1, |last| last + 1);
    let mut file = loop {
        match File::create_new(ours.join(next.to_string())) {
            // Another VM was first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => next += 1,
            made => break made?,
        }
    };
    file.write_all(text(next).as_bytes())?;
    file.sync_all()?;
    File::open(&ours)?.sync_all()?;
    Ok(next)
}

/// The starts that are written there whole, in order. One that is being written is none yet.
fn starts(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(FOLDER))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number else { continue };
        if fs::read_to_string(entry.path())? == text(number) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn text(start: u64) -> String {
    format!("start {start} with this share\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_by_several_and_foreign_files_are_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(count_start(folder.path()).unwrap(), 1);
        assert_eq!(count_start(folder.path()).unwrap(), 2);
        let ours = folder.path().join(FOLDER);
        fs::write(ours.join("7"), "half").unwrap();
        fs::write(ours.join("note"), text(3)).unwrap();
        assert_eq!(starts(folder.path()).unwrap(), [1, 2]);
        let path = folder.path().to_owned();
        let all = (0..4).map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                (0..8).map(|_| count_start(&path).unwrap()).collect::<Vec<_>>()
            })
        });
        let mut made: Vec<u64> =
            all.collect::<Vec<_>>().into_iter().flat_map(|one| one.join().unwrap()).collect();
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 32);
        assert_eq!(starts(folder.path()).unwrap().len(), 34);
    }

    #[test]
    fn a_share_tells_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let share = |start| Share { tag: "files".into(), folder: folder.path().into(), start };
        let broken = share(Err("no such tag".to_owned())).now();
        assert_eq!((broken.start, broken.error.as_deref()), (None, Some("no such tag")));
        let lost = share(Ok(1)).now();
        assert_eq!((lost.start, lost.starts, lost.error.is_some()), (Some(1), None, true));
        count_start(folder.path()).unwrap();
        let whole = share(Ok(1)).now();
        assert_eq!((whole.start, whole.starts, whole.error), (Some(1), Some(1), None));
    }
}
