//! Volumes: what is known of them, and who works on which.
//!
//! ```text
//!  pools ─ sweep ─▶ copies ─ lead ─▶ Entry ─┬─ change     made, grown, destroyed
//!                                           ├─ open       key ─ unseal ─ device ─▶ fd
//!                                           ├─ snapshot   taken, restored, cloned
//!                                           ├─ mover      to another pool; leave: all of a pool
//!                                           └─ care       legs that went, came back, are written anew
//! ```
//! The table is locked for moments only. Whoever works on a volume holds its gate, so that two pieces of
//! work on one volume follow each other and those on two volumes don't wait: first room is reserved in the
//! table, then the work is done, then the table is told.

pub mod care;
mod change;
pub mod device;
pub mod files;
mod halves;
pub mod keys;
mod leave;
pub mod mover;
mod open;
pub mod place;
mod port;
pub mod record;
pub mod share;
mod snapshot;
pub mod stack;
mod twin_key;
mod unlock;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use zos_api::local::storage::{Snapshot, Volume};
use zos_daemon::CallError;
use zos_types::deployment::{Integrity, KeyHolder};
use zos_types::disk::PoolState;
use zos_types::volume::{Footprint, VolumeCondition};
use zos_types::{Bytes, Name, TwinId, WorkloadName, disk};

use self::files::Files;
pub use self::keys::{Keys, Sealed};
use self::place::Room;
pub use self::port::{Change as DeviceChange, Crypt, Devices};
use self::record::{Record, Shot, Standing};
use self::stack::{Leg, Look, Stack};
use crate::pool::Pool;

/// A volume's name.
pub type Id = (TwinId, WorkloadName);

/// How a pool does, and why.
type Doing = (PoolState, Vec<String>);

/// What is known of a volume.
#[derive(Debug)]
struct Entry {
    /// Its record on each pool that is here.
    copies: BTreeMap<String, Record>,
    /// What they come to.
    standing: Standing,
    shots: BTreeMap<Name, Shot>,
    /// Room that is set aside for what is under way, by pool.
    reserved: Vec<(String, Bytes)>,
    /// It is being made, and isn't there yet.
    making: bool,
    /// What the kernel said of its device; none: it is closed, or was never asked.
    look: Option<Look>,
    /// The kernel has the key that its twin holds.
    unlocked: bool,
    /// It is being moved to another pool, with its snapshots.
    moving: bool,
    /// How often a copy that failed was tried again.
    tries: u8,
    /// How often a copy was found away.
    away: u8,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn new() -> Self {
        Self {
            copies: BTreeMap::new(),
            standing: Standing::Waits(String::new()),
            shots: BTreeMap::new(),
            reserved: Vec::new(),
            making: false,
            look: None,
            unlocked: false,
            moving: false,
            tries: 0,
            away: 0,
            gate: Arc::default(),
        }
    }

    /// The record that counts; while there is none, any.
    fn record(&self) -> Option<&Record> {
        match &self.standing {
            Standing::Leads(record) | Standing::Dying(record) => Some(record),
            Standing::Waits(_) | Standing::Broken(_) => self.copies.values().next(),
        }
    }

    /// What it takes of a pool, with its snapshots.
    fn takes(&self, pool: &str) -> Bytes {
        let here = |shot: &&Shot| shot.legs.iter().any(|leg| leg == pool);
        let shots = self.shots.values().filter(here);
        let shots: Bytes = shots.map(|shot| Footprint::of(shot.size, shot.integrity).each).sum();
        let reserved: Bytes =
            self.reserved.iter().filter(|(at, _)| at == pool).map(|(_, bytes)| *bytes).sum();
        // A leg that is away keeps its place.
        let record = self.record().filter(|record| {
            self.copies.contains_key(pool) || record.legs.iter().any(|leg| leg == pool)
        });
        let own = record.map(|r| Footprint::of(r.set_aside(), r.integrity).each);
        own.unwrap_or_default() + shots + reserved
    }
}

/// The table.
#[derive(Debug, Default)]
struct Table {
    pools: BTreeMap<String, Pool>,
    /// Pools that are other than ready.
    doing: BTreeMap<String, Doing>,
    entries: BTreeMap<Id, Entry>,
}

/// Every volume of the open pools.
#[derive(Clone, Debug)]
pub struct Volumes {
    devices: Arc<dyn Devices>,
    table: Arc<Mutex<Table>>,
}

/// A volume that somebody works on: nobody else does meanwhile.
struct Held {
    id: Id,
    record: Record,
    shots: BTreeMap<Name, Shot>,
    _gate: OwnedMutexGuard<()>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self::over(Arc::new(Crypt))
    }
}

impl Volumes {
    /// No volumes yet, over devices of the caller's.
    pub fn over(devices: Arc<dyn Devices>) -> Self {
        Self { devices, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a pool with its volumes; gives what is wrong with some, in words. Waits for the disk.
    pub fn add_pool(&self, pool: Pool) -> io::Result<Vec<String>> {
        let id = pool.header.pool.clone();
        let swept = files::sweep(&pool.root, &id)?;
        let mut wrong = swept.unreadable;
        // What a forerunner of this process unlocked still is.
        let unlocked = |record: &Record| {
            let name = device::name(&record.twin, &record.name);
            record.key == KeyHolder::Twin && matches!(self.devices.find(&name), Ok(Some(_)))
        };
        let open: Vec<bool> = swept.records.iter().map(unlocked).collect();
        let mut table = self.table();
        table.insert(id.clone(), pool);
        let mut news = Vec::new();
        for (record, open) in swept.records.into_iter().zip(open) {
            let key = (record.twin, record.name.clone());
            let entry = table.entries.entry(key.clone()).or_insert_with(Entry::new);
            entry.unlocked |= open;
            entry.copies.insert(id.clone(), record);
            entry.standing = record::lead(&entry.copies);
            news.push(key);
        }
        for shot in swept.shots {
            let Some(entry) = table.entries.get_mut(&(shot.twin, shot.volume.clone())) else {
                continue;
            };
            entry.shots.insert(shot.name.clone(), shot);
        }
        for key in news {
            wrong.extend(table.tidy(&key));
        }
        wrong.extend(table.mend_halves());
        Ok(wrong)
    }

    /// Forgets a pool whose disk is gone. Volumes that have a copy elsewhere stay.
    pub fn drop_pool(&self, id: &str) {
        let mut table = self.table();
        table.pools.remove(id);
        table.entries.retain(|_, entry| {
            let had = entry.copies.remove(id).is_some();
            if had && !entry.copies.is_empty() {
                entry.standing = record::lead(&entry.copies);
            }
            entry
                .shots
                .retain(|_, shot| shot.legs.iter().any(|leg| entry.copies.contains_key(leg)));
            entry.making || !entry.copies.is_empty()
        });
    }

    /// Says how a pool does, and why. One that isn't ready takes no new volumes.
    pub fn set_condition(&self, pool: &str, condition: PoolState, reasons: Vec<String>) {
        let mut table = self.table();
        if table.pools.get(pool).is_some_and(Pool::leaves) {
            // By the farmer's word, whatever else is the matter with it.
            return;
        }
        if condition == PoolState::Ready && reasons.is_empty() {
            table.doing.remove(pool);
        } else {
            table.doing.insert(pool.to_owned(), (condition, reasons));
        }
    }

    /// The room of each pool, by id.
    pub fn rooms(&self) -> Vec<Room> {
        self.table().rooms()
    }

    /// The pools, by id.
    pub fn pools(&self) -> Vec<disk::Pool> {
        let table = self.table();
        let rooms = table.rooms().into_iter();
        rooms
            .filter_map(|room| {
                let pool = table.pools.get(&room.pool)?;
                let reasons = table.doing.get(&room.pool).map(|doing| doing.1.clone());
                Some(disk::Pool {
                    free: room.free(),
                    id: room.pool,
                    disk: pool.disk.clone(),
                    class: room.class,
                    size: room.capacity,
                    state: pool.header.state,
                    condition: room.condition,
                    reasons: reasons.unwrap_or_default(),
                    scrub: None,
                })
            })
            .collect()
    }

    /// Every volume.
    pub fn list(&self) -> Vec<Volume> {
        let table = self.table();
        let there = table.entries.values().filter(|entry| !entry.making);
        there.filter_map(|entry| table.shown(entry)).collect()
    }

    /// Every snapshot, or those of one twin; oldest first.
    pub fn snapshots(&self, twin: Option<TwinId>) -> Vec<Snapshot> {
        let table = self.table();
        let entries = table.entries.iter().filter(|(id, _)| twin.is_none_or(|twin| id.0 == twin));
        let mut all: Vec<Snapshot> =
            entries.flat_map(|(_, entry)| entry.shots.values().map(Shot::shown)).collect();
        all.sort_by(|a, b| a.taken.cmp(&b.taken).then_with(|| a.name.cmp(&b.name)));
        all
    }

    /// A volume to work on, once nobody else does.
    async fn hold(&self, id: &Id) -> Result<Held, CallError> {
        let gate = self.table().entries.get(id).map(|entry| Arc::clone(&entry.gate));
        let gate = gate.ok_or_else(|| not_found(id))?.lock_owned().await;
        let table = self.table();
        let entry = table.entries.get(id).filter(|entry| !entry.making);
        let entry = entry.ok_or_else(|| not_found(id))?;
        match &entry.standing {
            Standing::Leads(record) => Ok(Held {
                id: id.clone(),
                record: record.as_ref().clone(),
                shots: entry.shots.clone(),
                _gate: gate,
            }),
            Standing::Dying(_) => Err(not_found(id)),
            Standing::Waits(why) => Err(CallError::busy(format!("volume {}: {why}", id.1))),
            Standing::Broken(why) => {
                Err(CallError::Failed { detail: format!("volume {}: {why}", id.1) })
            }
        }
    }

    /// Whether it stays where it is: what lies on it isn't changed while it moves.
    fn stands(&self, held: &Held) -> Result<(), CallError> {
        match self.table().entries.get(&held.id) {
            Some(entry) if entry.moving => {
                Err(CallError::busy(format!("volume {} is being moved to another disk", held.id.1)))
            }
            _ => Ok(()),
        }
    }

    /// The volume's files on each of these pools that is here.
    fn files(&self, id: &Id, pools: &[String]) -> Vec<(String, Files)> {
        let table = self.table();
        let here = |pool: &String| {
            let root = &table.pools.get(pool)?.root;
            Some((pool.clone(), Files::of(root, &id.0, &id.1)))
        };
        pools.iter().filter_map(here).collect()
    }

    /// What the volume's device is made of.
    fn stack(&self, record: &Record) -> Stack {
        let table = self.table();
        let legs = record.legs.iter().map(|pool| table.leg(record, pool)).collect();
        Stack {
            name: device::name(&record.twin, &record.name),
            size: record.size,
            integrity: record.integrity,
            legs,
        }
    }

    /// Writes the record to every pool of the volume that is here, and tells the table.
    async fn write(
        &self,
        held: &mut Held,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), CallError> {
        let mut record = held.record.clone();
        change(&mut record);
        record.sequence += 1;
        let mut places = self.files(&held.id, &record.legs);
        // A stale copy that is whole again says so last: with a cut between it would seem to have been used without the
        // other, whose record still names it.
        places.sort_by_key(|(pool, _)| !held.record.is_whole(pool));
        let written = record.clone();
        let names: Vec<String> = places.iter().map(|(pool, _)| pool.clone()).collect();
        blocking("note a change of", &held.id, move || {
            places.iter().try_for_each(|(_, files)| files.write_record(&written))
        })
        .await?;
        let mut table = self.table();
        if let Some(entry) = table.entries.get_mut(&held.id) {
            for pool in names {
                entry.copies.insert(pool, record.clone());
            }
            entry.standing = record::lead(&entry.copies);
        }
        held.record = record;
        Ok(())
    }

    /// Sets room aside on pools, if each has it, for work that is to be noted later.
    fn reserve(&self, id: &Id, wanted: Vec<(String, Bytes)>) -> Result<(), CallError> {
        let mut table = self.table();
        for room in table.rooms() {
            let more: Bytes = wanted.iter().filter(|w| w.0 == room.pool).map(|w| w.1).sum();
            if more > room.free() {
                return Err(full(more, &format!("pool {}", room.pool), room.free()));
            }
        }
        if let Some(entry) = table.entries.get_mut(id) {
            entry.reserved.extend(wanted);
        }
        Ok(())
    }

    /// What was set aside is given back, or is counted otherwise now.
    fn settle(&self, id: &Id) {
        if let Some(entry) = self.table().entries.get_mut(id) {
            entry.reserved.clear();
        }
    }

    fn shown(&self, id: &Id) -> Result<Volume, CallError> {
        let table = self.table();
        let entry = table.entries.get(id).ok_or_else(|| not_found(id))?;
        table.shown(entry).ok_or_else(|| not_found(id))
    }
}

impl Table {
    fn rooms(&self) -> Vec<Room> {
        let mut rooms = Vec::new();
        for (id, pool) in &self.pools {
            rooms.push(Room {
                pool: id.clone(),
                class: pool.class,
                capacity: pool.capacity(),
                reserved: self.entries.values().map(|entry| entry.takes(id)).sum(),
                condition: self.doing.get(id).map_or(PoolState::Ready, |doing| doing.0),
            });
        }
        rooms
    }

    fn leg(&self, record: &Record, pool: &str) -> Leg {
        let here = self.pools.get(pool);
        Leg {
            pool: pool.to_owned(),
            files: here.map(|pool| Files::of(&pool.root, &record.twin, &record.name)),
            block: here.map_or(512, |pool| pool.block),
            stale: !record.is_whole(pool),
        }
    }

    fn shown(&self, entry: &Entry) -> Option<Volume> {
        if matches!(entry.standing, Standing::Dying(_)) {
            return None;
        }
        let record = entry.record()?;
        Some(Volume {
            twin: record.twin,
            name: record.name.clone(),
            size: record.size,
            class: record.class,
            pool: record.legs.first().cloned().unwrap_or_default(),
            pools: record.legs.clone(),
            placed: record.placed.clone(),
            integrity: record.integrity,
            key: record.key,
            sealing: record.sealing,
            holds: record.holds,
            condition: self.condition(entry, record),
        })
    }

    fn condition(&self, entry: &Entry, record: &Record) -> VolumeCondition {
        let pools: Vec<care::Place> = record
            .legs
            .iter()
            .map(|leg| care::Place {
                pool: leg.clone(),
                here: self.pools.contains_key(leg),
                whole: record.is_whole(leg),
                failing: self.doing.get(leg).is_some_and(|doing| doing.0 == PoolState::AtRisk),
            })
            .collect();
        let condition = care::condition(&entry.standing, &pools, entry.look.as_ref());
        unlock::or_locked(condition, entry, record)
    }

    /// Removes what is left of volumes that were destroyed or have moved, and finishes a move. Gives
    /// what could not be done, in words.
    fn tidy(&mut self, id: &Id) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(entry) = self.entries.get_mut(id) else { return wrong };
        let pools = &self.pools;
        let files = |pool: &str| Some(Files::of(&pools.get(pool)?.root, &id.0, &id.1));
        let legs = match &entry.standing {
            Standing::Leads(record) => {
                for pool in &record.legs {
                    if entry.copies.get(pool).is_some_and(|copy| copy.arriving)
                        && let Some(files) = files(pool)
                        && let Err(error) = files.write_record(record)
                    {
                        wrong.push(format!("{}: {error}", id.1));
                        return wrong;
                    }
                }
                record.legs.clone()
            }
            Standing::Dying(_) => Vec::new(),
            Standing::Waits(_) | Standing::Broken(_) => return wrong,
        };
        let left: Vec<String> =
            entry.copies.keys().filter(|pool| !legs.contains(pool)).cloned().collect();
        for pool in left {
            let Some((files, record)) = files(&pool).zip(entry.copies.get(&pool)) else { continue };
            match files.destroy(record) {
                Ok(()) => drop(entry.copies.remove(&pool)),
                Err(error) => wrong.push(format!("remove the rest of {}: {error}", id.1)),
            }
        }
        if entry.copies.is_empty() && !entry.making {
            self.entries.remove(id);
        }
        wrong
    }
}

fn context((twin, name): &Id) -> String {
    format!("volume:{twin}/{name}")
}

fn not_found((twin, name): &Id) -> CallError {
    CallError::not_found(format!("no volume {name} of {twin}"))
}

fn full(wanted: Bytes, on: &str, free: Bytes) -> CallError {
    let rule = format!("at most {free} can be had on {on} now");
    CallError::Full {
        detail: format!("no room for {wanted} on {on}: {rule}"),
        errors: vec![zos_types::FieldError::new("/size", rule)],
    }
}

/// Runs what waits for disks apart from the daemon's one thread.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    what: &str,
    id: &Id,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CallError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CallError::failed(&error))?.map_err(|error| {
        let cause = CallError::failed(&error);
        CallError::Failed { detail: format!("{what} volume {}: {cause}", id.1) }
    })
}

/// Whether a mirror stands under it.
fn is_mirrored(record: &Record) -> bool {
    record.integrity == Integrity::Repair
}

#[cfg(test)]
mod tests;
