//! Volumes are made, grown and destroyed.
//!
//! ```text
//!  create   rules ─▶ room reserved ─▶ bytes ─▶ key ─▶ record
//!  grow     room reserved ─▶ record "growing" ─▶ longer files ─▶ device ─▶ record    a cut: finished later
//!  delete   device gone ─▶ record "deleting" ─▶ no key ─▶ no bytes ─▶ no record
//! ```

use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;
use zos_api::local::Change;
use zos_api::local::storage::{CreateVolume, VolumeChange};
use zos_daemon::CallError;
use zos_types::deployment::{Content, KeyHolder};
use zos_types::volume::Footprint;
use zos_types::{Bytes, FieldError, TwinId, WorkloadName};

use super::keys::{Keys, Sealed};
use super::place::{self, Place};
use super::port::Change as DeviceChange;
use super::record::{GRAIN, Record, Standing};
use super::twin_key::TwinKey;
use super::{Entry, Held, Id, Volumes, blocking, context, device, full};

/// A place that is taken for a volume in the making; given back if it isn't made.
pub(super) struct Making<'a> {
    volumes: &'a Volumes,
    pub(super) id: Id,
    done: bool,
}

impl Making<'_> {
    /// It is made.
    pub(super) fn made(mut self, record: &Record) {
        let mut table = self.volumes.table();
        if let Some(entry) = table.entries.get_mut(&self.id) {
            for pool in &record.legs {
                entry.copies.insert(pool.clone(), record.clone());
            }
            entry.standing = Standing::Leads(Box::new(record.clone()));
            entry.reserved.clear();
            entry.making = false;
        }
        self.done = true;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.volumes.table().entries.remove(&self.id);
        }
    }
}

impl Volumes {
    /// Makes a volume, or finds it made.
    pub async fn create(
        &self,
        wanted: CreateVolume,
        keys: &impl Keys,
    ) -> Result<VolumeChange, CallError> {
        check(&wanted)?;
        let id = (wanted.twin, wanted.name.clone());
        loop {
            let gate = self.table().entries.get(&id).map(|entry| Arc::clone(&entry.gate));
            let Some(gate) = gate else { break };
            // Another call may just be making it.
            let _gate = gate.lock_owned().await;
            if self.table().entries.contains_key(&id) {
                return self.found(&id, &wanted);
            }
        }
        if wanted.from.is_some() {
            return self.clone_volume(id, wanted, keys).await;
        }
        let footprint = Footprint::of(wanted.size, wanted.integrity);
        let (making, _gate, place) = self.begin(&id, |volumes| {
            place::place(&volumes.rooms(), wanted.class, footprint).map_err(|free| {
                let copies = if footprint.copies > 1 { ", on each of two disks" } else { "" };
                full(wanted.size, &format!("{}{copies}", wanted.class), free)
            })
        })?;
        let sealed = match wanted.key {
            KeyHolder::Node => {
                let mut key = Zeroizing::new([0; device::KEY]);
                getrandom::fill(key.as_mut()).map_err(|error| CallError::failed(&error))?;
                keys.seal(context(&id), key.as_ref()).await?
            }
            KeyHolder::Twin => TwinKey::draw()?.kept()?,
        };
        let record = record(&wanted, place)?;
        let record = self.make(&making.id, record, sealed, None).await?;
        making.made(&record);
        tracing::info!("made volume {} of {}: {}", id.1, id.0.short(), record.placed);
        Ok(VolumeChange { change: Change::Created, volume: self.shown(&id)? })
    }

    /// Takes a place for a new volume, with its gate held.
    pub(super) fn begin(
        &self,
        id: &Id,
        place: impl FnOnce(&super::Table) -> Result<Place, CallError>,
    ) -> Result<(Making<'_>, tokio::sync::OwnedMutexGuard<()>, Place), CallError> {
        let mut table = self.table();
        if table.entries.contains_key(id) {
            return Err(CallError::busy(format!("volume {} is being made", id.1)));
        }
        let place = place(&table)?;
        let mut entry = Entry::new();
        entry.making = true;
        let gate = Arc::clone(&entry.gate).try_lock_owned();
        let gate = gate.map_err(|error| CallError::failed(&error))?;
        table.entries.insert(id.clone(), entry);
        drop(table);
        Ok((Making { volumes: self, id: id.clone(), done: false }, gate, place))
    }

    /// Makes a volume's files, its key and its record: of nothing, or of another's.
    pub(super) async fn make(
        &self,
        id: &Id,
        mut record: Record,
        sealed: Sealed,
        origin: Option<super::snapshot::Source>,
    ) -> Result<Record, CallError> {
        let footprint = Footprint::of(record.size, record.integrity);
        let wanted = record.legs.iter().map(|pool| (pool.clone(), footprint.each)).collect();
        self.reserve(id, wanted)?;
        record.sealing = sealed.sealing;
        record.id = fresh_id()?;
        let (places, devices) = (self.files(id, &record.legs), Arc::clone(&self.devices));
        let made = record.clone();
        let whole = blocking("make", id, move || {
            if places.len() != made.legs.len() {
                return Err(io::Error::other("a pool has gone"));
            }
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            match &origin {
                None => places.iter().try_for_each(|(_, files)| {
                    files.allocate(made.size, made.integrity, &reserve)
                })?,
                Some(origin) => origin.give(&places, &made, &reserve)?,
            }
            places.iter().try_for_each(|(_, files)| files.write_key(&sealed.bytes))?;
            places.iter().try_for_each(|(_, files)| files.write_record(&made))?;
            Ok(made)
        });
        let whole = whole.await;
        if whole.is_err() {
            let places = self.files(id, &record.legs);
            let swept = blocking("sweep up", id, move || {
                places.iter().try_for_each(|(_, files)| files.destroy(&record))
            });
            if let Err(error) = swept.await {
                tracing::warn!("{error}");
            }
        }
        whole
    }

    fn found(&self, id: &Id, wanted: &CreateVolume) -> Result<VolumeChange, CallError> {
        let volume = self.shown(id)?;
        let same = (volume.size, volume.class) == (wanted.size, wanted.class)
            && (volume.integrity, volume.key) == (wanted.integrity, wanted.key)
            && volume.holds == wanted.holds;
        if same {
            return Ok(VolumeChange { change: Change::Unchanged, volume });
        }
        Err(CallError::Conflict {
            detail: format!(
                "volume {} is {} on {}, {:?} with the key of the {:?}, and can't become {} on {}, \
                 {:?} with the key of the {:?} by being made",
                wanted.name,
                volume.size,
                volume.class,
                volume.integrity,
                volume.key,
                wanted.size,
                wanted.class,
                wanted.integrity,
                wanted.key
            ),
            next_version: None,
        })
    }

    /// Makes a volume larger.
    pub async fn grow(
        &self,
        twin: TwinId,
        name: WorkloadName,
        size: Bytes,
    ) -> Result<VolumeChange, CallError> {
        let id = (twin, name);
        let mut held = self.hold(&id).await?;
        self.stands(&held)?;
        self.finish(&mut held).await?;
        let old = held.record.size;
        if size == old {
            return Ok(VolumeChange { change: Change::Unchanged, volume: self.shown(&id)? });
        }
        let rule = |rule: String| {
            let detail = format!("volume {}: /size: {rule}", id.1);
            CallError::Invalid { detail, errors: vec![FieldError::new("/size", rule)] }
        };
        if size < old {
            return Err(rule(format!("at least {old}, which it has: a volume does not shrink")));
        }
        if !size.0.is_multiple_of(GRAIN) {
            return Err(rule("a multiple of 4KiB".to_owned()));
        }
        if let Some(away) =
            self.stack(&held.record).legs.iter().find(|l| l.files.is_none() || l.stale)
        {
            let pool = &away.pool;
            return Err(CallError::busy(format!(
                "volume {}: its copy on {pool} is not whole",
                id.1
            )));
        }
        let each = |size| Footprint::of(size, held.record.integrity).each;
        let more = each(size) - each(old);
        self.reserve(&id, held.record.legs.iter().map(|leg| (leg.clone(), more)).collect())?;
        let noted = self.write(&mut held, |record| record.growing = Some(size)).await;
        self.settle(&id);
        noted?;
        self.finish(&mut held).await?;
        tracing::info!("volume {} of {} has grown to {size}", id.1, id.0.short());
        Ok(VolumeChange { change: Change::Updated, volume: self.shown(&id)? })
    }

    /// Finishes what a cut left half-way.
    pub(super) async fn finish(&self, held: &mut Held) -> Result<(), CallError> {
        self.finish_restore(held).await?;
        let Some(size) = held.record.growing else { return Ok(()) };
        let places = self.files(&held.id, &held.record.legs);
        let (old, integrity) = (held.record.size, held.record.integrity);
        let has_files = held.record.holds == Content::Share && !held.record.fresh;
        let stack = super::Stack { size, ..self.stack(&held.record) };
        let devices = Arc::clone(&self.devices);
        blocking("make larger", &held.id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            for (_, files) in &places {
                files.extend(old, size, integrity, &reserve)?;
            }
            if let Some(device) = devices.find(&stack.name).map_err(io::Error::other)? {
                devices.change(&stack, DeviceChange::Size).map_err(io::Error::other)?;
                if has_files {
                    // Its servers see the room at once: a mount of ours for a moment grows the one file system.
                    devices.root(&device).map_err(io::Error::other)?;
                }
            }
            Ok::<_, io::Error>(())
        })
        .await?;
        self.write(held, |record| (record.size, record.growing) = (size, None)).await
    }

    /// Destroys a volume with its snapshots.
    pub async fn delete(&self, twin: TwinId, name: WorkloadName) -> Result<(), CallError> {
        let id = (twin, name);
        let gate = self.table().entries.get(&id).map(|entry| Arc::clone(&entry.gate));
        let Some(gate) = gate else { return Ok(()) };
        let _gate = gate.lock_owned().await;
        let copies = match self.table().entries.get(&id) {
            Some(entry) => entry.copies.clone(),
            None => return Ok(()),
        };
        self.unmap(&id).await?;
        let pools: Vec<String> = copies.keys().cloned().collect();
        let places = self.files(&id, &pools);
        blocking("destroy", &id, move || {
            let with_files = || places.iter().filter_map(|(pool, f)| Some((copies.get(pool)?, f)));
            // Every copy says so before the first is gone.
            with_files().try_for_each(|(record, files)| {
                files.write_record(&Record { deleting: true, ..record.clone() })
            })?;
            with_files().try_for_each(|(record, files)| {
                files.destroy(&Record { deleting: true, ..record.clone() })
            })
        })
        .await?;
        tracing::info!("destroyed volume {} of {}", id.1, id.0.short());
        self.table().entries.remove(&id);
        Ok(())
    }
}

fn record(wanted: &CreateVolume, place: Place) -> Result<Record, CallError> {
    let record = Record::new(wanted.twin, wanted.name.clone(), wanted.size, wanted.class);
    Ok(Record {
        integrity: wanted.integrity,
        key: wanted.key,
        holds: wanted.holds,
        legs: place.pools,
        placed: place.reason,
        ..record
    })
}

fn fresh_id() -> Result<String, CallError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| CallError::failed(&error))?;
    Ok(hex::encode(id))
}

/// What this node can't do yet is said field by field.
fn check(wanted: &CreateVolume) -> Result<(), CallError> {
    let mut errors = Vec::new();
    let mut rule = |broken: bool, field: &str, rule: &str| {
        if broken {
            errors.push(FieldError::new(field, rule));
        }
    };
    let size = wanted.size.0;
    rule(size == 0 || !size.is_multiple_of(GRAIN), "/size", "a multiple of 4KiB, at least one");
    if errors.is_empty() {
        return Ok(());
    }
    let rules: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.pointer, e.rule)).collect();
    let detail = format!("volume {}: {}", wanted.name, rules.join("; "));
    Err(CallError::Invalid { detail, errors })
}
