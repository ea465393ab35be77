//! A volume's files in a pool, and the order in which they come and go.
//!
//! ```text
//!  @volumes/<twin>/<deployment>.<workload>        its bytes: NOCOW, allocated in full
//!                  <deployment>.<workload>.tags   their checksums, when bit rot is to be seen
//!                  <deployment>.<workload>.raid   what a mirror knows of this copy
//!                  <deployment>.<workload>.key    its key, sealed by the node
//!                  <deployment>.<workload>.json   its record: with it the volume exists
//!                  <deployment>.<workload>@<snapshot>...   the same of a snapshot, all but the key
//!
//!  make     bytes ─▶ key ─▶ record            a cut before the record: swept up at the next opening
//!  destroy  record "deleting" ─▶ no key ─▶ no bytes ─▶ no record      a cut: finished then
//! ```
//! Names hold no dot beyond the one, so a suffix can't be mistaken for a volume. What lies on a disk may
//! have been written by anybody: nothing is followed out of the folder, and nothing is read beyond a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, IFlags, OFlags, SeekFrom};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zos_types::deployment::Integrity;
use zos_types::unit::MIB;
use zos_types::volume::Footprint;
use zos_types::{Bytes, Name, TwinId, WorkloadName};

use super::record::{Record, Shot};

/// A record or a sealed key is smaller.
const MOST: u64 = 64 << 10;
/// What the kernel takes for the checksum of a block that was never written (its filler for discarded
/// blocks, dm-integrity.c): so a new volume reads without an error though no checksum was computed.
const NEVER_WRITTEN: u8 = 0xf6;
/// The part of the checksums' file that the kernel must find empty, to make its own there.
const SUPERBLOCK: u64 = 4096;

/// What a copy of a volume is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its bytes.
    Data,
    /// Their checksums.
    Tags,
    /// What a mirror knows of this copy.
    Mirror,
}

impl Part {
    /// The parts of each copy.
    pub fn of(integrity: Integrity) -> &'static [Self] {
        match integrity {
            Integrity::None => &[Self::Data],
            Integrity::Detect => &[Self::Data, Self::Tags],
            Integrity::Repair => &[Self::Data, Self::Tags, Self::Mirror],
        }
    }

    /// How large it is.
    pub fn size(self, volume: Bytes) -> Bytes {
        match self {
            Self::Data => volume,
            Self::Tags => Footprint::tags(volume),
            Self::Mirror => Footprint::MIRROR,
        }
    }

    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Data => None,
            Self::Tags => Some("tags"),
            Self::Mirror => Some("raid"),
        }
    }
}

/// Sets room aside for a file.
pub type Reserve<'a> = &'a dyn Fn(&File, Bytes) -> io::Result<()>;

/// Every byte is the file's from now on.
pub fn in_full(file: &File, size: Bytes) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size.0)?)
}

/// The files of one volume, or of a snapshot, in one pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    folder: PathBuf,
    name: String,
}

impl Files {
    /// Of this volume in a pool mounted at `root`.
    pub fn of(root: &Path, twin: &TwinId, name: &WorkloadName) -> Self {
        Self { folder: root.join("@volumes").join(twin.to_string()), name: name.dotted() }
    }

    /// Of a snapshot of it.
    pub fn snapshot(&self, name: &Name) -> Self {
        Self { folder: self.folder.clone(), name: format!("{}@{name}", self.name) }
    }

    /// The volume's bytes.
    pub fn data(&self) -> PathBuf {
        self.part(Part::Data)
    }

    /// One of its parts.
    pub fn part(&self, part: Part) -> PathBuf {
        match part.suffix() {
            None => self.folder.join(&self.name),
            Some(suffix) => self.side(suffix),
        }
    }

    /// One of its parts, open for reading and writing.
    pub fn open(&self, part: Part) -> io::Result<File> {
        open(&self.part(part))
    }

    fn side(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.{suffix}", self.name))
    }

    /// Makes all parts of an empty volume; durable when it returns.
    pub fn allocate(
        &self,
        size: Bytes,
        integrity: Integrity,
        reserve: Reserve<'_>,
    ) -> io::Result<()> {
        self.make_folder()?;
        for part in Part::of(integrity) {
            let path = self.part(*part);
            let file = create(&path)?;
            reserve(&file, part.size(size))?;
            if *part == Part::Tags {
                fill(&file, SUPERBLOCK, part.size(size).0)?;
            }
            file.sync_all()?;
        }
        self.sync()
    }

    /// Makes all parts larger; durable when it returns. Doing it again does no harm, as long as the
    /// volume was not used with its new size.
    pub fn extend(
        &self,
        from: Bytes,
        to: Bytes,
        integrity: Integrity,
        reserve: Reserve<'_>,
    ) -> io::Result<()> {
        for part in Part::of(integrity) {
            let (old, new) = (part.size(from), part.size(to));
            if new > old {
                let file = self.open(*part)?;
                reserve(&file, new)?;
                if *part == Part::Tags {
                    fill(&file, old.0, new.0)?;
                }
                file.sync_all()?;
            }
        }
        self.sync()
    }

    /// Whether each part is there, and as large as it must be.
    pub fn fit(&self, size: Bytes, integrity: Integrity) -> bool {
        Part::of(integrity).iter().all(|part| {
            let found = fs::symlink_metadata(self.part(*part));
            found.is_ok_and(|found| found.is_file() && found.len() >= part.size(size).0)
        })
    }

    /// Makes all parts as copies of another's that share its blocks. Where the file system can't do
    /// that they are copied.
    pub fn share(&self, from: &Self, integrity: Integrity) -> io::Result<()> {
        self.make_folder()?;
        for part in Part::of(integrity) {
            let (source, copy) = (from.open(*part)?, create(&self.part(*part))?);
            match rustix::fs::ioctl_ficlone(&copy, &source) {
                Ok(()) => {}
                Err(error) if can_not_share(error) => copy_bytes(&source, &copy)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What [`Files::share`] made is durable when this returns.
    pub fn settle(&self, integrity: Integrity) -> io::Result<()> {
        for part in Part::of(integrity) {
            self.open(*part)?.sync_all()?;
        }
        self.sync()
    }

    /// Makes all parts as copies of another's on any disk; durable when it returns.
    pub fn copy(
        &self,
        from: &Self,
        size: Bytes,
        integrity: Integrity,
        reserve: Reserve<'_>,
    ) -> io::Result<()> {
        self.make_folder()?;
        for part in Part::of(integrity) {
            let (source, copy) = (from.open(*part)?, create(&self.part(*part))?);
            reserve(&copy, part.size(size))?;
            copy_bytes(&source, &copy)?;
            copy.sync_all()?;
        }
        self.sync()
    }

    /// Puts these files in another's place, part by part; durable when it returns. A part that was put
    /// there before is passed over.
    pub fn replace(&self, place: &Self, integrity: Integrity) -> io::Result<()> {
        for part in Part::of(integrity) {
            match fs::rename(self.part(*part), place.part(*part)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        self.sync()
    }

    /// Where a restored volume is put together: no name of a snapshot begins with a dash.
    pub fn beside(&self) -> Self {
        Self { folder: self.folder.clone(), name: format!("{}@-", self.name) }
    }

    /// Keeps the sealed key.
    pub fn write_key(&self, sealed: &[u8]) -> io::Result<()> {
        self.write("key", sealed)
    }

    /// The sealed key.
    pub fn read_key(&self) -> io::Result<Vec<u8>> {
        read(&self.side("key"))
    }

    /// Writes the record; the volume exists when this returns.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        self.write_json(record)
    }

    /// Writes a snapshot's record; the snapshot exists when this returns.
    pub fn write_shot(&self, shot: &Shot) -> io::Result<()> {
        self.write_json(shot)
    }

    /// Whether its record lies here: what has none is swept up.
    pub(super) fn has_record(&self) -> bool {
        self.side("json").exists()
    }

    fn write_json(&self, record: &impl Serialize) -> io::Result<()> {
        self.write("json", &serde_json::to_vec(record).map_err(io::Error::other)?)
    }

    /// Destroys the volume with its snapshots; what an earlier attempt did is done. Without its key
    /// its bytes are noise.
    pub fn destroy(&self, record: &Record) -> io::Result<()> {
        if !record.deleting && self.side("json").exists() {
            self.write_record(&Record { deleting: true, ..record.clone() })?;
        }
        remove(&self.side("key"))?;
        self.sync()?;
        let of_snapshots = format!("{}@", self.name);
        for file in list(&self.folder)? {
            if file_name(&file).starts_with(&of_snapshots) {
                remove(&file)?;
            }
        }
        self.remove_parts()?;
        self.sync()?;
        remove(&self.side("json"))?;
        self.sync()
    }

    /// Forgets a snapshot: its record first, what is left without one is swept up.
    pub fn destroy_snapshot(&self) -> io::Result<()> {
        remove(&self.side("json"))?;
        self.sync()?;
        self.remove_parts()?;
        self.sync()
    }

    /// Removes what has no record.
    pub fn remove_parts(&self) -> io::Result<()> {
        for part in Part::of(Integrity::Repair) {
            remove(&self.part(*part))?;
        }
        Ok(())
    }

    fn make_folder(&self) -> io::Result<()> {
        if !self.folder.is_dir() {
            let parent = self.folder.parent().unwrap_or(Path::new("/"));
            match fs::create_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn write(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        self.make_folder()?;
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

/// A new file without copy-on-write, in the place of what was there.
fn create(path: &Path) -> io::Result<File> {
    remove(path)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // Must come before the first byte: btrfs takes it for empty files only.
    match rustix::fs::ioctl_getflags(&file)
        .and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW))
    {
        // Not btrfs: tests on other file systems.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).write(true).custom_flags(no_link).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("{} is no file", path.display())))
    }
}

fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let piece = vec![NEVER_WRITTEN; usize::try_from(MIB).unwrap_or(0)];
    let mut at = from;
    while at < to {
        let length = (to - at).min(MIB);
        file.write_all_at(&piece[..usize::try_from(length).unwrap_or(0)], at)?;
        at += length;
    }
    Ok(())
}

fn can_not_share(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::OPNOTSUPP, Errno::NOTTY, Errno::XDEV, Errno::INVAL].contains(&error)
}

/// Copies what was written of a file; what was not reads as zeros in both.
fn copy_bytes(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    if to.metadata()?.len() < size {
        to.set_len(size)?;
    }
    let mut piece = vec![0; usize::try_from(MIB).unwrap_or(0)];
    let mut at = 0;
    loop {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin))?;
        at = begin;
        while at < end {
            let length = usize::try_from((end - at).min(MIB)).unwrap_or(0);
            from.read_exact_at(&mut piece[..length], at)?;
            to.write_all_at(&piece[..length], at)?;
            at += length as u64;
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut bytes, file) = (Vec::new(), open(path)?);
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("{} is too large", path.display())));
    }
    Ok(bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|file| file.map(|file| file.path())).collect()
}

/// What a pool holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Records of volumes, by twin and name.
    pub records: Vec<Record>,
    /// Records of snapshots of those volumes.
    pub shots: Vec<Shot>,
    /// What can't be read, in words.
    pub unreadable: Vec<String>,
}

/// Reads a pool's volumes. What was begun and not acknowledged is swept up. A volume half destroyed is
/// told with the others: whoever asked knows whether another pool holds more of it.
pub fn sweep(root: &Path, pool: &str) -> io::Result<Swept> {
    let mut swept = Swept::default();
    for folder in list(&root.join("@volumes"))? {
        let twin = file_name(&folder).parse::<TwinId>().ok();
        let is_folder = fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir());
        if let Some(twin) = twin.filter(|_| is_folder) {
            sweep_twin(&mut swept, root, pool, twin, &folder)?;
        }
    }
    swept.records.sort_by(|a, b| (&a.twin, &a.name).cmp(&(&b.twin, &b.name)));
    Ok(swept)
}

fn sweep_twin(
    swept: &mut Swept,
    root: &Path,
    pool: &str,
    twin: TwinId,
    folder: &Path,
) -> io::Result<()> {
    // What each file belongs to: its name up to the suffix.
    let owner = |path: &Path| {
        let parts: Vec<&str> = file_name(path).splitn(3, '.').collect();
        let [deployment, workload, ..] = parts[..] else { return None };
        Some(format!("{deployment}.{workload}"))
    };
    let is_json =
        |path: &Path| owner(path).map(|o| format!("{o}.json")).as_deref() == Some(file_name(path));
    let files = list(folder)?;
    let (mut kept, mut shots) = (Vec::new(), Vec::new());
    for path in files.iter().filter(|path| is_json(path)) {
        let Some(owner) = owner(path) else { continue };
        kept.push(owner.clone());
        let wrong = if owner.contains('@') {
            read_json::<Shot>(path).and_then(|shot| {
                let own = Files::of(root, &twin, &shot.volume).snapshot(&shot.name).side("json");
                if shot.twin != twin || *path != own {
                    return Err(io::Error::other("of another volume"));
                }
                shots.push(shot);
                Ok(())
            })
        } else {
            read_json::<Record>(path).and_then(|mut record| {
                let own = Files::of(root, &twin, &record.name).side("json");
                if record.twin != twin || *path != own {
                    return Err(io::Error::other("of another volume"));
                }
                if record.legs.is_empty() {
                    record.legs.push(pool.to_owned());
                }
                if let Some(flaw) = record.flaw() {
                    return Err(io::Error::other(flaw));
                }
                swept.records.push(record);
                Ok(())
            })
        };
        if let Err(error) = wrong {
            swept.unreadable.push(format!("{}: {error}", path.display()));
        }
    }
    for path in &files {
        let Some(owner) = owner(path) else { continue };
        let volume = owner.split('@').next().unwrap_or_default();
        // A snapshot goes with its volume; and what was not renamed yet was not acknowledged either.
        let unfinished = file_name(path).ends_with(".new");
        if unfinished || !kept.contains(&owner) || !kept.iter().any(|kept| kept == volume) {
            tracing::info!("sweeping up {}, which was never acknowledged", file_name(path));
            remove(path)?;
        }
    }
    shots.retain(|shot| kept.contains(&shot.volume.dotted()));
    swept.shots.append(&mut shots);
    Ok(())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = read(path)?;
    // A newer form may lack what this one needs: then its version is what is wrong with it.
    serde_json::from_slice(&bytes).map_err(|error| {
        let version = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let version =
            version.and_then(|value| value.get("version").and_then(serde_json::Value::as_u64));
        match version {
            Some(version) if version > u64::from(super::record::VERSION) => {
                io::Error::other(format!("written by a newer version of ZOS ({version})"))
            }
            _ => error.into(),
        }
    })
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zos_types::deployment::Class;

    const TWIN: &str = "yqooxx9u3aemh8mo5wcqq16yufu6jitouq1o4za751dger1igghy";

    fn record(name: &str) -> Record {
        let (twin, name) = (TWIN.parse().unwrap(), name.parse().unwrap());
        Record { legs: vec!["p".into()], ..Record::new(twin, name, Bytes(1 << 20), Class::Ssd) }
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
        files.allocate(record.size, record.integrity, &in_full).unwrap();
        files.write_key(b"sealed").unwrap();
        files.write_record(record).unwrap();
    }

    #[test]
    fn what_was_not_renamed_yet_is_swept_up_beside_a_volume_that_is_kept() {
        let root = pool();
        let record = record("web/data");
        make(root.path(), &record);
        let folder = root.path().join("@volumes").join(TWIN);
        fs::write(folder.join("web.data.json.new"), "{").unwrap();
        fs::write(folder.join("web.data.key.new"), "sea").unwrap();
        assert_eq!(sweep(root.path(), "p").unwrap().records, [record]);
        assert_eq!(left(root.path()), 3);
    }

    fn left(root: &Path) -> usize {
        fs::read_dir(root.join("@volumes").join(TWIN)).unwrap().count()
    }

    fn found(root: &Path) -> (Vec<Record>, usize) {
        let swept = sweep(root, "p").unwrap();
        (swept.records, swept.unreadable.len())
    }

    #[test]
    fn a_volume_is_found_as_it_was_made() {
        let root = pool();
        let (a, b) = (record("web/data"), record("web/logs"));
        make(root.path(), &b);
        make(root.path(), &a);
        assert_eq!(found(root.path()), (vec![a.clone(), b], 0));
        assert_eq!(files(root.path(), &a).read_key().unwrap(), b"sealed");
        assert_eq!(fs::metadata(files(root.path(), &a).data()).unwrap().len(), 1 << 20);
    }

    /// What the first version of the record had.
    #[test]
    fn a_volume_of_the_first_version_is_taken_on() {
        let root = pool();
        let record = record("web/data");
        make(root.path(), &record);
        let old = format!(
            r#"{{"version":1,"twin":"{TWIN}","name":"web/data","size":1048576,"class":"ssd","integrity":"none",
            "key":"node","cipher":"aes-xts-plain64","fresh":false,"deleting":false}}"#
        );
        fs::write(files(root.path(), &record).side("json"), old).unwrap();
        assert_eq!(found(root.path()), (vec![Record { version: 1, fresh: false, ..record }], 0));
    }

    /// Power cuts, by hand: each prefix of the steps leaves a volume that is whole or is gone.
    #[test]
    fn what_was_cut_short_is_swept_up() {
        let root = pool();
        let record = Record { integrity: Integrity::Detect, ..record("web/data") };
        let files = files(root.path(), &record);
        let allocate = || files.allocate(record.size, record.integrity, &in_full).unwrap();
        allocate();
        assert_eq!((found(root.path()), left(root.path())), ((vec![], 0), 0));
        allocate();
        files.write_key(b"sealed").unwrap();
        assert_eq!((found(root.path()), left(root.path())), ((vec![], 0), 0));

        // A half destroyed one is told, so that all of its copies go.
        make(root.path(), &record);
        let dying = Record { deleting: true, ..record.clone() };
        files.write_record(&dying).unwrap();
        assert_eq!(found(root.path()), (vec![dying.clone()], 0));
        files.destroy(&dying).unwrap();
        files.destroy(&dying).unwrap();
        assert_eq!(left(root.path()), 0);

        // A snapshot without a record goes, its volume stays; without its volume it goes too.
        make(root.path(), &record);
        let snapshot = files.snapshot(&"monday".parse().unwrap());
        snapshot.share(&files, record.integrity).unwrap();
        assert_eq!(left(root.path()), 6);
        assert_eq!((found(root.path()), left(root.path())), ((vec![record.clone()], 0), 4));
    }

    #[test]
    fn an_unreadable_record_is_told_and_its_volume_kept() {
        let root = pool();
        let record = record("web/data");
        let check = |text: &str| {
            make(root.path(), &record);
            fs::write(files(root.path(), &record).side("json"), text).unwrap();
            assert_eq!(found(root.path()), (vec![], 1), "{text}");
            assert_eq!(left(root.path()), 3);
        };
        let text = |change: fn(&mut Record)| {
            let mut changed = record.clone();
            change(&mut changed);
            serde_json::to_string(&changed).unwrap()
        };
        check("{");
        check(&" ".repeat(65 << 10));
        check(r#"{"version":9}"#);
        check(&text(|r| r.version = 9));
        check(&text(|r| r.name = "web/other".parse().unwrap()));
        check(&text(|r| r.cipher = "null".into()));
        check(&text(|r| r.size = Bytes(77)));
        let own = serde_json::to_string(&record).unwrap();
        check(&own.replace("web/data", "../../etc/passwd"));
        let swept = {
            make(root.path(), &record);
            fs::write(files(root.path(), &record).side("json"), r#"{"version":9}"#).unwrap();
            sweep(root.path(), "p").unwrap()
        };
        assert!(swept.unreadable[0].contains("newer version of ZOS (9)"), "{swept:?}");
    }

    /// A disk that somebody prepared: its names lead nowhere else.
    #[test]
    fn links_are_not_followed() {
        let (root, outside) = (pool(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        fs::write(&secret, vec![7; 1 << 20]).unwrap();
        let record = record("web/data");
        make(root.path(), &record);
        let files = files(root.path(), &record);
        fs::remove_file(files.data()).unwrap();
        std::os::unix::fs::symlink(&secret, files.data()).unwrap();
        assert!(files.open(Part::Data).is_err());
        assert!(!files.fit(record.size, record.integrity));
        fs::remove_file(files.side("json")).unwrap();
        std::os::unix::fs::symlink(&secret, files.side("json")).unwrap();
        assert_eq!(found(root.path()), (vec![], 1));
        let twin = root.path().join("@volumes").join(TWIN.replace('y', "b"));
        std::os::unix::fs::symlink(outside.path(), twin).unwrap();
        found(root.path());
        assert!(secret.exists());
    }

    #[test]
    fn copies_have_the_same_bytes() {
        let root = pool();
        let (a, b) = (record("web/data"), record("web/logs"));
        let a = Record { integrity: Integrity::Detect, ..a };
        make(root.path(), &a);
        let (from, to) = (files(root.path(), &a), files(root.path(), &b));
        from.open(Part::Data).unwrap().write_all_at(b"words", 777_777).unwrap();
        for share in [true, false] {
            let done = if share {
                to.share(&from, a.integrity)
            } else {
                to.copy(&from, a.size, a.integrity, &in_full)
            };
            done.unwrap();
            for part in Part::of(a.integrity) {
                assert!(fs::read(from.part(*part)).unwrap() == fs::read(to.part(*part)).unwrap());
            }
        }
    }
}
