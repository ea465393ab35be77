//! Small files that are written once and never changed, such as a key, in each place of the state.
//!
//! ```text
//!  missing in one place ─▶ copied from another       damaged in one ─▶ kept aside, copied from another
//!  different in two, and sound ─▶ left, and told     damaged in all ─▶ left: for their reader to tell
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zos_api::local::CallError;

use super::StoreError;
use super::copies::{Copies, Follow, Place};
use super::opening;

/// Whether a file's content is whole, by its name.
pub type Sound = fn(&str, &[u8]) -> bool;

/// Files are kilobytes; what is larger isn't ours.
const LARGEST: u64 = 1 << 20;

/// The files of a folder, kept in each place. Clones are the same.
#[derive(Clone, Debug)]
pub struct Files {
    sound: Sound,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    copies: Copies,
    told: Vec<String>,
}

impl Files {
    /// The files in these places.
    pub fn new(copies: impl Into<Copies>, sound: Sound) -> Self {
        let held = Held { copies: copies.into(), told: Vec::new() };
        Self { sound, held: Arc::new(Mutex::new(held)) }
    }

    /// Brings every place to hold each file; what is in one is in all when this returns. A place
    /// that can't is lost, which storaged notes first.
    pub fn settle(&self) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (copies, mut told) = (held.copies.clone(), Vec::new());
        let done = settle(&copies, self.sound, &mut told);
        held.told.extend(told);
        held.copies.places.retain(|place| !done.contains(&place.pool));
        for place in copies.places.iter().filter(|place| done.contains(&place.pool)) {
            let noted = copies.witness.lose(place, "a file could not be kept there");
            if let Err(source) = noted {
                let (path, pool) = (place.folder.clone(), place.pool.clone());
                held.copies.places.push(place.clone());
                return Err(StoreError::Doubt { path, pool, source });
            }
        }
        Ok(())
    }

    /// The folder to read from, and to write to before [`Files::settle`].
    pub fn folder(&self) -> PathBuf {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.copies.places.first().map(|place| place.folder.clone()).unwrap_or_default()
    }

    /// What was found damaged or different, in words, since it was last asked.
    pub fn told(&self) -> Vec<String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut held.told)
    }
}

impl Follow for Files {
    fn follow(&self, copies: &Copies) -> Result<(), StoreError> {
        if copies.places.is_empty() {
            return Ok(());
        }
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.copies = copies.clone();
        }
        self.settle()?;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).copies.clone();
        for place in held.places.iter().filter(|place| !place.current) {
            if let Err(error) = copies.witness.joined(place) {
                tracing::warn!("join the copy on pool {}: {error}", place.pool);
            }
        }
        Ok(())
    }
}

/// Settles the places; gives the pools of those that failed.
fn settle(copies: &Copies, sound: Sound, told: &mut Vec<String>) -> Vec<String> {
    let (mut failed, mut names) = (Vec::new(), BTreeSet::new());
    let fail = |place: &Place, error: &io::Error, failed: &mut Vec<String>| {
        let folder = place.folder.display();
        tracing::error!("keep files in {folder}: {}", CallError::failed(error));
        // The only one has nobody to go on with: what it can't give its reader tells of.
        if copies.places.len() > 1 && !failed.contains(&place.pool) {
            failed.push(place.pool.clone());
        }
    };
    for place in &copies.places {
        match list(&place.folder) {
            // What a place that is to be filled has, and no current one, was never acknowledged.
            Ok(found) if place.current => names.extend(found),
            Ok(_) => {}
            Err(error) => fail(place, &error, &mut failed),
        }
    }
    for name in names {
        let readable = |place: &&Place| place.current && !failed.contains(&place.pool);
        let current = copies.places.iter().filter(readable);
        let mut leads = current.filter_map(|place| {
            let bytes = read(&place.folder.join(&name)).ok()??;
            sound(&name, &bytes).then_some(bytes)
        });
        let Some(leading) = leads.next() else { continue };
        for place in copies
            .places
            .iter()
            .filter(|place| !failed.contains(&place.pool))
            .cloned()
            .collect::<Vec<_>>()
        {
            let path = place.folder.join(&name);
            let here = read(&path).unwrap_or(Some(Vec::new()));
            let done = match here {
                Some(bytes) if bytes == leading => Ok(()),
                None => put(&place.folder, &name, &leading),
                Some(bytes) if place.current && sound(&name, &bytes) => {
                    told.push(format!("{} is another than in the first copy", path.display()));
                    Ok(())
                }
                Some(_) => keep_aside(&path).and_then(|kept| {
                    told.push(format!("{} could not be read; it is kept", kept.display()));
                    put(&place.folder, &name, &leading)
                }),
            };
            if let Err(error) = done {
                fail(&place, &error, &mut failed);
            }
        }
    }
    failed
}

fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let beside = name.ends_with(".new")
            || name.ends_with(opening::ENDING)
            || name.contains(".unreadable-");
        if entry.file_type()?.is_file() && !beside {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file's content; none: it isn't there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if found.len() > LARGEST => return Ok(Some(Vec::new())),
        Ok(_) => {}
    }
    fs::read(path).map(Some)
}

/// Gives what lies there another name.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1.. {
        let mut kept = path.as_os_str().to_owned();
        kept.push(format!(".unreadable-{number}"));
        let kept = PathBuf::from(kept);
        if !kept.try_exists()? {
            fs::rename(path, &kept)?;
            return Ok(kept);
        }
    }
    Err(io::Error::other("too many files are kept aside"))
}

/// Puts a file there whole; durable when it returns.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path, current: bool) -> Place {
        let pool = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Place { coming: String::new(), folder: folder.to_owned(), current, pool }
    }

    fn sound(_: &str, bytes: &[u8]) -> bool {
        bytes.starts_with(b"ok")
    }

    #[test]
    fn what_one_place_has_all_have() {
        let check = |first: Option<&str>,
                     second: Option<&str>,
                     current,
                     expected: [Option<&str>; 2],
                     told: usize| {
            let root = tempfile::tempdir().unwrap();
            let folders = ["p", "q"].map(|name| root.path().join(name));
            for (folder, content) in folders.iter().zip([first, second]) {
                fs::create_dir(folder).unwrap();
                if let Some(content) = content {
                    fs::write(folder.join("key"), content).unwrap();
                }
            }
            let mut copies = Copies::from(folders[0].as_path());
            copies.places = vec![place(&folders[0], true), place(&folders[1], current)];
            let files = Files::new(copies, sound);
            files.settle().unwrap();
            let found =
                folders.each_ref().map(|folder| fs::read_to_string(folder.join("key")).ok());
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{first:?} {second:?}");
            assert_eq!(files.told().len(), told);
        };
        let (a, b, bad) = (Some("ok a"), Some("ok b"), Some("rot"));
        check(None, None, true, [None, None], 0);
        check(a, None, true, [a, a], 0);
        check(None, a, true, [a, a], 0);
        check(a, a, true, [a, a], 0);
        check(bad, a, true, [a, a], 1);
        check(a, bad, true, [a, a], 1);
        // two that are sound and different: left
        check(a, b, true, [a, b], 1);
        check(bad, bad, true, [bad, bad], 0);
        check(bad, None, true, [bad, None], 0);
        // one that is to be filled gives nothing, and takes all
        check(None, a, false, [None, a], 0);
        check(a, b, false, [a, a], 1);
        check(bad, a, false, [bad, a], 0);
        check(a, None, false, [a, a], 0);
    }

    #[test]
    fn what_lies_beside_the_files_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        let (p, q) = (root.path().join("p"), root.path().join("q"));
        for folder in [&p, &q] {
            fs::create_dir(folder).unwrap();
        }
        for name in ["key", "a.new", "a.redb.opening", "a.unreadable-1"] {
            fs::write(p.join(name), "ok").unwrap();
        }
        let mut copies = Copies::from(p.as_path());
        copies.places = vec![place(&p, true), place(&q, true)];
        Files::new(copies, sound).settle().unwrap();
        assert_eq!(list(&q).unwrap(), ["key"]);
        assert_eq!(fs::read_dir(&q).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_fails_is_lost_only_when_somebody_notes_it() {
        let root = tempfile::tempdir().unwrap();
        let (p, q) = (root.path().join("p"), root.path().join("q"));
        fs::create_dir(&p).unwrap();
        fs::write(p.join("key"), "ok").unwrap();
        // A file where a folder should be: nothing can be kept there.
        fs::write(&q, "").unwrap();
        let mut copies = Copies::from(p.as_path());
        copies.places = vec![place(&p, true), place(&q, true)];
        let files = Files::new(copies, sound);
        assert!(matches!(files.settle().unwrap_err(), StoreError::Doubt { .. }));
        assert_eq!(files.folder(), p);
    }

    /// A disk that takes no writes may not be read either, once the kernel has given its file system up.
    #[test]
    fn the_only_place_is_never_lost() {
        let root = tempfile::tempdir().unwrap();
        let only = root.path().join("only");
        // A file where a folder should be: nothing can be read there.
        fs::write(&only, "").unwrap();
        let mut copies = Copies::from(only.as_path());
        copies.places = vec![place(&only, true)];
        let files = Files::new(copies, sound);
        files.settle().unwrap();
        assert_eq!(files.folder(), only);
    }
}
