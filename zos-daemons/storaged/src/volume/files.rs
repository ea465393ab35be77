//! A volume's files in its pool, and the order in which they come and go.
//!
//! ```text
//!  @volumes/<twin>/<deployment>.<workload>        its bytes: NOCOW, allocated in full
//!                  <deployment>.<workload>.key    its key, sealed by the node
//!                  <deployment>.<workload>.json   its record: with it the volume exists
//!
//!  make     bytes ─▶ key ─▶ record            a cut before the record: swept up at the next opening
//!  destroy  record "deleting" ─▶ no key ─▶ no bytes ─▶ no record      a cut: finished then
//! ```
//! Names hold no dot beyond the one, so a suffix can't be mistaken for a volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, IFlags};
use serde::{Deserialize, Serialize};
use zos_types::deployment::{Class, Content, Integrity, KeyHolder};
use zos_types::{Bytes, TwinId, WorkloadName};

/// The version of the record that this code writes.
const VERSION: u32 = 1;

/// What is known of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// Whose it is.
    pub twin: TwinId,
    /// Which workload it is.
    pub name: WorkloadName,
    /// Its size.
    pub size: Bytes,
    /// The class that was asked for.
    pub class: Class,
    /// What is done about bit rot.
    pub integrity: Integrity,
    /// Who holds its key.
    pub key: KeyHolder,
    /// dm-crypt's cipher.
    pub cipher: String,
    /// What it holds.
    #[serde(default)]
    pub holds: Content,
    /// It was never handed out, and its ends still read as noise.
    #[serde(default)]
    pub fresh: bool,
    /// It is being destroyed.
    #[serde(default)]
    pub deleting: bool,
}

impl Record {
    /// The record of a new volume.
    pub fn new(twin: TwinId, name: WorkloadName, size: Bytes, class: Class) -> Self {
        Self {
            version: VERSION,
            twin,
            name,
            size,
            class,
            integrity: Integrity::None,
            key: KeyHolder::Node,
            cipher: "aes-xts-plain64".to_owned(),
            holds: Content::Disk,
            fresh: true,
            deleting: false,
        }
    }
}

/// The files of one volume.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    name: String,
}

impl Files {
    /// Of this volume in a pool mounted at `root`.
    pub fn of(root: &Path, twin: &TwinId, name: &WorkloadName) -> Self {
        Self { folder: root.join("@volumes").join(twin.to_string()), name: name.dotted() }
    }

    /// The volume's bytes.
    pub fn data(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn side(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.{suffix}", self.name))
    }

    /// Makes the bytes: every one of them is the volume's from now on.
    pub fn allocate(&self, size: Bytes) -> io::Result<()> {
        let parent = self.folder.parent().unwrap_or(Path::new("/"));
        if !self.folder.is_dir() {
            fs::create_dir(&self.folder)?;
            File::open(parent)?.sync_all()?;
        }
        remove(&self.data())?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.data())?;
        // Must come before the first byte: btrfs takes it for empty files only.
        match rustix::fs::ioctl_getflags(&file)
            .and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW))
        {
            // Not btrfs: tests on other file systems.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY) => {}
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size.0)?;
        file.sync_all()?;
        self.sync()
    }

    /// Keeps the sealed key.
    pub fn write_key(&self, sealed: &[u8]) -> io::Result<()> {
        self.write("key", sealed)
    }

    /// The sealed key.
    pub fn read_key(&self) -> io::Result<Vec<u8>> {
        fs::read(self.side("key"))
    }

    /// Writes the record; the volume exists when this returns.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write("json", &serde_json::to_vec(record).map_err(io::Error::other)?)
    }

    /// Destroys the volume; what an earlier attempt did is done. Without its key its bytes are noise.
    pub fn destroy(&self, record: &Record) -> io::Result<()> {
        if !record.deleting {
            self.write_record(&Record { deleting: true, ..record.clone() })?;
        }
        remove(&self.side("key"))?;
        self.sync()?;
        remove(&self.data())?;
        self.sync()?;
        remove(&self.side("json"))?;
        self.sync()
    }

    fn write(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.side(&format!("{suffix}.new"));
        remove(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.side(suffix))?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What a pool holds: whole volumes, and records that can't be read, in words. What was begun and
/// not acknowledged is swept up, what was half destroyed is destroyed.
pub fn sweep(root: &Path) -> io::Result<(Vec<Record>, Vec<String>)> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for folder in fs::read_dir(root.join("@volumes"))? {
        let folder = folder?.path();
        let Some(twin) = file_name(&folder).parse::<TwinId>().ok().filter(|_| folder.is_dir())
        else {
            continue;
        };
        let mut kept = Vec::new();
        let files: Vec<PathBuf> =
            fs::read_dir(&folder)?.map(|f| f.map(|f| f.path())).collect::<io::Result<_>>()?;
        for path in files.iter().filter(|path| file_name(path).ends_with(".json")) {
            kept.push(file_name(path).trim_end_matches(".json").to_owned());
            match read_record(path) {
                Ok(record)
                    if record.twin == twin
                        && path == &Files::of(root, &twin, &record.name).side("json") =>
                {
                    if record.deleting {
                        Files::of(root, &twin, &record.name).destroy(&record)?;
                    } else {
                        records.push(record);
                    }
                }
                Ok(_) => unreadable.push(format!("{}: of another volume", path.display())),
                Err(error) => unreadable.push(format!("{}: {error}", path.display())),
            }
        }
        for path in &files {
            let name = file_name(path);
            let volume: Vec<&str> = name.splitn(3, '.').collect();
            let [deployment, workload, ..] = volume[..] else { continue };
            if !kept.contains(&format!("{deployment}.{workload}")) {
                tracing::info!("sweeping up {name}, which was never acknowledged");
                remove(path)?;
            }
        }
    }
    records.sort_by(|a, b| (&a.twin, &a.name).cmp(&(&b.twin, &b.name)));
    Ok((records, unreadable))
}

fn read_record(path: &Path) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path)?)?;
    if record.version > VERSION {
        let version = record.version;
        return Err(io::Error::other(format!("written by a newer version of ZOS ({version})")));
    }
    Ok(record)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWIN: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";

    fn record(name: &str) -> Record {
        Record::new(TWIN.parse().unwrap(), name.parse().unwrap(), Bytes(1 << 20), Class::Ssd)
    }

    fn pool() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("@volumes")).unwrap();
        root
    }

    fn files(root: &Path, record: &Record) -> Files {
        Files::of(root, &record.twin, &record.name)
    }

    fn make(root: &Path, record: &Record) {
        let files = files(root, record);
        files.allocate(record.size).unwrap();
        files.write_key(b"sealed").unwrap();
        files.write_record(record).unwrap();
    }

    fn left(root: &Path) -> usize {
        fs::read_dir(root.join("@volumes").join(TWIN)).unwrap().count()
    }

    #[test]
    fn a_volume_is_found_as_it_was_made() {
        let root = pool();
        let (a, b) = (record("web/data"), record("web/logs"));
        make(root.path(), &b);
        make(root.path(), &a);
        assert_eq!(sweep(root.path()).unwrap(), (vec![a.clone(), b], vec![]));
        assert_eq!(files(root.path(), &a).read_key().unwrap(), b"sealed");
        assert_eq!(fs::metadata(files(root.path(), &a).data()).unwrap().len(), 1 << 20);
    }

    /// Power cuts, by hand: each prefix of the steps leaves a volume that is whole or is gone.
    #[test]
    fn what_was_cut_short_is_swept_up() {
        let root = pool();
        let record = record("web/data");
        let files = files(root.path(), &record);
        files.allocate(record.size).unwrap();
        assert_eq!(sweep(root.path()).unwrap(), (vec![], vec![]));
        assert_eq!(left(root.path()), 0);
        files.allocate(record.size).unwrap();
        files.write_key(b"sealed").unwrap();
        assert_eq!(sweep(root.path()).unwrap(), (vec![], vec![]));
        assert_eq!(left(root.path()), 0);

        make(root.path(), &record);
        files.write_record(&Record { deleting: true, ..record.clone() }).unwrap();
        assert_eq!(sweep(root.path()).unwrap(), (vec![], vec![]));
        assert_eq!(left(root.path()), 0);
        make(root.path(), &record);
        files.destroy(&record).unwrap();
        files.destroy(&record).unwrap();
        assert_eq!(left(root.path()), 0);
    }

    #[test]
    fn an_unreadable_record_is_told_and_its_volume_kept() {
        let root = pool();
        let record = record("web/data");
        let check = |text: &str| {
            make(root.path(), &record);
            fs::write(files(root.path(), &record).side("json"), text).unwrap();
            let (records, unreadable) = sweep(root.path()).unwrap();
            assert_eq!((records.len(), unreadable.len()), (0, 1), "{text}");
            assert_eq!(left(root.path()), 3);
        };
        check("{");
        check(&serde_json::to_string(&Record { version: 9, ..record.clone() }).unwrap());
        let other = Record { name: "web/other".parse().unwrap(), ..record.clone() };
        check(&serde_json::to_string(&other).unwrap());
    }
}
