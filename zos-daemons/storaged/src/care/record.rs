//! What care must know after a boot, kept on the pool that it is about: `care.json` beside the subvolumes.
//!
//! A record that is torn or of a newer version is kept aside and begun afresh: it holds no promise to anybody,
//! and a pool without care would be worse.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::look::Errors;
use super::scrub::Progress;

/// The version that this code writes.
const VERSION: u32 = 1;
const NAME: &str = "care.json";
/// Longer ones are not ours, in bytes.
const LONGEST: u64 = 64 << 10;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// When the pool was first cared for, by a clock that could be right.
    pub since: Option<Timestamp>,
    /// The last scrub.
    pub scrub: Option<Progress>,
    /// The errors that were known; none: it was never looked at.
    pub errors: Option<Errors>,
    /// Why its disk counts as failing; empty: it doesn't.
    pub failing: Vec<String>,
}

impl Default for Record {
    fn default() -> Self {
        let (since, scrub, errors, failing) = (None, None, None, Vec::new());
        Self { version: VERSION, since, scrub, errors, failing }
    }
}

/// Reads a pool's record; what can't be read is kept aside.
pub fn read(root: &Path) -> io::Result<Record> {
    let path = root.join(NAME);
    let text = match fs::metadata(&path) {
        Ok(found) if found.len() <= LONGEST => fs::read(&path)?,
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<Record>(&text) {
        Ok(record) if record.version <= VERSION => Ok(record),
        unreadable => {
            let aside = root.join("care.json.unreadable");
            let why =
                unreadable.map_or_else(|error| error.to_string(), |_| "a newer version".into());
            tracing::error!("{} is kept as {}: {why}", path.display(), aside.display());
            fs::rename(&path, aside)?;
            Ok(Record::default())
        }
    }
}

/// Writes a pool's record; durable when it returns.
pub fn write(root: &Path, record: &Record) -> io::Result<()> {
    let new = root.join("care.json.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&new, root.join(NAME))?;
    File::open(root)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_unreadable_is_kept_aside() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), Record::default());
        let record = Record {
            since: Some(Timestamp::from_second(1_800_000_000).unwrap()),
            scrub: Some(Progress { position: 7, ..Progress::begin(Timestamp::UNIX_EPOCH) }),
            errors: Some(Errors { read: 3, ..Errors::default() }),
            failing: vec!["2 writes failed".into()],
            ..Record::default()
        };
        write(root.path(), &record).unwrap();
        assert_eq!(read(root.path()).unwrap(), record);
        let newer = serde_json::to_string(&Record { version: 9, ..record }).unwrap();
        for text in ["", "{", &newer, &"x".repeat(100_000)] {
            fs::write(root.path().join(NAME), text).unwrap();
            assert_eq!(read(root.path()).unwrap(), Record::default());
            assert_eq!(
                fs::read(root.path().join("care.json.unreadable")).unwrap(),
                text.as_bytes()
            );
            assert!(!root.path().join(NAME).exists());
        }
    }
}
