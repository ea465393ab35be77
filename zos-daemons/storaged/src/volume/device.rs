//! A volume's plain block device: loop devices over its files, and device-mapper over those.
//!
//! ```text
//!  files ─ loops (direct I/O, gone with their last user) ─ integrity ─ mirror ─ dm-crypt ─▶ descriptor
//!
//!  made from below, taken down from above; changed in use: suspend, load, resume
//! ```
//! Nothing is remembered: the kernel is asked by the volume's name. So a storaged that was started
//! again finds what its forerunner opened, and VMs notice nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};
use zos_host::dm::{Dm, Target};
use zos_host::loopdev::LoopDevice;
use zos_host::{Context, Error, Result, SysRoot, loopdev};
use zos_types::deployment::Integrity;
use zos_types::unit::MIB;
use zos_types::{Bytes, TwinId, WorkloadName};

use super::files::{Files, Part};
use super::stack::{self, Leg, Look, Mirror, Number, Stack};

/// Bytes of a volume's key: two of AES-256, as XTS needs them.
pub const KEY: usize = 64;
/// The major number of loop devices.
const LOOP: u32 = 7;
/// What a mirror's memory begins with once there is one (drivers/md/dm-raid.c, struct dm_raid_superblock).
const MEMORY: [u8; 4] = *b"DmRd";

/// The mapped device's name: names of twins and workloads may be longer than device-mapper's.
pub fn name(twin: &TwinId, workload: &WorkloadName) -> String {
    let hash = Sha256::digest(format!("{twin}/{workload}"));
    format!("zos-{}", hex::encode(&hash[..16]))
}

/// Where there is no device-mapper there are no devices either.
fn mapper() -> Result<Option<Dm>> {
    if SysRoot::host().exists("/dev/mapper/control") { Dm::open().map(Some) } else { Ok(None) }
}

/// The open device of a volume that is mapped already.
pub fn find(name: &str) -> Result<Option<OwnedFd>> {
    let Some(dm) = mapper()? else { return Ok(None) };
    match dm.find(name)? {
        Some(device) if device.active => {
            if device.suspended {
                // Its maker was ended while it held the device.
                resume_all(&dm, name)?;
            }
            Ok(Some(open(&device.path())?))
        }
        _ => {
            // Its maker was ended half-way.
            take_down(&dm, name)?;
            Ok(None)
        }
    }
}

/// Maps a volume.
pub fn map(stack: &Stack, key: &[u8]) -> Result<OwnedFd> {
    let dm = Dm::open()?;
    let mapped = build(&dm, stack, key, Kept { closed: true, ..Kept::default() });
    if mapped.is_err() {
        let _ = take_down(&dm, &stack.name);
    }
    mapped
}

fn build(dm: &Dm, stack: &Stack, key: &[u8], mut kept: Kept) -> Result<OwnedFd> {
    let below = if stack.integrity == Integrity::Repair {
        let table = mirror(dm, stack, &mut kept)?;
        make(dm, &stack.mirror(), table)?
    } else {
        leg(dm, stack, &stack.legs[0], &mut kept)?
    };
    let hex = Zeroizing::new(hex::encode(key));
    let top = make(dm, &stack.name, stack.crypt(&hex, below))?;
    open(Path::new(&format!("/dev/dm-{}", top.1)))
}

/// Loop devices go with their last user: each is kept until a table has it.
#[derive(Default)]
struct Kept {
    devices: Vec<LoopDevice>,
    /// The volume is being opened: nothing of it is attached.
    closed: bool,
}

impl Kept {
    fn attach(&mut self, stack: &Stack, leg: &Leg, part: Part) -> Result<Number> {
        let files = files(leg)?;
        let path = files.part(part);
        let backing = files.open(part).during("open", path.display())?;
        let size = backing.metadata().during("look at", path.display())?.size();
        if size < part.size(stack.size).0 {
            return Err(Error::invalid(
                "open",
                path.display(),
                "it is shorter than its record says",
            ));
        }
        let block = if part == Part::Data { leg.block } else { 0 };
        let options = loopdev::Options {
            direct_io: true,
            autoclear: true,
            block_size: if block > 512 { block } else { 0 },
            ..loopdev::Options::default()
        };
        let device = loopdev::attach(backing.as_fd(), &stack.name, &options)?;
        let number = (LOOP, device.number);
        self.devices.push(device);
        Ok(number)
    }

    /// The loop device of a part; the one that is attached already, if there is one.
    fn of(&mut self, stack: &Stack, leg: &Leg, part: Part) -> Result<Number> {
        if self.closed {
            return self.attach(stack, leg, part);
        }
        let path = files(leg)?.part(part);
        let attached = loopdev::list(&SysRoot::host())?;
        match attached.iter().find(|device| device.backing == path) {
            Some(device) => Ok((LOOP, device.number)),
            None => self.attach(stack, leg, part),
        }
    }
}

fn files(leg: &Leg) -> Result<&Files> {
    leg.files.as_ref().ok_or_else(|| Error::invalid("open", &leg.pool, "the pool is not here"))
}

/// The device of a leg: the one that is there, or a new one.
fn leg(dm: &Dm, stack: &Stack, leg: &Leg, kept: &mut Kept) -> Result<Number> {
    if stack.integrity == Integrity::None {
        return kept.of(stack, leg, Part::Data);
    }
    let name = stack.leg(leg);
    match dm.find(&name)? {
        Some(device) if device.active => return Ok(device.device),
        Some(_) => dm.remove(&name, false)?,
        None => {}
    }
    let data = kept.of(stack, leg, Part::Data)?;
    let tags = kept.of(stack, leg, Part::Tags)?;
    make(dm, &name, stack.integrity(data, tags))
}

/// The table of a mirror with a memory.
fn mirror(dm: &Dm, stack: &Stack, kept: &mut Kept) -> Result<Target> {
    let mut devices = Vec::new();
    let mut new = true;
    for place in &stack.legs {
        let Some(files) = &place.files else {
            devices.push(None);
            continue;
        };
        let data = leg(dm, stack, place, kept)?;
        let memory = kept.of(stack, place, Part::Mirror)?;
        new &= !place.stale && !has_memory(files)?;
        devices.push(Some((Some(memory), data)));
    }
    Ok(stack.raid(&devices, new && devices.iter().all(Option::is_some)))
}

fn has_memory(files: &Files) -> Result<bool> {
    let path = files.part(Part::Mirror);
    let file = files.open(Part::Mirror).during("open", path.display())?;
    let mut begin = [0; 4];
    file.read_exact_at(&mut begin, 0).during("read", path.display())?;
    Ok(begin == MEMORY)
}

/// A new device of one table.
fn make(dm: &Dm, name: &str, mut target: Target) -> Result<Number> {
    dm.create(name, "")?;
    let loaded = dm.load(name, std::slice::from_ref(&target), false);
    target.params.zeroize();
    let made = loaded.and_then(|()| dm.resume(name));
    if made.is_err() {
        let _ = dm.remove(name, false);
    }
    made.map(|device| device.device)
}

/// Puts a new table in the place of a live one.
fn reload(dm: &Dm, name: &str, mut target: Target) -> Result<()> {
    dm.suspend(name)?;
    let loaded = dm.load(name, std::slice::from_ref(&target), false);
    target.params.zeroize();
    // Without a new table the old one goes on.
    let resumed = dm.resume(name);
    loaded?;
    resumed?;
    Ok(())
}

/// Makes the first and last MiB of a fresh volume read as zeros; durable when it returns. What was
/// never written reads as noise through dm-crypt, and a guest that probes for a file system must not
/// find one in it by chance.
pub fn clear_ends(device: &OwnedFd, size: Bytes) -> io::Result<()> {
    let file = File::from(device.try_clone()?);
    let zeros = vec![0; usize::try_from(MIB.min(size.0)).unwrap_or(0)];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, size.0.saturating_sub(MIB))?;
    file.sync_all()
}

/// Takes a volume's device away; `false`: there was none. `ResourceBusy` while it is in use.
pub fn unmap(name: &str) -> Result<bool> {
    let Some(dm) = mapper()? else { return Ok(false) };
    let Some(device) = dm.find(name)? else {
        take_down(&dm, name)?;
        return Ok(false);
    };
    if device.open_count > 0 {
        let source = io::Error::from(io::ErrorKind::ResourceBusy);
        return Err(Error::new("remove", name, source));
    }
    take_down(&dm, name)?;
    Ok(true)
}

/// A volume's devices, from above.
fn devices(dm: &Dm, name: &str) -> Result<Vec<String>> {
    let (mirror, of_leg) = (stack::mirror(name), format!("{name}-"));
    let mut all = dm.list()?;
    all.retain(|found| found == name || found.starts_with(&of_leg));
    all.sort_by_key(|found| {
        if found == name {
            0
        } else if *found == mirror {
            1
        } else {
            2
        }
    });
    Ok(all)
}

fn take_down(dm: &Dm, name: &str) -> Result<()> {
    for device in devices(dm, name)? {
        dm.remove(&device, false)?;
    }
    Ok(())
}

/// Does work while nothing is written.
pub fn held(name: &str, work: &mut dyn FnMut() -> io::Result<()>) -> Result<()> {
    let Some(dm) = mapper()? else { return work().during("copy", name) };
    let all = devices(&dm, name)?;
    let suspended = all.iter().try_for_each(|device| dm.suspend(device));
    let done = suspended.and_then(|()| work().during("copy", name));
    resume_all(&dm, name)?;
    done
}

fn resume_all(dm: &Dm, name: &str) -> Result<()> {
    let mut result = Ok(());
    for device in devices(dm, name)?.iter().rev() {
        if let Err(error) = dm.resume(device) {
            result = Err(error);
        }
    }
    result
}

/// What the kernel tells of a volume's device.
pub fn look(name: &str) -> Result<Option<Look>> {
    let Some(dm) = mapper()? else { return Ok(None) };
    if dm.find(name)?.is_none_or(|device| !device.active) {
        return Ok(None);
    }
    let mut look = Look::default();
    for device in devices(&dm, name)?.into_iter().skip(1) {
        for target in dm.status(&device)? {
            match &*target.kind {
                "raid" => look.mirror = Mirror::parse(&target.params),
                "integrity" => {
                    let first = target.params.split(' ').next().and_then(|word| word.parse().ok());
                    look.mismatches += first.unwrap_or(0);
                }
                _ => {}
            }
        }
    }
    Ok(Some(look))
}

/// Begins to read all copies of a volume in use.
pub fn verify(name: &str) -> Result<()> {
    Dm::open()?.message(&stack::mirror(name), "check")
}

/// Makes a device in use as large as its stack says.
pub fn resize(stack: &Stack) -> Result<()> {
    let dm = Dm::open()?;
    end_copy(&dm, stack)?;
    let mut kept = Kept::default();
    for place in stack.legs.iter().filter(|leg| leg.files.is_some()) {
        let data = kept.of(stack, place, Part::Data)?;
        refresh(data)?;
        if stack.integrity != Integrity::None {
            let tags = kept.of(stack, place, Part::Tags)?;
            refresh(tags)?;
            reload(&dm, &stack.leg(place), stack.integrity(data, tags))?;
        }
    }
    if stack.integrity == Integrity::Repair {
        let table = mirror(&dm, stack, &mut kept)?;
        reload(&dm, &stack.mirror(), table)?;
    }
    retop(&dm, stack, None)
}

fn refresh((_, number): Number) -> Result<()> {
    loopdev::refresh_size(format!("/dev/loop{number}"))
}

/// Reloads the encryption with the stack's size, over another device if one is given. The kernel knows
/// the key.
fn retop(dm: &Dm, stack: &Stack, below: Option<Number>) -> Result<()> {
    let mut table = dm.table(&stack.name)?;
    let mut params = Zeroizing::new(std::mem::take(
        &mut table
            .first_mut()
            .ok_or_else(|| Error::invalid("change", &stack.name, "no table"))?
            .params,
    ));
    if let Some(below) = below {
        // <cipher> <key> <offset of the IV> <device> <start> ...
        let mut words: Vec<String> = params.split(' ').map(str::to_owned).collect();
        if let Some(device) = words.get_mut(3) {
            *device = stack::text(below);
        }
        *params = words.join(" ");
        words.iter_mut().for_each(Zeroize::zeroize);
    }
    let length = stack.size.0 / 512;
    let target =
        Target { start: 0, length, kind: "crypt".to_owned(), params: std::mem::take(&mut *params) };
    reload(dm, &stack.name, target)
}

/// Gives a mirror in use the legs of its stack; one that is stale is written anew.
pub fn rejoin(stack: &Stack) -> Result<()> {
    let dm = Dm::open()?;
    let mut kept = Kept::default();
    // A leg whose pool went and came again has devices of the file system that is gone.
    for place in stack.legs.iter().filter(|leg| leg.stale || leg.files.is_none()) {
        drop_leg(&dm, stack, place)?;
    }
    let table = mirror(&dm, stack, &mut kept)?;
    reload(&dm, &stack.mirror(), table)?;
    remove_others(&dm, stack)
}

/// Takes a stale leg out of a live mirror, so that a new device of it can be made.
fn drop_leg(dm: &Dm, stack: &Stack, place: &Leg) -> Result<()> {
    let name = stack.leg(place);
    if dm.find(&name)?.is_none() {
        return Ok(());
    }
    let away = Stack {
        legs: stack
            .legs
            .iter()
            .map(|leg| if leg == place { Leg { files: None, ..leg.clone() } } else { leg.clone() })
            .collect(),
        ..stack.clone()
    };
    let mut kept = Kept::default();
    let table = mirror(dm, &away, &mut kept)?;
    reload(dm, &stack.mirror(), table)?;
    dm.remove(&name, true)
}

/// Removes devices of legs that the stack doesn't have.
fn remove_others(dm: &Dm, stack: &Stack) -> Result<()> {
    let legs: Vec<String> =
        stack.legs.iter().filter(|l| l.files.is_some()).map(|leg| stack.leg(leg)).collect();
    for device in devices(dm, &stack.name)? {
        if device != stack.name && device != stack.mirror() && !legs.contains(&device) {
            dm.remove(&device, true)?;
        }
    }
    Ok(())
}

/// Begins to copy a device in use to another place: the encryption lies on a mirror of both then.
pub fn join(stack: &Stack, to: &Leg) -> Result<()> {
    let dm = Dm::open()?;
    end_copy(&dm, stack)?;
    let mut kept = Kept::default();
    let old = leg(&dm, stack, &stack.legs[0], &mut kept)?;
    let new = leg(&dm, stack, to, &mut kept)?;
    let both = Stack {
        legs: vec![stack.legs[0].clone(), Leg { stale: true, ..to.clone() }],
        ..stack.clone()
    };
    // Nothing may be written past the mirror once it copies.
    dm.suspend(&stack.name)?;
    let made =
        make(&dm, &stack.mirror(), both.raid(&[Some((None, old)), Some((None, new))], false))
            .and_then(|mirror| retop(&dm, stack, Some(mirror)));
    if made.is_err() {
        let _ = dm.resume(&stack.name);
        let _ = take_mirror(&dm, stack);
    }
    made
}

/// Ends the copy to another place that a storaged before this one began.
fn end_copy(dm: &Dm, stack: &Stack) -> Result<()> {
    if stack.integrity == Integrity::Repair || dm.find(&stack.mirror())?.is_none() {
        return Ok(());
    }
    // Its size is that of its mirror, whatever it is to become.
    let sectors = dm.table(&stack.name)?.first().map_or(0, |target| target.length);
    part(&Stack { size: Bytes(sectors * 512), ..stack.clone() })
}

/// Ends such a copy: the encryption lies on the stack's one leg.
pub fn part(stack: &Stack) -> Result<()> {
    let dm = Dm::open()?;
    let mut kept = Kept::default();
    let only = leg(&dm, stack, &stack.legs[0], &mut kept)?;
    retop(&dm, stack, Some(only))?;
    take_mirror(&dm, stack)
}

fn take_mirror(dm: &Dm, stack: &Stack) -> Result<()> {
    if dm.find(&stack.mirror())?.is_some() {
        dm.remove(&stack.mirror(), false)?;
    }
    remove_others(dm, stack)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let file: File =
        OpenOptions::new().read(true).write(true).open(path).during("open", path.display())?;
    Ok(file.into())
}
