//! Volumes: made, opened, closed, destroyed.
//!
//! ```text
//!  CreateVolume ─ rules ─ place ─ files ─▶ record       OpenVolume ─ key ─ unseal ─ device ─▶ fd
//! ```
//! One at a time: [`Volumes`] is the only owner of what lies under `@volumes`.

pub mod device;
pub mod files;
pub mod place;
mod port;
pub mod share;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;
use zos_api::local::Change;
use zos_api::local::identity::{Seal, Unseal};
use zos_api::local::storage::{CreateVolume, Volume, VolumeChange};
use zos_daemon::{Bus, CallError};
use zos_types::deployment::{Content, Integrity, KeyHolder};
use zos_types::{FieldError, TwinId, WorkloadName, disk};

use self::files::{Files, Record};
use self::place::Room;
pub use self::port::{Crypt, Devices};
use crate::pool::Pool;

/// Volumes are whole multiples of it, in bytes.
const GRAIN: u64 = 4096;

/// identityd answers at once, or it is being started again.
const SEALING: Duration = Duration::from_secs(20);

/// Seals and unseals volumes' keys.
pub trait Keys: Send + Sync {
    /// Encrypts a secret for a context.
    fn seal(
        &self,
        context: String,
        secret: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, CallError>> + Send;
    /// Decrypts what was sealed for the same context.
    fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> impl Future<Output = Result<Zeroizing<Vec<u8>>, CallError>> + Send;
}

/// identityd seals.
impl Keys for Bus {
    async fn seal(&self, context: String, secret: &[u8]) -> Result<Vec<u8>, CallError> {
        let data = BASE64_STANDARD.encode(secret);
        decode(&soon(self.call(Seal { context, data })).await?.data)
    }

    async fn unseal(
        &self,
        context: String,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let data = BASE64_STANDARD.encode(sealed);
        let secret = Zeroizing::new(soon(self.call(Unseal { context, data })).await?.data);
        decode(&secret).map(Zeroizing::new)
    }
}

/// All volumes wait meanwhile, so not for ever.
async fn soon<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(SEALING, call).await;
    answer.unwrap_or_else(|_| Err(CallError::busy("identityd does not answer")))
}

fn decode(text: &str) -> Result<Vec<u8>, CallError> {
    BASE64_STANDARD.decode(text).map_err(|error| CallError::failed(&error))
}

/// A volume with the pool it lies on.
#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    pool: String,
}

/// Every volume of the open pools.
#[derive(Debug)]
pub struct Volumes {
    devices: Arc<dyn Devices>,
    pools: BTreeMap<String, Pool>,
    volumes: BTreeMap<(TwinId, WorkloadName), Kept>,
}

impl Default for Volumes {
    fn default() -> Self {
        Self::over(Arc::new(Crypt))
    }
}

impl Volumes {
    /// No volumes yet, over devices of the caller's.
    pub fn over(devices: Arc<dyn Devices>) -> Self {
        Self { devices, pools: BTreeMap::new(), volumes: BTreeMap::new() }
    }

    /// Takes in a pool with its volumes; gives what is wrong with some, in words.
    pub fn add_pool(&mut self, pool: Pool) -> io::Result<Vec<String>> {
        let (records, mut wrong) = files::sweep(&pool.root)?;
        let id = pool.header.pool.clone();
        for record in records {
            let key = (record.twin, record.name.clone());
            if let Some(other) = self.volumes.get(&key)
                && other.pool != id
            {
                wrong.push(format!("{}/{} is also on pool {}", key.0, key.1, other.pool));
                continue;
            }
            self.volumes.insert(key, Kept { record, pool: id.clone() });
        }
        self.pools.insert(id, pool);
        Ok(wrong)
    }

    /// Forgets a pool whose disk is gone.
    pub fn drop_pool(&mut self, id: &str) {
        self.pools.remove(id);
        self.volumes.retain(|_, kept| kept.pool != id);
    }

    /// The room of each pool, by id.
    pub fn rooms(&self) -> Vec<Room> {
        let reserved = |id: &String| {
            let of_pool = self.volumes.values().filter(|kept| &kept.pool == id);
            of_pool.map(|kept| kept.record.size).sum()
        };
        self.pools
            .iter()
            .map(|(id, pool)| Room {
                pool: id.clone(),
                class: pool.class,
                capacity: pool.capacity(),
                reserved: reserved(id),
            })
            .collect()
    }

    /// The pools, by id.
    pub fn pools(&self) -> Vec<disk::Pool> {
        let rooms = self.rooms().into_iter();
        rooms
            .filter_map(|room| {
                let pool = self.pools.get(&room.pool)?;
                Some(disk::Pool {
                    free: room.free(),
                    id: room.pool,
                    disk: pool.disk.clone(),
                    class: room.class,
                    size: room.capacity,
                    state: pool.header.state,
                    condition: disk::PoolState::Ready,
                    reasons: Vec::new(),
                    scrub: None,
                })
            })
            .collect()
    }

    /// Every volume.
    pub fn list(&self) -> Vec<Volume> {
        self.volumes.values().map(Kept::volume).collect()
    }

    /// Makes a volume, or finds it made.
    pub async fn create(
        &mut self,
        wanted: CreateVolume,
        keys: &impl Keys,
    ) -> Result<VolumeChange, CallError> {
        check(&wanted)?;
        let id = (wanted.twin, wanted.name.clone());
        if let Some(kept) = self.volumes.get(&id) {
            let same = kept.record.size == wanted.size
                && kept.record.class == wanted.class
                && kept.record.holds == wanted.holds;
            return if same {
                Ok(VolumeChange { change: Change::Unchanged, volume: kept.volume() })
            } else {
                Err(CallError::Conflict {
                    detail: format!(
                        "volume {} is {} on {}, and can't become {} on {} yet",
                        wanted.name, kept.record.size, kept.record.class, wanted.size, wanted.class
                    ),
                    next_version: None,
                })
            };
        }
        let rooms = self.rooms();
        let room = place::place(&rooms, wanted.class, wanted.size).map_err(|free| {
            let rule = format!("at most {free} can be had on {} now", wanted.class);
            CallError::Full {
                detail: format!("no room for {} on {}: {rule}", wanted.size, wanted.class),
                errors: vec![FieldError::new("/size", rule)],
            }
        })?;
        let pool = &self.pools[&room.pool];
        let files = Files::of(&pool.root, &wanted.twin, &wanted.name);
        let record = Record {
            holds: wanted.holds,
            ..Record::new(wanted.twin, wanted.name.clone(), wanted.size, wanted.class)
        };

        let mut key = Zeroizing::new([0; device::KEY]);
        getrandom::fill(key.as_mut()).map_err(|error| CallError::failed(&error))?;
        let sealed = keys.seal(context(&id), key.as_ref()).await?;
        let kept = Kept { record: record.clone(), pool: room.pool.clone() };
        let devices = Arc::clone(&self.devices);
        blocking("make", &id, move || {
            devices.allocate(&files, record.size)?;
            files.write_key(&sealed)?;
            files.write_record(&record)
        })
        .await?;
        let volume = kept.volume();
        tracing::info!("made volume {} of {} on pool {}", id.1, id.0.short(), volume.pool);
        self.volumes.insert(id, kept);
        Ok(VolumeChange { change: Change::Created, volume })
    }

    /// The root of a share, mounted nowhere.
    pub async fn open_share(
        &mut self,
        twin: TwinId,
        name: WorkloadName,
        keys: &impl Keys,
    ) -> Result<(Volume, OwnedFd), CallError> {
        let (volume, device) = self.open(twin, name.clone(), Content::Share, keys).await?;
        let devices = Arc::clone(&self.devices);
        let root = blocking("mount", &(twin, name), move || devices.root(&device)).await?;
        Ok((volume, root))
    }

    /// The open device of a volume that holds this: what a guest wrote on a disk is never mounted, and no guest
    /// writes what is.
    pub async fn open(
        &mut self,
        twin: TwinId,
        name: WorkloadName,
        holds: Content,
        keys: &impl Keys,
    ) -> Result<(Volume, OwnedFd), CallError> {
        let id = (twin, name);
        let kept = self.volumes.get(&id).ok_or_else(|| not_found(&id))?;
        if kept.record.holds != holds {
            let detail = format!("volume {} holds a {}, not a {holds}", id.1, kept.record.holds);
            return Err(CallError::invalid(detail));
        }
        let device = device::name(&id.0, &id.1);
        let found = {
            let (devices, device) = (Arc::clone(&self.devices), device.clone());
            blocking("find", &id, move || devices.find(&device)).await?
        };
        let files = Files::of(&self.pools[&kept.pool].root, &id.0, &id.1);
        let fd = match found {
            Some(fd) => fd,
            None => {
                let (path, block) = (files.data(), self.pools[&kept.pool].block);
                let sealed = {
                    let files = files.clone();
                    blocking("read the key of", &id, move || files.read_key()).await?
                };
                let key = keys.unseal(context(&id), &sealed).await?;
                let (devices, cipher) = (Arc::clone(&self.devices), kept.record.cipher.clone());
                blocking("open", &id, move || devices.map(&device, &path, &cipher, &key, block))
                    .await?
            }
        };
        let volume = kept.volume();
        if !kept.record.fresh {
            return Ok((volume, fd));
        }
        let record = Record { fresh: false, ..kept.record.clone() };
        let devices = Arc::clone(&self.devices);
        let (fd, record) = blocking("prepare", &id, move || {
            match holds {
                Content::Disk => devices.clear_ends(&fd, record.size)?,
                Content::Share => devices.format(&fd)?,
            }
            files.write_record(&record)?;
            Ok::<_, io::Error>((fd, record))
        })
        .await?;
        if let Some(kept) = self.volumes.get_mut(&id) {
            kept.record = record;
        }
        Ok((volume, fd))
    }

    /// Takes a volume's device away.
    pub async fn close(&self, twin: TwinId, name: WorkloadName) -> Result<(), CallError> {
        self.unmap(&(twin, name)).await
    }

    /// Destroys a volume.
    pub async fn delete(&mut self, twin: TwinId, name: WorkloadName) -> Result<(), CallError> {
        let id = (twin, name);
        let Some(kept) = self.volumes.get(&id) else { return Ok(()) };
        self.unmap(&id).await?;
        let files = Files::of(&self.pools[&kept.pool].root, &id.0, &id.1);
        let record = kept.record.clone();
        blocking("destroy", &id, move || files.destroy(&record)).await?;
        tracing::info!("destroyed volume {} of {}", id.1, id.0.short());
        self.volumes.remove(&id);
        Ok(())
    }

    async fn unmap(&self, id: &(TwinId, WorkloadName)) -> Result<(), CallError> {
        let (devices, device) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
        let task = tokio::task::spawn_blocking(move || devices.unmap(&device));
        match task.await.map_err(|error| CallError::failed(&error))? {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(CallError::busy(format!("volume {} is in use", id.1)))
            }
            Err(error) => Err(CallError::failed(&error)),
        }
    }
}

impl Kept {
    fn volume(&self) -> Volume {
        let Record { twin, name, size, class, holds, .. } = self.record.clone();
        Volume { twin, name, size, class, pool: self.pool.clone(), holds }
    }
}

/// What this node can't do yet is said field by field.
fn check(wanted: &CreateVolume) -> Result<(), CallError> {
    let mut errors = Vec::new();
    let mut rule = |broken: bool, field: &str, rule: &str| {
        if broken {
            errors.push(FieldError::new(field, rule));
        }
    };
    rule(wanted.integrity != Integrity::None, "/integrity", "this node offers `none` for now");
    rule(wanted.key != KeyHolder::Node, "/key", "this node offers `node` for now");
    let size = wanted.size.0;
    rule(size == 0 || !size.is_multiple_of(GRAIN), "/size", "a multiple of 4KiB, at least one");
    if errors.is_empty() {
        return Ok(());
    }
    let rules: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.pointer, e.rule)).collect();
    let detail = format!("volume {}: {}", wanted.name, rules.join("; "));
    Err(CallError::Invalid { detail, errors })
}

fn context((twin, name): &(TwinId, WorkloadName)) -> String {
    format!("volume:{twin}/{name}")
}

fn not_found((twin, name): &(TwinId, WorkloadName)) -> CallError {
    CallError::not_found(format!("no volume {name} of {twin}"))
}

/// Runs what waits for disks apart from the daemon's one thread.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    what: &str,
    id: &(TwinId, WorkloadName),
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CallError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CallError::failed(&error))?.map_err(|error| {
        let cause = CallError::failed(&error);
        CallError::Failed { detail: format!("{what} volume {}: {cause}", id.1) }
    })
}

#[cfg(test)]
mod tests;
