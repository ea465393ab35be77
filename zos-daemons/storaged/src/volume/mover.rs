//! Volumes move to other pools, in use or not.
//!
//! ```text
//!  one copy     room ─▶ snapshots ─▶ files, record "arriving" ─▶ bytes ─▶ "left for" ─▶ arrived ─▶ old ones gone
//!                                                               │            └ from here on the new place counts
//!                                             closed: copied    └ open: a mirror of both, until they are equal
//!  two copies   snapshots ─▶ another pool takes the leg's place, and is written from the other copy
//! ```
//! Blocks that snapshots share are copied for each: as much is set aside for them anyway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zos_daemon::CallError;
use zos_types::Bytes;
use zos_types::volume::Footprint;

use super::files::Files;
use super::port::Change;
use super::record::{Record, Shot};
use super::stack::Mirror;
use super::{Held, Id, Volumes, blocking, device, is_mirrored, place};

/// How often the copy of a volume in use is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How far the emptying of a pool is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Volumes that were to be moved.
    pub total: usize,
    /// Those that have moved.
    pub moved: usize,
    /// Those that stay, and why, in words.
    pub stays: Vec<String>,
    /// It goes on no longer.
    pub ended: bool,
}

impl Volumes {
    /// Moves every volume of a pool to others of its class, one after the other; tells how far it is.
    pub async fn move_away(&self, pool: &str, told: &watch::Sender<Progress>) -> Progress {
        let ids: Vec<Id> = {
            let table = self.table();
            let there = table.entries.iter().filter(|(_, entry)| entry.copies.contains_key(pool));
            there.map(|(id, _)| id.clone()).collect()
        };
        let mut progress = Progress { total: ids.len(), ..Progress::default() };
        told.send_replace(progress.clone());
        for id in ids {
            match self.move_volume(&id, pool).await {
                Ok(()) => progress.moved += 1,
                // It is gone, which is as well.
                Err(CallError::NotFound { .. }) => progress.total -= 1,
                Err(error) => {
                    tracing::warn!("move {} of {} from pool {pool}: {error}", id.1, id.0.short());
                    progress.stays.push(format!("{}/{}: {error}", id.0, id.1));
                }
            }
            told.send_replace(progress.clone());
        }
        progress.ended = true;
        told.send_replace(progress.clone());
        progress
    }

    /// Moves a volume from a pool to another of its class.
    pub async fn move_volume(&self, id: &Id, from: &str) -> Result<(), CallError> {
        let mut held = self.hold(id).await?;
        self.stands(&held)?;
        self.finish(&mut held).await?;
        if !held.record.legs.iter().any(|leg| leg == from) {
            return Ok(());
        }
        let own = Footprint::of(held.record.size, held.record.integrity).each;
        let shots: Vec<Shot> =
            held.shots.values().filter(|s| s.legs.iter().any(|leg| leg == from)).cloned().collect();
        let of_shots: Bytes = shots.iter().map(|s| Footprint::of(s.size, s.integrity).each).sum();
        let all = Footprint { copies: 1, each: own + of_shots };
        let class = held.record.class;
        let found = place::place_beside(&self.rooms(), class, all, &held.record.legs);
        let found =
            found.map_err(|free| super::full(all.each, &format!("another {class} disk"), free))?;
        let to = found.pools.concat();
        self.reserve(id, vec![(to.clone(), all.each)])?;
        if let Some(entry) = self.table().entries.get_mut(id) {
            entry.moving = true;
        }
        let reason = format!("moved from pool {from}: {}", found.reason);
        let moved = if is_mirrored(&held.record) {
            self.move_leg(&mut held, from, &to, &shots, reason).await
        } else {
            self.move_only(held, from, &to, &shots, reason).await
        };
        if let Some(entry) = self.table().entries.get_mut(id) {
            entry.moving = false;
            entry.reserved.clear();
        }
        if moved.is_ok() {
            tracing::info!("moved volume {} of {} from pool {from} to {to}", id.1, id.0.short());
        }
        moved
    }

    /// Copies snapshots to another pool. Their records follow: without the volume's they count for nothing.
    async fn copy_shots(
        &self,
        id: &Id,
        from: &str,
        to: &str,
        shots: &[Shot],
    ) -> Result<Vec<Shot>, CallError> {
        let pair = (self.file(id, from)?, self.file(id, to)?);
        let devices = Arc::clone(&self.devices);
        let (from, to) = (from.to_owned(), to.to_owned());
        let mut shots = shots.to_vec();
        blocking("copy the snapshots of", id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            for shot in &mut shots {
                let (old, new) = (pair.0.snapshot(&shot.name), pair.1.snapshot(&shot.name));
                new.copy(&old, shot.size, shot.integrity, &reserve)?;
                for leg in shot.legs.iter_mut().filter(|leg| **leg == from) {
                    leg.clone_from(&to);
                }
                new.write_shot(shot)?;
            }
            Ok::<_, io::Error>(shots)
        })
        .await
    }

    fn file(&self, id: &Id, pool: &str) -> Result<Files, CallError> {
        let found = self.files(id, &[pool.to_owned()]).pop();
        found
            .map(|(_, files)| files)
            .ok_or_else(|| CallError::busy(format!("pool {pool} is not here")))
    }

    /// A volume with one copy.
    async fn move_only(
        &self,
        held: Held,
        from: &str,
        to: &str,
        shots: &[Shot],
        reason: String,
    ) -> Result<(), CallError> {
        let id = held.id.clone();
        // The long part: its user may open and close it meanwhile.
        drop(held);
        let copied = self.copy_shots(&id, from, to, shots).await;
        let done = match copied {
            Ok(copied) => self.carry(&id, from, to, reason).await.map(|()| copied),
            Err(error) => Err(error),
        };
        match done {
            Ok(copied) => self.arrive(&id, from, copied).await,
            Err(error) => {
                let new = self.file(&id, to)?;
                let record = self.hold(&id).await?.record;
                blocking("sweep up the copy of", &id, move || new.destroy(&record)).await?;
                Err(error)
            }
        }
    }

    /// The bytes go over, and the new place begins to count.
    async fn carry(&self, id: &Id, from: &str, to: &str, reason: String) -> Result<(), CallError> {
        let mut held = self.hold(id).await?;
        let (old, new) = (self.file(id, from)?, self.file(id, to)?);
        let arriving = Record {
            sequence: held.record.sequence + 1,
            legs: vec![to.to_owned()],
            placed: reason,
            arriving: true,
            ..held.record.clone()
        };
        let (devices, record, files) = (Arc::clone(&self.devices), arriving.clone(), new.clone());
        let (source, stack) = (old.clone(), self.stack(&held.record));
        let device = device::name(&id.0, &id.1);
        let target = {
            let table = self.table();
            super::Leg { stale: true, ..table.leg(&record, to) }
        };
        let open = blocking("begin to move", id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            files.allocate(record.size, record.integrity, &reserve)?;
            files.write_key(&source.read_key()?)?;
            files.write_record(&record)?;
            let open = devices.find(&device).map_err(io::Error::other)?.is_some();
            if open {
                devices.change(&stack, Change::Join(&target)).map_err(io::Error::other)?;
            }
            Ok::<_, io::Error>(open)
        })
        .await?;
        let mut was_equal = false;
        if open {
            drop(held);
            (held, was_equal) = self.until_equal(id).await?;
        }
        let (devices, record, name) =
            (Arc::clone(&self.devices), held.record.clone(), device::name(&id.0, &id.1));
        let still_open = {
            let (devices, name) = (Arc::clone(&devices), name.clone());
            blocking("find", id, move || devices.find(&name)).await?.is_some()
        };
        if still_open && !was_equal {
            let detail = format!("volume {} was opened anew while it was copied", id.1);
            return Err(CallError::busy(detail));
        }
        let stack = super::Stack {
            legs: vec![{
                let table = self.table();
                super::Leg { stale: false, ..table.leg(&arriving, to) }
            }],
            ..self.stack(&record)
        };
        let arrived = Record {
            sequence: record.sequence + 3,
            arriving: false,
            fresh: record.fresh,
            ..arriving.clone()
        };
        let left =
            Record { sequence: record.sequence + 2, left_for: Some(to.to_owned()), ..record };
        let (done, gone) = (arrived.clone(), left.clone());
        // Closed since: the old place is what counts, and nobody writes to it now.
        let was_equal = was_equal && still_open;
        blocking("move", id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            if !was_equal {
                new.copy(&old, done.size, done.integrity, &reserve)?;
            }
            // From here on the new place counts.
            old.write_record(&gone)?;
            new.write_record(&done)?;
            if was_equal {
                devices.change(&stack, Change::Part).map_err(io::Error::other)?;
            }
            Ok::<_, io::Error>(())
        })
        .await?;
        let mut table = self.table();
        if let Some(entry) = table.entries.get_mut(id) {
            entry.copies.insert(from.to_owned(), left);
            entry.copies.insert(to.to_owned(), arrived);
            entry.standing = super::record::lead(&entry.copies);
        }
        Ok(())
    }

    /// Waits until both places are equal, or the volume was closed; whether they are equal. Who opens it meanwhile
    /// opens the old place alone.
    async fn until_equal(&self, id: &Id) -> Result<(Held, bool), CallError> {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.mirror(id).await? {
                Some(mirror) if mirror.health.contains('D') => {
                    let held = self.hold(id).await?;
                    let (devices, stack) = (Arc::clone(&self.devices), self.stack(&held.record));
                    blocking("stop moving", id, move || devices.change(&stack, Change::Part))
                        .await?;
                    let detail = format!("volume {}: a disk failed while it was copied", id.1);
                    return Err(CallError::Failed { detail });
                }
                Some(mirror) if !mirror.is_whole() => {}
                _ => {
                    let held = self.hold(id).await?;
                    // Before it was held it may have been closed and opened.
                    let mirror = self.mirror(id).await?;
                    return Ok((held, mirror.is_some_and(|mirror| mirror.is_whole())));
                }
            }
        }
    }

    /// The mirror under a volume's device, as it is now.
    async fn mirror(&self, id: &Id) -> Result<Option<Mirror>, CallError> {
        self.look_at(id).await;
        let table = self.table();
        let entry = table.entries.get(id).ok_or_else(|| super::not_found(id))?;
        Ok(entry.look.as_ref().and_then(|look| look.mirror.clone()))
    }

    /// The old place is emptied.
    async fn arrive(&self, id: &Id, from: &str, copied: Vec<Shot>) -> Result<(), CallError> {
        let _held = self.hold(id).await?;
        let old = self.file(id, from)?;
        let gone = {
            let mut table = self.table();
            let entry = table.entries.get_mut(id).ok_or_else(|| super::not_found(id))?;
            for shot in copied {
                entry.shots.insert(shot.name.clone(), shot);
            }
            entry.copies.remove(from)
        };
        let Some(gone) = gone else { return Ok(()) };
        blocking("empty the old place of", id, move || old.destroy(&gone)).await
    }

    /// One of two copies.
    async fn move_leg(
        &self,
        held: &mut Held,
        from: &str,
        to: &str,
        shots: &[Shot],
        reason: String,
    ) -> Result<(), CallError> {
        let id = held.id.clone();
        let others = held.record.legs.iter().filter(|leg| *leg != from);
        if !others.clone().any(|leg| held.record.is_whole(leg)) {
            let detail = format!("volume {}: its other copy is not whole", id.1);
            return Err(CallError::Failed { detail });
        }
        let copied = self.copy_shots(&id, from, to, shots).await?;
        // The other pool's records of the snapshots tell of the new place too.
        let places = self.files(&id, &held.record.legs);
        let told = copied.clone();
        blocking("note the snapshots of", &id, move || {
            let on = |pool: &String, shot: &Shot| shot.legs.contains(pool);
            places.iter().try_for_each(|(pool, files)| {
                let mut there = told.iter().filter(|shot| on(pool, shot));
                there.try_for_each(|shot| files.snapshot(&shot.name).write_shot(shot))
            })
        })
        .await?;
        self.write(held, |record| {
            for leg in record.legs.iter_mut().filter(|leg| *leg == from) {
                to.clone_into(leg);
            }
            record.stale.retain(|leg| leg != from);
            record.stale.push(to.to_owned());
            record.placed = reason;
        })
        .await?;
        let open = {
            let (devices, name) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
            blocking("find", &id, move || devices.find(&name)).await?.is_some()
        };
        if open {
            self.rejoin(held).await?;
        } else {
            self.copy_leg(held, from, to).await?;
        }
        let old = self.file(&id, from)?;
        let gone = {
            let mut table = self.table();
            let entry = table.entries.get_mut(&id).ok_or_else(|| super::not_found(&id))?;
            for shot in copied {
                entry.shots.insert(shot.name.clone(), shot);
            }
            entry.copies.remove(from)
        };
        let Some(gone) = gone else { return Ok(()) };
        blocking("empty the old place of", &id, move || old.destroy(&gone)).await
    }

    /// A closed copy goes over as it is, with what the mirror knows of it.
    async fn copy_leg(&self, held: &mut Held, from: &str, to: &str) -> Result<(), CallError> {
        let (old, new) = (self.file(&held.id, from)?, self.file(&held.id, to)?);
        let (record, devices) = (held.record.clone(), Arc::clone(&self.devices));
        blocking("copy", &held.id, move || {
            let reserve = |file: &std::fs::File, size| devices.reserve(file, size);
            new.copy(&old, record.size, record.integrity, &reserve)?;
            new.write_key(&old.read_key()?)
        })
        .await?;
        let to = to.to_owned();
        self.write(held, |record| record.stale.retain(|leg| *leg != to)).await
    }
}
