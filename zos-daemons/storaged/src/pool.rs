//! Pools: made on an empty disk, opened at a boot.
//!
//! ```text
//!  judged Empty ─ judged Empty again ─▶ header "adopting" ─▶ table ─▶ btrfs, subvolumes ─▶ header "ready"
//!                                          │                                                 │
//!               a power cut in between: Unfinished, made again from the start               Pool
//! ```
//! Each arrow is durable before the next begins. Nothing is kept in a pool before it is ready, so
//! making one again loses nothing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use zos_host::{Context, block, mount};
use zos_types::deployment::Class;
use zos_types::unit::{GIB, MIB};
use zos_types::{Bytes, NodeId};

use crate::Places;
use crate::adopt::contents::{self, Contents};
use crate::adopt::{lay, plan, release};
use crate::copies::{Generation, Mark};
use crate::disk::fingerprint;
use crate::disk::gpt::{self, Guid};
use crate::disk::header::{Header, Stage, VERSION};
use crate::disk::judge::{self, Verdict};
use crate::disk::read::Reader;
use crate::superblock::{self, Mended};

/// A smaller disk isn't adopted.
pub const SMALLEST: u64 = GIB;

/// How long a disk that is given back may be in use still.
const LET_GO: Duration = Duration::from_secs(10);

/// The subvolumes of a pool: state, images, volumes.
pub const SUBVOLUMES: [&str; 3] = ["@state", "@images", "@volumes"];

/// Why a pool could not be made, opened or marked.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The second look saw something else than the first: nothing was written.
    #[error("the disk is no longer empty: {0}")]
    NotEmpty(String),
    /// The disk isn't as the farmer's plan has it: nothing was written.
    #[error("{0}")]
    Changed(String),
    /// The disk said no.
    #[error("{operation} {disk}")]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// On which disk.
        disk: String,
        /// Its answer.
        source: io::Error,
    },
    /// The kernel said no.
    #[error(transparent)]
    Host(#[from] zos_host::Error),
    /// A program failed.
    #[error("{program}: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of what it said.
        output: String,
    },
}

/// What a new pool is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whose it is, when that is known already.
    pub owner: Option<NodeId>,
    /// Whether the node's state is to lie on it.
    pub state: bool,
    /// The pools on which the state lies, if not on this one.
    pub state_pools: Vec<String>,
    /// As in the header.
    pub instead_of: Option<Vec<NodeId>>,
}

/// A pool in use.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its header as it was last written.
    pub header: Header,
    /// The disk's name.
    pub disk: String,
    /// The disk's class.
    pub class: Class,
    /// The disk's logical block in bytes.
    pub block: u32,
    /// Where it is mounted.
    pub root: PathBuf,
}

impl Pool {
    /// Whether the farmer takes its disk out.
    pub fn leaves(&self) -> bool {
        self.header.stage == Stage::Leaving
    }

    /// What it can hold of volumes.
    pub fn capacity(&self) -> Bytes {
        let (_, size) = gpt::pool_place(self.header.disk_size);
        Bytes(size.saturating_sub(reserve(size)))
    }
}

/// What of a pool is kept from volumes: for the node's state and images, and for btrfs itself, which
/// keeps its metadata twice.
pub fn reserve(size: u64) -> u64 {
    (size / 20).clamp(512 * MIB, 20 * GIB)
}

/// The class of a disk, by what it says of itself.
pub fn class(disk: &block::Disk) -> Class {
    if disk.rotational { Class::Hdd } else { Class::Ssd }
}

fn failed<'a>(
    operation: &'static str,
    disk: &'a block::Disk,
) -> impl Fn(io::Error) -> PoolError + 'a {
    move |source| PoolError::Disk { operation, disk: disk.name.clone(), source }
}

/// Logs now and then how far a long look through a disk is.
pub fn progress(disk: &block::Disk) -> impl FnMut(u64) -> bool + use<> {
    let (name, size) = (disk.name.clone(), disk.size.max(1));
    let mut told = Instant::now();
    move |at| {
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            tracing::info!("{name}: looked through {} %", at * 100 / size);
        }
        true
    }
}

/// Makes a pool on a disk that is still empty, and opens it.
pub fn adopt(disk: &block::Disk, plan: &Plan, places: &Places) -> Result<Pool, PoolError> {
    let reader = Reader::open(&disk.path(), disk.size).map_err(failed("open", disk))?;
    let again = match judge::examine(&reader, disk.logical_block, progress(disk)) {
        Verdict::Empty => None,
        Verdict::Unfinished(header) => Some(header),
        other => return Err(PoolError::NotEmpty(other.to_string())),
    };
    let header = match &again {
        Some(header) => {
            let (sequence, over) = (header.sequence + 1, header.over.clone());
            Header { sequence, over, ..new_header(disk, plan)? }
        }
        None => new_header(disk, plan)?,
    };
    make(disk, exclusive(disk)?, header, again.is_some(), places)
}

/// Looks at all that the farmer should know of a disk, as it is now.
pub fn look(disk: &block::Disk, places: &Places) -> Result<(block::Disk, Contents), PoolError> {
    let now = block::disk(&places.root, disk.name.clone()).unwrap_or_else(|| disk.clone());
    let reader = Reader::open(&now.path(), now.size).map_err(failed("open", disk))?;
    let mut contents = contents::look(&reader, &now).map_err(failed("look at", disk))?;
    contents.users = contents::users(&places.root, &now)?;
    Ok((now, contents))
}

/// Makes a pool over what is on a disk, by the farmer's word: the hash of the plan that he read. If the
/// disk is no longer as it says, nothing is written.
pub fn take(
    disk: &block::Disk,
    plan: &Plan,
    word: &str,
    places: &Places,
) -> Result<Pool, PoolError> {
    // From here on nobody can mount it or make a part of it.
    let file = exclusive(disk).map_err(|error| match error {
        PoolError::Disk { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            PoolError::Changed(format!("{} is in use", disk.name))
        }
        error => error,
    })?;
    let (fresh, contents) = look(disk, places)?;
    if plan::adoption_hash(&fresh, &contents) != word {
        let found = &contents.verdict;
        return Err(PoolError::Changed(format!("it is not as in that plan any more: {found}")));
    }
    let reader = Reader::open(&disk.path(), disk.size).map_err(failed("open", disk))?;
    let header = Header {
        sequence: contents::next_sequence(&reader).map_err(failed("look at", disk))?,
        over: Some(fingerprint::take(&reader).map_err(failed("look at", disk))?),
        ..new_header(disk, plan)?
    };
    tracing::warn!("{}: taken over by the farmer's word {word}: {}", disk.name, contents.verdict);
    make(&block::Disk { partitions: fresh.partitions, ..disk.clone() }, file, header, true, places)
}

fn exclusive(disk: &block::Disk) -> Result<File, PoolError> {
    // Fails when anybody, the kernel included, has it in use.
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(exclusive)
        .open(disk.path())
        .map_err(failed("open for writing", disk))
}

/// The same, once the daemons whose state lay there have closed their files.
fn let_go(disk: &block::Disk) -> Result<File, PoolError> {
    let begun = Instant::now();
    loop {
        match exclusive(disk) {
            Err(_) if begun.elapsed() < LET_GO => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

fn make(
    disk: &block::Disk,
    file: File,
    header: Header,
    force: bool,
    places: &Places,
) -> Result<Pool, PoolError> {
    tracing::info!("{}: making pool {} on {}", disk.name, header.pool, Bytes(disk.size));
    lay::lay(&file, &header, disk).map_err(failed("mark and partition", disk))?;
    let place = gpt::pool_place(disk.size);
    for old in disk.partitions.iter().filter(|old| (old.start, old.size) != place) {
        block::remove_partition(&file, old.number)?;
    }
    drop(file);
    let partition = partition(disk, &header, places)?;
    let mut mkfs = Command::new(&places.mkfs);
    mkfs.args(["--quiet", "--data", "single", "--metadata", "dup", "--label", &header.label()]);
    if force {
        mkfs.arg("--force");
    }
    run(mkfs.arg(&partition))?;
    tracing::info!("{}: pool {} is formatted", disk.name, header.pool);
    let root = mount_pool(&partition, &header, places)?;
    for name in SUBVOLUMES {
        run(Command::new(&places.btrfs).args(["subvolume", "create"]).arg(root.join(name)))?;
    }
    sync(&root).map_err(failed("sync", disk))?;
    let sequence = header.sequence + 1;
    let ready = Header { sequence, stage: Stage::Ready, over: None, ..header };
    rewrite(disk, &ready)?;
    tracing::info!("{}: pool {} is ready", disk.name, ready.pool);
    Ok(pool(disk, ready, root))
}

/// Opens a pool that is ready; one that is mounted already is taken as it is.
pub fn open(disk: &block::Disk, header: &Header, places: &Places) -> Result<Pool, PoolError> {
    let partition = partition(disk, header, places)?;
    let root = mount_pool(&partition, header, places)?;
    for name in SUBVOLUMES {
        if !root.join(name).is_dir() {
            let source = io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing"));
            return Err(PoolError::Disk { operation: "open", disk: disk.name.clone(), source });
        }
    }
    Ok(pool(disk, header.clone(), root))
}

/// Writes a header anew; durable when it returns.
pub fn inscribe(disk: &block::Disk, header: &Header) -> Result<Header, PoolError> {
    let sequence = header.sequence + 1;
    let written = Header { version: VERSION, sequence, ..header.clone() };
    rewrite(disk, &written)?;
    Ok(written)
}

/// Gives a pool an owner; durable when it returns.
pub fn own(disk: &block::Disk, header: &Header, owner: NodeId) -> Result<Header, PoolError> {
    let sequence = header.sequence + 1;
    let owned = Header { sequence, owner: Some(owner), ..header.clone() };
    rewrite(disk, &owned)?;
    Ok(owned)
}

/// Writes how far a pool is; durable when it returns.
pub fn set_stage(disk: &block::Disk, header: &Header, stage: Stage) -> Result<Header, PoolError> {
    let marked = Header { sequence: header.sequence + 1, stage, ..header.clone() };
    rewrite(disk, &marked)?;
    Ok(marked)
}

/// Wipes the disk of a pool on which nothing is left. `told` hears how much of it is done, in percent.
pub fn release(
    disk: &block::Disk,
    header: &Header,
    places: &Places,
    told: &dyn Fn(u8),
) -> Result<Header, PoolError> {
    let root = places.pools.join(&header.pool);
    if mount::at(&places.root, &root)?.is_some() {
        mount::unmount(&root, mount::UnmountFlags::empty())?;
    }
    let file = let_go(disk)?;
    let wiping = Header { sequence: header.sequence + 1, stage: Stage::Wiping, ..header.clone() };
    lay::mark(&file, &wiping).map_err(failed("mark", disk))?;
    tracing::warn!("{}: wiping it, after pool {}", disk.name, header.pool);
    let fresh = block::disk(&places.root, disk.name.clone()).unwrap_or_else(|| disk.clone());
    for partition in &fresh.partitions {
        block::remove_partition(&file, partition.number)?;
    }
    release::wipe(&file, disk.size, told).map_err(failed("wipe", disk))?;
    let released = Header {
        sequence: wiping.sequence + 1,
        stage: Stage::Released,
        state: false,
        state_pools: Vec::new(),
        ..wiping
    };
    lay::mark(&file, &released).map_err(failed("mark", disk))?;
    tracing::warn!("{}: it is wiped, and can be taken out", disk.name);
    Ok(released)
}

fn pool(disk: &block::Disk, header: Header, root: PathBuf) -> Pool {
    let (class, block) = (class(disk), disk.logical_block);
    Pool { header, disk: disk.name.clone(), class, block, root }
}

fn new_header(disk: &block::Disk, plan: &Plan) -> Result<Header, PoolError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|error| failed("draw an id for", disk)(io::Error::other(error)))?;
    let pool = hex::encode(id);
    let partition = Guid::random().map_err(failed("draw an id for", disk))?;
    let mut state_pools = plan.state_pools.clone();
    if plan.state {
        state_pools.push(pool.clone());
    }
    Ok(Header {
        version: VERSION,
        sequence: 1,
        pool,
        partition: hex::encode(partition.0),
        disk_size: disk.size,
        stage: Stage::Adopting,
        owner: plan.owner,
        state: plan.state,
        state_pools,
        instead_of: plan.instead_of.clone(),
        over: None,
        copy: plan.state.then(|| Mark::first(Generation::draw())),
    })
}

fn rewrite(disk: &block::Disk, header: &Header) -> Result<(), PoolError> {
    let file = OpenOptions::new()
        .write(true)
        .open(disk.path())
        .map_err(failed("open for writing", disk))?;
    lay::mark(&file, header).map_err(failed("mark", disk))
}

/// The pool's partition as a device. A kernel that hasn't read the table is told of it.
fn partition(disk: &block::Disk, header: &Header, places: &Places) -> Result<PathBuf, PoolError> {
    let (start, size) = gpt::pool_place(header.disk_size);
    let known = || {
        let disk = block::disk(&places.root, disk.name.clone())?;
        disk.partitions.into_iter().find(|p| (p.start, p.size) == (start, size))
    };
    if let Some(partition) = known() {
        return Ok(partition.path());
    }
    let file = File::open(disk.path()).map_err(failed("open", disk))?;
    block::add_partition(&file, 1, start, size)?;
    known().map(|partition| partition.path()).ok_or_else(|| {
        failed("partition", disk)(io::Error::other("the kernel doesn't show the partition"))
    })
}

fn mount_pool(partition: &Path, header: &Header, places: &Places) -> Result<PathBuf, PoolError> {
    let root = places.pools.join(&header.pool);
    if mount::at(&places.root, &root)?.is_none() {
        // Volumes lie below: nobody else has business there.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&places.pools)
            .during("create", places.pools.display())?;
        let mended = superblock::mend(partition).map_err(|source| PoolError::Disk {
            operation: "mend the superblock of",
            disk: partition.display().to_string(),
            source,
        })?;
        if mended != Mended::Nothing {
            tracing::warn!("pool {}: a torn superblock is whole again: {mended:?}", header.pool);
        }
        let flags = mount::data_only() | mount::MountFlags::NOATIME;
        mount::mount(&partition.to_string_lossy(), &root, "btrfs", flags, "subvolid=5")?;
    }
    Ok(root)
}

/// Writes out all that a file system holds.
fn sync(root: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(root)?)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<(), PoolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |output: String| PoolError::Program { program: program.clone(), output };
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(failed(format!("{}: {}", output.status, said.chars().take(500).collect::<String>())))
}
