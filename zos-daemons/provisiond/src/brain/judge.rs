//! The rules that need more than the deployment itself: the version before, the disks, the room.
//!
//! ```text
//!  kept ─▶ on disk ─▶ origins ─▶ the book's limits ─▶ room
//! ```

use std::collections::BTreeMap;

use zos_api::local::CallError;
use zos_types::{Deployment, FieldError};

use super::{Key, Owner, Room, State, There, charge};
use crate::admit::{Ledger, admit};
use crate::book::workload_key;
use crate::kept;
use crate::space::Space;

/// Judges a deployment that is new.
pub(super) fn judge(
    state: &State,
    owner: &Owner,
    body: &[u8],
    deployment: &Deployment,
    room: &Room,
) -> Result<(), CallError> {
    let before = state.book.get(owner).and_then(|entry| entry.current.as_ref());
    let desired = state.book.desired();
    let empty = BTreeMap::new();
    let volumes = state.seen.volumes.as_ref().unwrap_or(&empty);
    let there = There { volumes, desired: &desired };
    let mut errors = before.map(|b| kept::broken(&b.deployment, deployment)).unwrap_or_default();
    if errors.is_empty() {
        errors = on_disk(&there, owner, before.map(|b| &b.deployment), deployment);
    }
    if errors.is_empty() {
        errors = origins(state, &there, owner, deployment);
    }
    if !errors.is_empty() {
        let detail = "the deployment changes what must stay, or rests on what is not there";
        return Err(CallError::Invalid { detail: detail.to_owned(), errors });
    }
    if let Some(refusal) = state.book.refusal(owner, body) {
        return Err(CallError::Full { detail: refusal.to_owned(), errors: Vec::new() });
    }
    let ledger = Ledger {
        others: state.book.charged_without(Some(owner)) + charge(&state.orphans(&desired)),
        own: before.map(|before| before.deployment.charged()).unwrap_or_default(),
        space: space(state, &there, Some(owner), room),
        needs: there.needs(owner, deployment),
    };
    admit(&room.capacity, &ledger, deployment).map(drop).map_err(|rejection| CallError::Full {
        detail: "the node has no room for the deployment".to_owned(),
        errors: rejection.0,
    })
}

/// The pools, with all that is promised of them: to all deployments but one, and to snapshots.
pub(super) fn space(state: &State, there: &There<'_>, but: Option<&Owner>, room: &Room) -> Space {
    let mut promised = there.promised(&state.book, but);
    promised.extend(state.taking.values().chain(&room.taken).cloned());
    Space::new(&room.pools).with(promised)
}

/// What the disks have otherwise, whatever the book says.
fn on_disk(
    there: &There<'_>,
    owner: &Owner,
    before: Option<&Deployment>,
    deployment: &Deployment,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, workload) in &deployment.workloads {
        let Some((wanted, holds)) = workload.volume() else { continue };
        let key = workload_key(owner, name);
        let had = before.and_then(|b| b.workloads.get(name)?.volume());
        if let Some(volume) = there.volume(&key) {
            errors.extend(kept::unlike(name, (wanted, holds), volume));
        } else if there.is_missing(&key) && had.is_some_and(|(had, _)| had.size != wanted.size) {
            let rule = "its disk is missing; it can grow when that is back".to_owned();
            errors.push(FieldError::new(format!("/workloads/{name}/size"), rule));
        }
    }
    errors
}

/// What new volumes are to be made from must be there, and go with them.
fn origins(
    state: &State,
    there: &There<'_>,
    owner: &Owner,
    deployment: &Deployment,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, workload) in &deployment.workloads {
        let Some((wanted, holds)) = workload.volume() else { continue };
        let (key, from) = (workload_key(owner, name), wanted.from.as_ref());
        let made = there.volume(&key).is_some() || there.is_missing(&key);
        let Some(from) = from.filter(|_| !made).map(|from| from.within(&owner.1)) else { continue };
        let origin: Key = (owner.0, from.volume.clone());
        let mut rule = |rule: String| {
            errors.push(FieldError::new(format!("/workloads/{name}/from"), rule));
        };
        if origin == key {
            rule("a volume isn't made from itself".to_owned());
            continue;
        }
        let Some(volume) = there.volume(&origin) else {
            rule(format!("there is no volume {} yet", from.volume));
            continue;
        };
        let size = match &from.snapshot {
            None => volume.size,
            Some(wanted) => {
                let leaving = state.dropping.contains(&(origin.clone(), wanted.clone()));
                let snapshots = state.seen.snapshots(&origin).iter();
                let mut snapshots = snapshots.filter(|_| !leaving);
                let Some(found) = snapshots.find(|snapshot| snapshot.name == *wanted) else {
                    rule(format!("volume {} has no snapshot `{wanted}`", from.volume));
                    continue;
                };
                found.size
            }
        };
        errors.extend(kept::unlike_origin(name, (wanted, holds), volume, size));
    }
    errors
}
