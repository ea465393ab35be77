//! Snapshots: taken, set back to, cloned.
//!
//! ```text
//!  take     room reserved ─▶ device held ─ files shared ─ let go ─▶ record      milliseconds of a pause
//!  restore  record "restoring" ─▶ files shared ─▶ put in the volume's place ─▶ record   a cut: done again
//!  clone    a new volume whose files are shared; its key is the origin's, sealed anew for it, or its twin's by the same salt
//! ```
//! Shared blocks are written elsewhere when one of both changes, so each snapshot has its full size set
//! aside: no write of a volume ever fails because a snapshot holds its blocks.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use zos_api::local::Change;
use zos_api::local::storage::{CreateVolume, Snapshot, VolumeChange};
use zos_daemon::CallError;
use zos_types::deployment::KeyHolder;
use zos_types::volume::Footprint;
use zos_types::{Bytes, FieldError, Name, Origin, TwinId, WorkloadName};

use super::files::{Files, Reserve};
use super::keys::Keys;
use super::place::Place;
use super::record::{Record, Shot, VERSION};
use super::{Devices, Held, Id, Volumes, blocking, context, device};

/// What a clone is made of: an origin's files, held still while they are shared.
pub(super) struct Source {
    devices: Arc<dyn Devices>,
    /// The origin's device; none: it can't change.
    device: Option<String>,
    places: Vec<(String, Files)>,
    size: Bytes,
}

impl Source {
    /// Makes a volume's files as copies, as large as its record says, and those that the origin lacks anew.
    pub(super) fn give(
        &self,
        places: &[(String, Files)],
        record: &Record,
        reserve: Reserve<'_>,
    ) -> io::Result<()> {
        let of = |pool: &String| self.places.iter().find(|(other, _)| other == pool);
        let pairs: Vec<(&Files, &Files)> =
            places.iter().filter_map(|(pool, files)| Some((files, &of(pool)?.1))).collect();
        // All at once: the copies of a mirror must be of one moment.
        let mut share = || pairs.iter().try_for_each(|(to, from)| to.share(from, record.integrity));
        match &self.device {
            Some(device) => self.devices.held(device, &mut share).map_err(io::Error::other)?,
            None => share()?,
        }
        for (files, _) in &pairs {
            files.settle(record.integrity)?;
            files.extend(self.size, record.size, record.integrity, reserve)?;
        }
        let lacking = places.iter().filter(|(pool, _)| of(pool).is_none());
        lacking
            .into_iter()
            .try_for_each(|(_, files)| files.allocate(record.size, record.integrity, reserve))
    }
}

impl Volumes {
    /// Keeps a volume as it is now.
    pub async fn take_snapshot(
        &self,
        twin: TwinId,
        name: WorkloadName,
        snapshot: Name,
    ) -> Result<Snapshot, CallError> {
        let id = (twin, name);
        let mut held = self.hold(&id).await?;
        self.stands(&held)?;
        self.finish(&mut held).await?;
        if held.shots.contains_key(&snapshot) {
            let detail = format!("volume {} has a snapshot {snapshot}", id.1);
            return Err(CallError::Conflict { detail, next_version: None });
        }
        let record = &held.record;
        let legs = self.whole_legs(&held)?;
        let footprint = Footprint::of(record.size, record.integrity);
        self.reserve(&id, legs.iter().map(|(leg, _)| (leg.clone(), footprint.each)).collect())?;
        let shot = Shot {
            version: VERSION,
            twin,
            volume: id.1.clone(),
            of: record.id.clone(),
            name: snapshot,
            size: record.size,
            class: record.class,
            integrity: record.integrity,
            fresh: record.fresh,
            taken: Timestamp::now(),
            legs: legs.iter().map(|(pool, _)| pool.clone()).collect(),
        };
        let (devices, device) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
        let written = shot.clone();
        let taken = blocking("take a snapshot of", &id, move || {
            let pairs: Vec<(Files, &Files)> =
                legs.iter().map(|(_, files)| (files.snapshot(&written.name), files)).collect();
            let mut share =
                || pairs.iter().try_for_each(|(to, from)| to.share(from, written.integrity));
            let taken =
                devices.held(&device, &mut share).map_err(io::Error::other).and_then(|()| {
                    pairs.iter().try_for_each(|(files, _)| files.settle(written.integrity))?;
                    pairs.iter().try_for_each(|(files, _)| files.write_shot(&written))
                });
            if taken.is_err() {
                pairs.iter().try_for_each(|(files, _)| files.destroy_snapshot())?;
            }
            taken
        })
        .await;
        if let Some(entry) = self.table().entries.get_mut(&id) {
            entry.reserved.clear();
            if taken.is_ok() {
                entry.shots.insert(shot.name.clone(), shot.clone());
            }
        }
        taken?;
        tracing::info!("took snapshot {} of {} of {}", shot.name, id.1, id.0.short());
        Ok(shot.shown())
    }

    /// Copies that are here and hold all that was written.
    fn whole_legs(&self, held: &Held) -> Result<Vec<(String, Files)>, CallError> {
        let mut legs = self.files(&held.id, &held.record.legs);
        legs.retain(|(pool, _)| held.record.is_whole(pool));
        if legs.is_empty() {
            let detail = format!("volume {}: no whole copy of it is here", held.id.1);
            return Err(CallError::Failed { detail });
        }
        Ok(legs)
    }

    /// Forgets a snapshot.
    pub async fn delete_snapshot(
        &self,
        twin: TwinId,
        name: WorkloadName,
        snapshot: Name,
    ) -> Result<(), CallError> {
        let id = (twin, name);
        let mut held = match self.hold(&id).await {
            Ok(held) => held,
            Err(CallError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.stands(&held)?;
        self.finish(&mut held).await?;
        let Some(shot) = held.shots.get(&snapshot) else { return Ok(()) };
        let places = self.files(&id, &shot.legs);
        let gone = snapshot.clone();
        blocking("forget a snapshot of", &id, move || {
            places.iter().try_for_each(|(_, files)| files.snapshot(&gone).destroy_snapshot())
        })
        .await?;
        if let Some(entry) = self.table().entries.get_mut(&id) {
            entry.shots.remove(&snapshot);
        }
        tracing::info!("forgot snapshot {snapshot} of {} of {}", id.1, id.0.short());
        Ok(())
    }

    /// Makes a volume again what it was.
    pub async fn restore_snapshot(
        &self,
        twin: TwinId,
        name: WorkloadName,
        snapshot: Name,
    ) -> Result<(), CallError> {
        let id = (twin, name);
        let mut held = self.hold(&id).await?;
        self.stands(&held)?;
        self.finish(&mut held).await?;
        if !held.shots.contains_key(&snapshot) {
            return Err(no_snapshot(&id, &snapshot));
        }
        // Busy while it is in use.
        self.unmap(&id).await?;
        let restored = snapshot.clone();
        self.write(&mut held, |record| record.restoring = Some(snapshot)).await?;
        self.finish(&mut held).await?;
        tracing::info!("set volume {} of {} back to {restored}", id.1, id.0.short());
        Ok(())
    }

    /// Finishes a restoring that was begun.
    pub(super) async fn finish_restore(&self, held: &mut Held) -> Result<(), CallError> {
        let Some(name) = held.record.restoring.clone() else { return Ok(()) };
        let shot = held.shots.get(&name).cloned().ok_or_else(|| no_snapshot(&held.id, &name))?;
        let places = self.files(&held.id, &shot.legs);
        if places.is_empty() {
            let detail = format!("volume {}: the pool of {name} is not here", held.id.1);
            return Err(CallError::Failed { detail });
        }
        let devices = Arc::clone(&self.devices);
        let size = held.record.size;
        let whole: Vec<String> = places.iter().map(|(pool, _)| pool.clone()).collect();
        let fresh = shot.fresh;
        blocking("set back", &held.id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            for (_, files) in &places {
                let beside = files.beside();
                beside.share(&files.snapshot(&shot.name), shot.integrity)?;
                beside.extend(shot.size, size, shot.integrity, &reserve)?;
                beside.settle(shot.integrity)?;
            }
            places.iter().try_for_each(|(_, files)| files.beside().replace(files, shot.integrity))
        })
        .await?;
        // A copy that the snapshot doesn't have is made anew from the others.
        self.write(held, |record| {
            record.stale = record.legs.iter().filter(|leg| !whole.contains(leg)).cloned().collect();
            record.restoring = None;
            record.fresh = fresh;
        })
        .await
    }

    /// A new volume of another's content.
    pub(super) async fn clone_volume(
        &self,
        id: Id,
        wanted: CreateVolume,
        keys: &impl Keys,
    ) -> Result<VolumeChange, CallError> {
        let Some(Origin { volume, snapshot }) = wanted.from.clone() else {
            return Err(CallError::Invalid { detail: "no origin".into(), errors: Vec::new() });
        };
        let origin = (id.0, volume);
        let mut held = self.hold(&origin).await?;
        self.stands(&held)?;
        self.finish(&mut held).await?;
        let (size, fresh, legs) = match &snapshot {
            Some(name) => {
                let shot = held.shots.get(name).ok_or_else(|| no_snapshot(&origin, name))?;
                (shot.size, shot.fresh, self.files(&origin, &shot.legs))
            }
            None => (held.record.size, held.record.fresh, self.whole_legs(&held)?),
        };
        alike(&wanted, &held.record, size)?;
        let places: Vec<(String, Files)> = match &snapshot {
            Some(name) => legs.iter().map(|(p, files)| (p.clone(), files.snapshot(name))).collect(),
            None => legs,
        };
        let device = snapshot.is_none().then(|| device::name(&origin.0, &origin.1));
        let from = wanted.from.as_ref().map(ToString::to_string).unwrap_or_default();
        let place = Place {
            pools: held.record.legs.clone(),
            reason: format!("with {from}, whose blocks it shares"),
        };
        let (making, _gate, place) = self.begin(&id, |_| Ok(place))?;
        // A copy that the origin lacks is made anew from the other.
        let stale =
            place.pools.iter().filter(|pool| !places.iter().any(|(has, _)| has == *pool)).cloned();
        let record = Record {
            integrity: wanted.integrity,
            key: wanted.key,
            holds: wanted.holds,
            stale: stale.collect(),
            legs: place.pools.clone(),
            placed: place.reason,
            fresh,
            ..Record::new(wanted.twin, wanted.name.clone(), wanted.size, wanted.class)
        };
        let sealed = match held.record.key {
            KeyHolder::Node => {
                let key = self.key(&held, keys).await?;
                keys.seal(context(&id), &key).await?
            }
            // By the same salt its twin derives the same key.
            KeyHolder::Twin => self.twin_key(&held).await?.kept()?,
        };
        let source = Source { devices: Arc::clone(&self.devices), device, places, size };
        let record = self.make(&making.id, record, sealed, Some(source)).await?;
        making.made(&record);
        tracing::info!("made volume {} of {} of {from}", id.1, id.0.short());
        Ok(VolumeChange { change: Change::Created, volume: self.shown(&id)? })
    }
}

/// A clone shares its origin's blocks, so it is of the same make.
fn alike(wanted: &CreateVolume, origin: &Record, size: Bytes) -> Result<(), CallError> {
    let mut errors = Vec::new();
    let mut rule = |broken: bool, field: &str, rule: String| {
        if broken {
            errors.push(FieldError::new(field, rule));
        }
    };
    rule(wanted.size < size, "/size", format!("at least {size}, as large as its origin"));
    rule(wanted.class != origin.class, "/class", format!("its origin's: {}", origin.class));
    let as_origin = |what: &dyn std::fmt::Debug| format!("its origin's: {what:?}").to_lowercase();
    rule(wanted.integrity != origin.integrity, "/integrity", as_origin(&origin.integrity));
    rule(wanted.key != origin.key, "/key", as_origin(&origin.key));
    rule(
        wanted.holds != origin.holds,
        "/from",
        "a volume for a volume, a share for a share".into(),
    );
    if errors.is_empty() {
        return Ok(());
    }
    let rules: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.pointer, e.rule)).collect();
    let detail = format!("volume {}: {}", wanted.name, rules.join("; "));
    Err(CallError::Invalid { detail, errors })
}

fn no_snapshot(id: &Id, snapshot: &Name) -> CallError {
    CallError::not_found(format!("volume {} has no snapshot {snapshot}", id.1))
}
