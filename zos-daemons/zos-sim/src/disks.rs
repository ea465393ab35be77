//! Simulated disks: storaged's machine, where a disk is a folder.
//!
//! ```text
//!  disks/nvme0n1/header.json     the pool header; none: the disk is empty
//!                @state          the node's state; <place> is a link to it, `mirror` beside it to a second
//!                @volumes        as on a node, but sparse and in clear
//!                @shares         what on a node are file systems on volumes: folders
//! ```
//! What storaged decides, it decides here as on a node: adoption, whose a pool is, what room there is.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::SigningKey;
use identityd::key;
use sha2::{Digest, Sha256};
use storaged::adopt::contents::{Contents, Mark};
use storaged::adopt::plan;
use storaged::care::port::Hands;
use storaged::copies::{self, Generation};
use storaged::disk::header::{Header, Stage, VERSION};
use storaged::disk::judge::Verdict;
use storaged::disk::marks::Marks;
use storaged::keeper::Event;
use storaged::machine::{Machine, Watching};
use storaged::pool::{Plan, Pool, PoolError, SUBVOLUMES, class};
use storaged::volume::stack::{Look, Stack};
use storaged::volume::{DeviceChange, Devices};
use tokio::sync::mpsc;
use zos_host::Context;
use zos_host::block::Disk;
use zos_types::{Bytes, NodeId};

use crate::care::Care;
use crate::hardware::FOREIGN;

/// The daemons that keep something, each in a folder of the state.
const KEEPERS: [&str; 6] = ["storage", "identity", "net", "vm", "provision", "api"];
/// The pool header.
const HEADER: &str = "header.json";

/// Whether and how a node's key is known beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// None: identityd draws it, as on a node.
    pub(crate) seed: Option<u64>,
    /// The node's number.
    pub(crate) number: u16,
}

impl Keys {
    /// Puts the key where identityd looks for it, if it is known and none is there.
    fn place(&self, folder: &Path) -> io::Result<()> {
        let (Some(seed), key::Found::Missing) = (self.seed, key::read(folder)) else {
            return Ok(());
        };
        let hash = Sha256::new()
            .chain_update("zosd sim")
            .chain_update(seed.to_le_bytes())
            .chain_update(self.number.to_le_bytes())
            .finalize();
        key::write(folder, &SigningKey::from_bytes(&hash.into())).map_err(io::Error::other)
    }
}

/// A machine's disks.
#[derive(Debug)]
pub(crate) struct Disks {
    /// The disks, a folder each.
    folder: PathBuf,
    /// Where the state is shown.
    place: PathBuf,
    disks: Vec<Disk>,
    /// One that can't be read.
    failing: Option<String>,
    keys: Keys,
    /// Volumes in use: for as long as this boot lasts, whatever becomes of storaged.
    volumes: Arc<Plain>,
}

impl Disks {
    /// Disks below `folder`. One that is there keeps the size that it was made with.
    pub(crate) fn new(
        folder: PathBuf,
        place: PathBuf,
        disks: Vec<Disk>,
        failing: bool,
        keys: Keys,
    ) -> Self {
        let failing = disks.last().filter(|_| failing).map(|disk| disk.name.clone());
        let mut found =
            Self { folder, place, disks: Vec::new(), failing, keys, volumes: Arc::default() };
        found.disks = disks
            .into_iter()
            .map(|disk| match found.header(&disk) {
                Ok(Some(header)) => Disk { size: header.disk_size, ..disk },
                _ => disk,
            })
            .collect();
        found
    }

    fn of(&self, disk: &Disk) -> PathBuf {
        self.folder.join(&disk.name)
    }

    fn header(&self, disk: &Disk) -> io::Result<Option<Header>> {
        match fs::read(self.of(disk).join(HEADER)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, disk: &Disk, header: &Header) -> Result<(), PoolError> {
        let write = || -> io::Result<()> {
            let (path, text) = (self.of(disk).join(HEADER), serde_json::to_vec(header)?);
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(new, path)
        };
        write().map_err(failed("mark", disk))
    }

    fn pool(&self, disk: &Disk, header: Header) -> Pool {
        let (class, block) = (class(disk), disk.logical_block);
        Pool { header, disk: disk.name.clone(), class, block, root: self.of(disk) }
    }
}

impl Machine for Disks {
    fn watch(&self, news: mpsc::Sender<Event>) -> Watching {
        let disks = self.disks.clone();
        Box::pin(async move {
            news.send(Event::Disks(disks, Vec::new())).await?;
            std::future::pending().await
        })
    }

    fn judge(&self, disk: &Disk, completely: bool) -> Verdict {
        if self.failing.as_ref() == Some(&disk.name) {
            return Verdict::Unreadable("a simulated error of the medium".into());
        }
        match self.header(disk) {
            Ok(Some(header)) => {
                let header = Box::new(header);
                match header.stage {
                    Stage::Ready | Stage::Leaving => Verdict::Ours(header),
                    Stage::Adopting => Verdict::Unfinished(header),
                    Stage::Wiping => Verdict::Wiping(header),
                    Stage::Released => Verdict::Released(header),
                }
            }
            Ok(None) if disk.name == FOREIGN => Verdict::Foreign("ext2/3/4".into()),
            Ok(None) if completely => Verdict::Empty,
            Ok(None) => Verdict::Blank,
            Err(error) => Verdict::Unreadable(error.to_string()),
        }
    }

    fn marks(&self, disk: &Disk) -> Marks {
        let whole = match self.judge(disk, true) {
            Verdict::Ours(_) | Verdict::Unfinished(_) => vec!["pool of ZOS".to_owned()],
            Verdict::Foreign(_) => vec!["ext2/3/4".to_owned()],
            _ => Vec::new(),
        };
        Marks { whole, partitions: Vec::new() }
    }

    fn adopt(&self, disk: &Disk, plan: &Plan) -> Result<Pool, PoolError> {
        for name in SUBVOLUMES {
            fs::create_dir_all(self.of(disk).join(name)).map_err(failed("make a pool on", disk))?;
        }
        let pool = random_id().map_err(failed("draw an id for", disk))?;
        let mut state_pools = plan.state_pools.clone();
        if plan.state {
            state_pools.push(pool.clone());
        }
        let header = Header {
            version: VERSION,
            sequence: 1,
            partition: format!("{pool}{pool}"),
            pool,
            disk_size: disk.size,
            stage: Stage::Ready,
            owner: plan.owner,
            state: plan.state,
            state_pools,
            instead_of: plan.instead_of.clone(),
            over: None,
            copy: plan.state.then(|| copies::Mark::first(Generation::draw())),
        };
        self.write(disk, &header)?;
        Ok(self.pool(disk, header))
    }

    fn open(&self, disk: &Disk, header: &Header) -> Result<Pool, PoolError> {
        Ok(self.pool(disk, header.clone()))
    }

    fn own(&self, disk: &Disk, header: &Header, owner: NodeId) -> Result<Header, PoolError> {
        let sequence = header.sequence + 1;
        let owned = Header { sequence, owner: Some(owner), ..header.clone() };
        self.write(disk, &owned)?;
        Ok(owned)
    }

    fn look(&self, disk: &Disk) -> Result<(Disk, Contents), PoolError> {
        let verdict = self.judge(disk, false);
        let mark = Mark { what: "ext2/3/4".into(), name: Some("simulated".into()) };
        let foreign = matches!(verdict, Verdict::Foreign(_));
        let header = self.header(disk).map_err(failed("look at", disk))?;
        let ends = format!("{header:?}");
        let marks = Vec::from_iter(foreign.then_some(mark));
        Ok((disk.clone(), Contents { verdict, marks, parts: Vec::new(), ends, users: Vec::new() }))
    }

    fn take(&self, disk: &Disk, plan: &Plan, word: &str) -> Result<Pool, PoolError> {
        let (now, contents) = self.look(disk)?;
        if plan::adoption_hash(&now, &contents) != word {
            return Err(PoolError::Changed(format!("{} has changed", disk.name)));
        }
        self.adopt(disk, plan)
    }

    fn set_stage(&self, disk: &Disk, header: &Header, stage: Stage) -> Result<Header, PoolError> {
        let header = Header { sequence: header.sequence + 1, stage, ..header.clone() };
        self.write(disk, &header)?;
        Ok(header)
    }

    fn wipe(&self, disk: &Disk, header: &Header, told: &dyn Fn(u8)) -> Result<Header, PoolError> {
        let wiping = self.set_stage(disk, header, Stage::Wiping)?;
        told(50);
        for name in SUBVOLUMES {
            let folder = self.of(disk).join(name);
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(failed("wipe", disk))?;
            }
        }
        let empty = Header { state: false, state_pools: Vec::new(), ..wiping };
        self.set_stage(disk, &empty, Stage::Released)
    }

    fn inscribe(&self, disk: &Disk, header: &Header) -> Result<Header, PoolError> {
        let written = Header { version: VERSION, sequence: header.sequence + 1, ..header.clone() };
        self.write(disk, &written)?;
        Ok(written)
    }

    fn show(&self, pool: &Pool, place: usize) -> zos_host::Result<()> {
        self.hide(place)?;
        let shown = if place == 0 { self.place.clone() } else { mirror(&self.place) };
        symlink(pool.root.join("@state"), &shown).during("show the state at", shown.display())?;
        KEEPERS.iter().try_for_each(|name| {
            let folder = shown.join(name);
            fs::create_dir_all(&folder).during("create", folder.display())
        })
    }

    fn hide(&self, place: usize) -> zos_host::Result<()> {
        let shown = if place == 0 { self.place.clone() } else { mirror(&self.place) };
        if shown.is_symlink() {
            fs::remove_file(&shown).during("take away", shown.display())?;
        }
        Ok(())
    }

    fn close(&self, _: &str) {}

    fn prepare(&self, pool: Option<&Pool>) -> zos_host::Result<()> {
        if !self.place.exists() {
            let made = match pool {
                Some(pool) => symlink(pool.root.join("@state"), &self.place),
                None => fs::create_dir(&self.place),
            };
            made.during("show the state at", self.place.display())?;
        }
        KEEPERS.iter().try_for_each(|name| {
            let folder = self.place.join(name);
            fs::create_dir_all(&folder).during("create", folder.display())
        })?;
        let folder = self.place.join("identity");
        self.keys.place(&folder).during("put the key into", folder.display())
    }

    fn devices(&self) -> Arc<dyn Devices> {
        Arc::clone(&self.volumes) as Arc<dyn Devices>
    }

    fn hands(&self) -> Arc<dyn Hands> {
        Arc::new(Care { folder: self.folder.clone() })
    }

    fn waits(&self) -> bool {
        false
    }
}

/// Where the state's other copy is shown.
pub(crate) fn mirror(place: &Path) -> PathBuf {
    place.with_file_name("mirror")
}

/// Volumes as sparse files in clear: those that are open, by their devices' names.
#[derive(Debug, Default)]
struct Plain(Mutex<BTreeMap<String, PathBuf>>);

impl Plain {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a volume's first whole copy.
fn copy(stack: &Stack) -> zos_host::Result<PathBuf> {
    let whole = stack.legs.iter().filter(|leg| !leg.stale);
    let files = whole.filter_map(|leg| leg.files.as_ref()).next();
    let missing = || zos_host::Error::invalid("open", &stack.name, "no copy of it is here");
    Ok(files.ok_or_else(missing)?.data())
}

fn device(path: &Path) -> zos_host::Result<OwnedFd> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    Ok(opened.during("open", path.display())?.into())
}

impl Devices for Plain {
    fn reserve(&self, file: &File, size: Bytes) -> io::Result<()> {
        file.set_len(size.0)
    }

    fn find(&self, name: &str) -> zos_host::Result<Option<OwnedFd>> {
        let path = self.open().get(name).cloned();
        path.map(|path| device(&path)).transpose()
    }

    fn map(&self, stack: &Stack, _: &[u8]) -> zos_host::Result<OwnedFd> {
        let path = copy(stack)?;
        let opened = device(&path)?;
        self.open().insert(stack.name.clone(), path);
        Ok(opened)
    }

    fn format(&self, device: &OwnedFd) -> io::Result<()> {
        let folder = share(device)?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(folder)
    }

    fn root(&self, device: &OwnedFd) -> zos_host::Result<OwnedFd> {
        let folder = share(device).during("find", "the folder of a share")?;
        Ok(File::open(&folder).during("open", folder.display())?.into())
    }

    fn unmap(&self, name: &str) -> zos_host::Result<bool> {
        Ok(self.open().remove(name).is_some())
    }

    fn clear_ends(&self, _: &OwnedFd, _: Bytes) -> io::Result<()> {
        Ok(())
    }

    fn held(&self, name: &str, work: &mut dyn FnMut() -> io::Result<()>) -> zos_host::Result<()> {
        work().during("copy", name)
    }

    fn look(&self, _: &str) -> zos_host::Result<Option<Look>> {
        Ok(None)
    }

    fn verify(&self, _: &str) -> zos_host::Result<()> {
        Ok(())
    }

    fn change(&self, stack: &Stack, _: DeviceChange<'_>) -> zos_host::Result<()> {
        let path = copy(stack)?;
        self.open().insert(stack.name.clone(), path);
        Ok(())
    }
}

/// The folder that stands for the file system on a volume: `@volumes/<twin>/<volume>` is
/// `@shares/<twin>/<volume>`.
fn share(device: &OwnedFd) -> io::Result<PathBuf> {
    let file = fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()))?;
    let lost = || io::Error::other(format!("{}: not below @volumes", file.display()));
    let mut above = file.ancestors();
    let (volume, twin) = (above.next().and_then(Path::file_name), above.next());
    let pool = above.nth(1).ok_or_else(lost)?;
    let (Some(volume), Some(twin)) = (volume, twin.and_then(Path::file_name)) else {
        return Err(lost());
    };
    Ok(pool.join("@shares").join(twin).join(volume))
}

fn failed<'a>(operation: &'static str, disk: &'a Disk) -> impl Fn(io::Error) -> PoolError + 'a {
    move |source| PoolError::Disk { operation, disk: disk.name.clone(), source }
}

/// Sixteen hexadecimal digits.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}
