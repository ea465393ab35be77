//! Snapshots: taken and destroyed at once, gone back to by a wish in the book.
//!
//! ```text
//!  take     room ─▶ promised ─▶ storaged ─▶ answer            storaged keeps it: nothing is in the book
//!  destroy  needed? ─▶ storaged ─▶ answer
//!  restore  book, fsync ─▶ answer ─▶ the plan: VM stops ▸ set back ▸ VM starts
//! ```
//! What is told to storaged is done in a task of its own: a caller that leaves stops it nowhere.

use std::sync::Arc;
use std::time::Duration;

use zos_api::local::provision::{
    DeleteSnapshot, ListSnapshots, RestoreSnapshot, Snapshots, TakeSnapshot, Taken,
};
use zos_api::local::storage::{self, Volume};
use zos_api::local::{CallError, Change, Done};
use zos_types::volume::{Footprint, SnapshotStatus};
use zos_types::{Name, WorkloadName};

use super::judge::space;
use super::{Brain, Key, Room, State, There, find};
use crate::plan::{origin, unmade};
use crate::space::Need;
use crate::status::shown;

/// The most snapshots of one volume.
const MOST: usize = 32;
/// How long storaged may take over one.
const PATIENCE: Duration = Duration::from_secs(120);

impl Brain {
    /// A volume's snapshots.
    pub async fn list_snapshots(&self, list: ListSnapshots) -> Result<Snapshots, CallError> {
        self.observe().await;
        let (state, key) = (self.state.lock().await, (list.twin, list.name));
        volume(&state, &key)?;
        Ok(Snapshots { snapshots: state.seen.snapshots(&key).iter().map(shown).collect() })
    }

    /// Keeps a volume as it is now.
    pub async fn take_snapshot(self: Arc<Self>, take: TakeSnapshot) -> Result<Taken, CallError> {
        let TakeSnapshot { twin, name, snapshot } = take;
        let (key, id) = ((twin, name.clone()), ((twin, name.clone()), snapshot.clone()));
        let (mut state, room) = self.look_around(true).await;
        let there = volume(&state, &key)?.clone();
        if let Some(found) = snapshot_of(&state, &id) {
            return Ok(Taken { change: Change::Unchanged, snapshot: found });
        }
        if let Some(other) = restoring(&state, &key) {
            return Err(conflict(format!("volume {name} is being set back to {other}")));
        }
        if state.taking.contains_key(&id) {
            return Err(CallError::busy(format!("snapshot {name}@{snapshot} is being taken")));
        }
        let need = admit(&state, &key, &there, &room?)?;
        state.taking.insert(id.clone(), need);
        drop(state);
        let brain = Arc::clone(&self);
        apart(async move {
            let call = storage::TakeSnapshot { twin, name, snapshot };
            let result = brain.bus.within(PATIENCE).call(call).await;
            let mut state = brain.state.lock().await;
            state.ends += 1;
            let need = state.taking.remove(&id);
            let taken = result?;
            if let Some(need) = need {
                state.took_need(need);
            }
            let status = shown(&taken);
            state.seen.snapshots.entry(id.0).or_default().push(taken);
            Ok(Taken { change: Change::Created, snapshot: status })
        })
        .await
    }

    /// Destroys a snapshot.
    pub async fn delete_snapshot(
        self: Arc<Self>,
        delete: DeleteSnapshot,
    ) -> Result<Done, CallError> {
        let DeleteSnapshot { twin, name, snapshot } = delete;
        self.observe().await;
        let mut state = self.state.lock().await;
        let (key, id) = ((twin, name.clone()), ((twin, name.clone()), snapshot.clone()));
        volume(&state, &key)?;
        snapshot_of(&state, &id).ok_or_else(|| absent(&name, &snapshot))?;
        if restoring(&state, &key) == Some(&snapshot) {
            return Err(conflict(format!("volume {name} is being set back to {snapshot}")));
        }
        if let Some(clone) = made_from(&state, &key, &snapshot) {
            return Err(conflict(format!("volume {clone} is still to be made from it")));
        }
        if !state.dropping.insert(id.clone()) {
            return Err(CallError::busy(format!("snapshot {name}@{snapshot} is being destroyed")));
        }
        drop(state);
        let brain = Arc::clone(&self);
        apart(async move {
            let call = storage::DeleteSnapshot { twin, name, snapshot };
            let result = brain.bus.within(PATIENCE).call(call).await;
            let mut state = brain.state.lock().await;
            state.ends += 1;
            state.dropping.remove(&id);
            if result.is_ok()
                && let Some(snapshots) = state.seen.snapshots.get_mut(&id.0)
            {
                snapshots.retain(|snapshot| snapshot.name != id.1);
            }
            result
        })
        .await
    }

    /// Sets a volume back to a snapshot: noted now, done by the plan.
    pub async fn restore_snapshot(
        &self,
        restore: RestoreSnapshot,
    ) -> Result<SnapshotStatus, CallError> {
        let RestoreSnapshot { twin, name, snapshot, evidence } = restore;
        self.observe().await;
        let mut state = self.state.lock().await;
        let (key, id) = ((twin, name.clone()), ((twin, name.clone()), snapshot.clone()));
        volume(&state, &key)?;
        let found = snapshot_of(&state, &id).filter(|_| !state.dropping.contains(&id));
        let found = found.ok_or_else(|| absent(&name, &snapshot))?;
        match restoring(&state, &key) {
            Some(same) if *same == snapshot => return Ok(found),
            Some(other) => {
                return Err(conflict(format!("volume {name} is being set back to {other}")));
            }
            None => {}
        }
        let noted = state.book.restore(&key, snapshot.clone(), evidence);
        noted.map_err(|error| CallError::failed(&error))?;
        tracing::info!("{name} of {}: to be set back to {snapshot}", twin.short());
        self.changed(&mut state, &(twin, key.1.deployment));
        Ok(found)
    }
}

/// Whether there is room for a snapshot of a volume, and what it takes.
fn admit(state: &State, key: &Key, volume: &Volume, room: &Room) -> Result<Need, CallError> {
    let full = |detail: String| CallError::Full { detail, errors: Vec::new() };
    let taking = state.taking.keys().filter(|(of, _)| of == key).count();
    if state.seen.snapshots(key).len() + taking >= MOST {
        let name = &key.1;
        return Err(full(format!(
            "volume {name} has {MOST} snapshots, and may have no more; delete one"
        )));
    }
    let takes = Footprint::of(volume.size, volume.integrity);
    let need = Need { class: volume.class, takes, on: volume.pools.clone() };
    let desired = state.book.desired();
    let empty = Default::default();
    let volumes = state.seen.volumes.as_ref().unwrap_or(&empty);
    let there = There { volumes, desired: &desired };
    let mut space = space(state, &there, None, room);
    space.promise(need.clone()).map_err(|missing| {
        full(format!("a snapshot takes as much room as its volume, {}: {missing}", volume.size))
    })?;
    Ok(need)
}

/// A volume that its twin has, and that is there.
fn volume<'a>(state: &'a State, key: &Key) -> Result<&'a Volume, CallError> {
    let (twin, name) = key;
    let deployment = find(&state.book, &(*twin, name.deployment.clone()));
    let wanted = deployment.map_err(|_| no_volume(name))?;
    wanted.workloads.get(&name.workload).and_then(|w| w.volume()).ok_or_else(|| no_volume(name))?;
    if state.seen.volumes.is_none() {
        return Err(CallError::busy("storaged has not told of its volumes yet"));
    }
    let gone = state.book.desired().removals.contains(key);
    let there = state.seen.volume(key).filter(|_| !gone);
    there.ok_or_else(|| CallError::busy(format!("volume {name} is not there now")))
}

fn snapshot_of(state: &State, (key, name): &(Key, Name)) -> Option<SnapshotStatus> {
    state.seen.snapshots(key).iter().find(|found| found.name == *name).map(shown)
}

fn restoring<'a>(state: &'a State, key: &Key) -> Option<&'a Name> {
    let restore = state.book.restores().get(key).filter(|restore| restore.error.is_none())?;
    Some(&restore.snapshot)
}

/// A volume that is still to be made from a snapshot.
fn made_from(state: &State, key: &Key, snapshot: &Name) -> Option<WorkloadName> {
    let (desired, actual) = (state.book.desired(), state.seen.actual()?);
    let found = unmade(&desired, &actual).find(|(clone, volume)| {
        let of = volume.from.as_ref().is_some_and(|from| from.snapshot.as_ref() == Some(snapshot));
        of && origin(clone, volume).as_ref() == Some(key)
    });
    found.map(|((_, name), _)| name.clone())
}

/// In a task of its own.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, CallError>> + Send + 'static,
) -> Result<T, CallError> {
    tokio::spawn(work).await.map_err(|error| CallError::failed(&error))?
}

fn no_volume(name: &WorkloadName) -> CallError {
    CallError::not_found(format!("there is no volume {name}"))
}

fn absent(name: &WorkloadName, snapshot: &Name) -> CallError {
    CallError::not_found(format!("volume {name} has no snapshot `{snapshot}`"))
}

fn conflict(detail: String) -> CallError {
    CallError::Conflict { detail, next_version: None }
}
