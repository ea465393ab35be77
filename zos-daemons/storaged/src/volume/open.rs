//! A volume's device for its user.
//!
//! ```text
//!  open   what a cut left ─▶ is it there? ─▶ legs: whole, stale, away ─▶ key ─▶ map ─▶ ends cleared ─▶ fd
//! ```
//! A copy that is away is noted as stale before the first write goes past it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use zeroize::Zeroizing;
use zos_api::local::storage::Volume;
use zos_daemon::CallError;
use zos_types::deployment::{Content, KeyHolder};
use zos_types::{TwinId, WorkloadName};

use super::keys::Keys;
use super::{Held, Id, Volumes, blocking, context, device, is_mirrored, unlock};

impl Volumes {
    /// The root of a share, mounted nowhere.
    pub async fn open_share(
        &self,
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
        &self,
        twin: TwinId,
        name: WorkloadName,
        holds: Content,
        keys: &impl Keys,
    ) -> Result<(Volume, OwnedFd), CallError> {
        let id = (twin, name);
        let mut held = self.hold(&id).await?;
        if held.record.holds != holds {
            let detail = format!("volume {} holds a {}, not a {holds}", id.1, held.record.holds);
            return Err(CallError::invalid(detail));
        }
        self.finish(&mut held).await?;
        let name = device::name(&id.0, &id.1);
        let found = {
            let (devices, name) = (Arc::clone(&self.devices), name.clone());
            blocking("find", &id, move || devices.find(&name)).await?
        };
        let fd = match found {
            Some(fd) => fd,
            None if held.record.key == KeyHolder::Twin => {
                self.note_unlocked(&id, false);
                return Err(unlock::locked(&id));
            }
            None => {
                self.ready_legs(&mut held).await?;
                let key = self.key(&held, keys).await?;
                let (devices, stack) = (Arc::clone(&self.devices), self.stack(&held.record));
                blocking("open", &id, move || devices.map(&stack, &key)).await?
            }
        };
        let fd = self.clear_once(&mut held, fd).await?;
        if is_mirrored(&held.record) {
            self.look_at(&id).await;
        }
        Ok((self.shown(&id)?, fd))
    }

    /// The key of a volume's data.
    pub(super) async fn key(
        &self,
        held: &Held,
        keys: &impl Keys,
    ) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let places = self.files(&held.id, &held.record.legs);
        let sealed = blocking("read the key of", &held.id, move || {
            let mut last = io::Error::other("none of its pools is here");
            for (_, files) in &places {
                match files.read_key() {
                    Ok(sealed) => return Ok(sealed),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
        .await?;
        keys.unseal(context(&held.id), &sealed).await
    }

    /// Notes copies that are away as stale, and makes the files of those that are to be written anew.
    pub(super) async fn ready_legs(&self, held: &mut Held) -> Result<(), CallError> {
        let legs = self.stack(&held.record).legs;
        let whole = legs.iter().filter(|leg| !leg.stale && leg.files.is_some()).count();
        if whole == 0 {
            let pools: Vec<&str> =
                legs.iter().filter(|leg| leg.files.is_none()).map(|leg| &*leg.pool).collect();
            let detail = format!("volume {}: pool {} is not here", held.id.1, pools.join(", "));
            return Err(CallError::Failed { detail });
        }
        let away: Vec<String> = legs
            .iter()
            .filter(|leg| leg.files.is_none() && !leg.stale)
            .map(|leg| leg.pool.clone())
            .collect();
        if !away.is_empty() {
            tracing::warn!(
                "volume {} of {} goes on without {}",
                held.id.1,
                held.id.0.short(),
                away.join(", ")
            );
            self.write(held, |record| record.stale.extend(away)).await?;
        }
        self.ready_stale(held).await
    }

    /// Makes the files of stale copies fit, with the key beside them, so that they can be written anew.
    pub(super) async fn ready_stale(&self, held: &Held) -> Result<(), CallError> {
        let legs = self.stack(&held.record).legs;
        let stale = legs.iter().filter(|leg| leg.stale).filter_map(|leg| leg.files.clone());
        let stale: Vec<_> = stale.collect();
        let whole = legs.iter().filter(|leg| !leg.stale).find_map(|leg| leg.files.clone());
        let (Some(whole), false) = (whole, stale.is_empty()) else { return Ok(()) };
        let (record, devices) = (held.record.clone(), Arc::clone(&self.devices));
        blocking("make a second copy of", &held.id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            for files in stale {
                if !files.fit(record.size, record.integrity) {
                    files.allocate(record.size, record.integrity, &reserve)?;
                }
                files.write_key(&whole.read_key()?)?;
                files.write_record(&record)?;
            }
            Ok::<_, io::Error>(())
        })
        .await
    }

    /// The ends of a volume that was never handed out are made to read as zeros; a share gets its file system.
    async fn clear_once(&self, held: &mut Held, fd: OwnedFd) -> Result<OwnedFd, CallError> {
        if !held.record.fresh {
            return Ok(fd);
        }
        let (devices, size) = (Arc::clone(&self.devices), held.record.size);
        let holds = held.record.holds;
        let fd = blocking("prepare", &held.id, move || {
            match holds {
                Content::Disk => devices.clear_ends(&fd, size)?,
                Content::Share => devices.format(&fd)?,
            }
            Ok::<_, io::Error>(fd)
        })
        .await?;
        self.write(held, |record| record.fresh = false).await?;
        Ok(fd)
    }

    /// Takes a volume's device away.
    pub async fn close(&self, twin: TwinId, name: WorkloadName) -> Result<(), CallError> {
        let id = (twin, name);
        let gate = self.table().entries.get(&id).map(|entry| Arc::clone(&entry.gate));
        let _gate = match gate {
            Some(gate) => Some(gate.lock_owned().await),
            None => None,
        };
        self.unmap(&id).await
    }

    pub(super) async fn unmap(&self, id: &Id) -> Result<(), CallError> {
        let (devices, device) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
        // What it knows of its copies is asked a last time.
        self.look_at(id).await;
        let task = tokio::task::spawn_blocking(move || devices.unmap(&device));
        match task.await.map_err(|error| CallError::failed(&error))? {
            Ok(_) => {
                if let Some(entry) = self.table().entries.get_mut(id) {
                    entry.look = None;
                    entry.unlocked = false;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(CallError::busy(format!("volume {} is in use", id.1)))
            }
            Err(error) => Err(CallError::failed(&error)),
        }
    }

    /// Asks the kernel how the volume's device does.
    pub(super) async fn look_at(&self, id: &Id) {
        let (devices, device) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
        let looked = tokio::task::spawn_blocking(move || devices.look(&device)).await;
        if let (Ok(Ok(look)), Some(entry)) = (looked, self.table().entries.get_mut(id)) {
            entry.look = look;
        }
    }
}
