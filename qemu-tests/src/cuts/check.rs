//! What a boot would find on the disks after a cut, by the daemons' own code, on this computer.
//!
//! ```text
//!  images ─ loop ─ judge each ─ settle (the marks' rule) ─┬ these lead ─ one went on alone? its header says so first
//!                                                         ├ fresh: adopt again
//!                                                         └ anything else: wrong
//!         open (btrfs replays its log) ─ show /state, /mirror ─ stores of both ─ sweep, volumes ─▶ Found
//!         unmount ─ btrfs check
//! ```
//! A disk that was never acknowledged as adopted may be anything that the next boot makes a pool of. No device-mapper is
//! needed: what a guest has written is decrypted here.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use storaged::copies::{Generation, Mark};
use storaged::disk::header::Header;
use storaged::disk::judge::{self, Verdict};
use storaged::disk::read::Reader;
use storaged::pool::{self, Plan, Pool};
use storaged::settle::{self, Choice, Outcome, Seen, Wanted, Word};
use storaged::{Places, state as places_of_state};
use zos_host::mount::UnmountFlags;
use zos_host::{SysRoot, block, loopdev, mount};

use super::facts::{About, numbers};
use super::state::{self, Shown};
use super::volumes;

/// How long a file system may be in use by nobody we know.
const BUSY: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Of what, and what.
    pub is: BTreeMap<About, String>,
    /// What is wrong whatever was acknowledged: unreadable, half there, not to be opened.
    pub wrong: Vec<String>,
    /// Volumes that can't be used, and why: none when each disk is here.
    pub broken: BTreeMap<About, String>,
    /// How many boots were here since the cut, by what the book says.
    pub boots: u32,
}

/// A disk that a boot finds.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its number among the node's disks.
    pub number: usize,
    /// What is on it.
    pub path: PathBuf,
}

/// A place to look at disks: a folder for mounts, and btrfs's tools.
#[derive(Clone, Debug)]
pub struct Bench {
    places: Places,
}

/// Whether this computer can look at disks; else why not.
pub fn possible() -> Result<(), &'static str> {
    let btrfs = fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\tbtrfs"));
    if !rustix::process::geteuid().is_root() {
        Err("needs root, for loop devices and mounts")
    } else if !btrfs || !Places::tool("btrfs").exists() || !Path::new("/dev/loop-control").exists()
    {
        Err("needs btrfs, its tools, and /dev/loop-control")
    } else {
        Ok(())
    }
}

impl Bench {
    /// In a folder of its own.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { places: Places::below(folder) }
    }

    /// Looks at the disks of a node as a boot does. They are written to, as a boot would.
    pub fn look(&self, images: &[Image]) -> Result<Found> {
        let mut found = Found::default();
        let mut judged = images.iter().map(Judged::new).collect::<Result<Vec<_>>>()?;
        let mut leads = Self::settle(&mut judged, &mut found.wrong)?;
        let fresh = leads.is_empty();
        let mut pools = Vec::new();
        for (index, judged) in judged.into_iter().enumerate() {
            let plan = Plan {
                owner: None,
                state: fresh && index == 0,
                state_pools: leads.clone(),
                instead_of: None,
            };
            if let Some(pool) = self.open(&judged, &plan, &mut found.wrong) {
                pools.push(Open { pool, image: judged });
            }
        }
        leads.retain(|lead| pools.iter().any(|open| open.pool.header.pool == *lead));
        let leading: Vec<&Open> = leads
            .iter()
            .filter_map(|lead| pools.iter().find(|o| o.pool.header.pool == *lead))
            .collect();
        if !leading.is_empty() {
            let copies = numbers(leading.iter().map(|open| open.image.number));
            found.is.insert(About::Copies, copies);
        }
        let shown = self.show(&leading)?;
        let key = state::look(&shown.copies, &mut found)?;
        shown.close()?;
        let of: Vec<(usize, &Pool)> =
            pools.iter().map(|open| (open.image.number, &open.pool)).collect();
        volumes::look(&of, key.as_ref(), &mut found)?;
        for open in pools {
            found.wrong.extend(open.close(&self.places.btrfs)?.map(|said| shorten(&said)));
        }
        Ok(found)
    }

    /// Decides where the state lies, as a boot does that has waited for all disks; the pools that lead. If one goes on
    /// without another, its header says so when this returns.
    fn settle(judged: &mut [Judged], wrong: &mut Vec<String>) -> Result<Vec<String>> {
        let seen = judged.iter().map(|judged| Seen {
            name: &judged.disk.name,
            arrived: Duration::ZERO,
            verdict: Some(&judged.verdict),
        });
        let seen: Vec<Seen<'_>> = seen.collect();
        let word = Word { state: None, fresh: Generation::draw() };
        let outcome = settle::settle(settle::LATEST, Duration::ZERO, &seen, Wanted::Unsaid, word);
        let choice = match outcome {
            Outcome::Settled(choice) => choice,
            Outcome::Wait(until) => bail!("at the latest moment it waits until {until:?}"),
        };
        match choice {
            Choice::Pool { pool, second, renewed, aside, .. } => {
                if !aside.is_empty() {
                    wrong.push(format!("without a word of the farmer {aside:?} are set aside"));
                }
                if let Some(mark) = renewed {
                    inscribe(judged, &pool, &mark)?;
                }
                Ok(std::iter::once(pool).chain(second).collect())
            }
            Choice::Fresh { .. } => Ok(Vec::new()),
            Choice::Memory { refusal } => {
                wrong.push(format!("the state would lie in memory: {refusal}"));
                Ok(Vec::new())
            }
        }
    }

    fn open(&self, judged: &Judged, plan: &Plan, wrong: &mut Vec<String>) -> Option<Pool> {
        let disk = &judged.disk;
        let (opened, how) = match &judged.verdict {
            Verdict::Ours(header) => (pool::open(disk, header, &self.places), "open"),
            Verdict::Empty | Verdict::Unfinished(_) => {
                (pool::adopt(disk, plan, &self.places), "adopt again")
            }
            other => {
                wrong.push(format!("the disk is judged: {other}"));
                return None;
            }
        };
        opened
            .map_err(|error| {
                wrong.push(format!(
                    "disk {}: {how}: {:#}",
                    judged.number,
                    anyhow::Error::from(error)
                ));
            })
            .ok()
    }

    /// Shows the copies that lead where daemons look for them.
    fn show(&self, leading: &[&Open]) -> Result<OnShow> {
        let mut shown = OnShow { places: self.places.clone(), copies: Vec::new() };
        let paths = [&self.places.state, &self.places.mirror];
        for (place, (open, path)) in leading.iter().zip(paths).enumerate() {
            fs::create_dir_all(path).context("make the state's place")?;
            match place {
                0 => places_of_state::prepare(Some(&open.pool), &self.places),
                _ => places_of_state::show(&open.pool, place, &self.places),
            }
            .context("show a copy of the state")?;
            shown.copies.push(Shown { pool: open.pool.header.pool.clone(), path: path.clone() });
        }
        Ok(shown)
    }
}

/// The header of a pool that goes on without another.
fn inscribe(judged: &mut [Judged], pool: &str, mark: &Mark) -> Result<()> {
    for judged in judged {
        if let Verdict::Ours(header) = &judged.verdict
            && header.pool == pool
        {
            let state_pools = vec![pool.to_owned()];
            let header = Header { copy: Some(mark.clone()), state_pools, ..(**header).clone() };
            let written = pool::inscribe(&judged.disk, &header).context("mark a copy")?;
            judged.verdict = Verdict::Ours(Box::new(written));
        }
    }
    Ok(())
}

/// Where the state is shown, until this is dropped.
struct OnShow {
    places: Places,
    copies: Vec<Shown>,
}

impl OnShow {
    fn close(mut self) -> Result<()> {
        // Not as a node does it, which lets whoever has a file open keep it: a pool that is in use can't be checked.
        for copy in std::mem::take(&mut self.copies).iter().rev() {
            unmount(&copy.path)?;
        }
        Ok(())
    }
}

impl Drop for OnShow {
    fn drop(&mut self) {
        // When a look ended half-way.
        for place in 0..self.copies.len() {
            let _ = places_of_state::hide(place, &self.places);
        }
    }
}

/// A pool in use, and the disk below it.
struct Open {
    pool: Pool,
    image: Judged,
}

impl Open {
    /// Takes it down, and has the file system checked.
    fn close(self, btrfs: &Path) -> Result<Option<String>> {
        let partition = PathBuf::from(format!("{}p1", self.image.attached.device.path.display()));
        unmount(&self.pool.root)?;
        let end = Instant::now() + BUSY;
        loop {
            let check = Command::new(btrfs).args(["check", "--readonly"]).arg(&partition).output();
            let output = check.context("run btrfs check")?;
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return Ok(None);
            }
            // Whoever makes a mount namespace meanwhile has our mounts in it, until it goes.
            if !said.contains("Device or resource busy") || Instant::now() > end {
                return Ok(Some(format!("btrfs check: {said}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn shorten(said: &str) -> String {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(300).collect()
}

/// Unmounts what nobody uses. A process that another thread starts holds our files open until its program has begun.
fn unmount(root: &Path) -> Result<()> {
    let end = Instant::now() + BUSY;
    loop {
        match mount::unmount(root, UnmountFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done.context("unmount a pool"),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // When a look ended half-way; else there is nothing any more.
        let _ = mount::unmount(&self.pool.root, UnmountFlags::DETACH);
    }
}

/// An image that was looked at.
struct Judged {
    number: usize,
    attached: Attached,
    disk: block::Disk,
    verdict: Verdict,
}

impl Judged {
    fn new(image: &Image) -> Result<Self> {
        let attached = Attached::new(&image.path)?;
        let disk = attached.disk().context("the loop device is in sysfs")?;
        let mut judged = Self { number: image.number, attached, disk, verdict: Verdict::Blank };
        judged.verdict = judged.read()?;
        Ok(judged)
    }

    fn read(&self) -> Result<Verdict> {
        let reader = Reader::open(&self.disk.path(), self.disk.size).context("open a disk")?;
        Ok(judge::examine(&reader, self.disk.logical_block, |_| true))
    }
}

/// An image as a disk.
struct Attached {
    device: loopdev::LoopDevice,
}

impl Attached {
    fn new(image: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(image);
        let file = file.with_context(|| format!("open {}", image.display()))?;
        let options = loopdev::Options { partitions: true, ..Default::default() };
        let device = loopdev::attach(file.as_fd(), "cut", &options).context("attach an image")?;
        Ok(Self { device })
    }

    /// As the inventory shows it, but as a disk that may be adopted.
    fn disk(&self) -> Option<block::Disk> {
        let disk = block::disk(&SysRoot::host(), format!("loop{}", self.device.number))?;
        Some(block::Disk { kind: block::Kind::Disk, ..disk })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = loopdev::detach(&self.device.path);
    }
}
