//! Doing one step: a call to who has the hands.

use std::time::Duration;

use zos_api::local::storage::{CreateVolume, DeleteVolume, GrowVolume, RestoreSnapshot, Volume};
use zos_api::local::vm::{Ensure, Remove};
use zos_daemon::store::StoreError;
use zos_daemon::{Bus, CallError};
use zos_types::deployment::Content;

use crate::book::Book;
use crate::plan::Step;

/// How long a step may take before it is tried anew: setting aside a large volume on a slow disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// Does a step; gives the volume that it made or changed.
pub async fn perform(bus: &Bus, step: &Step) -> Result<Option<Volume>, CallError> {
    let bus = bus.within(PATIENCE);
    match step.clone() {
        Step::RemoveVm((twin, name)) => bus.call(Remove { twin, name }).await.map(|_| None),
        Step::DeleteVolume((twin, name)) => {
            bus.call(DeleteVolume { twin, name }).await.map(|_| None)
        }
        Step::EnsureVm((twin, name), vm) => bus.call(Ensure { twin, name, vm }).await.map(|_| None),
        Step::CreateVolume((twin, name), volume, holds) => {
            let (size, class) = (volume.size, volume.class);
            let (integrity, key) = (volume.integrity, volume.key);
            let from = volume.from.map(|from| from.within(&name.deployment));
            let create = CreateVolume { twin, name, size, class, integrity, key, from, holds };
            bus.call(create).await.map(|made| Some(made.volume))
        }
        Step::GrowVolume((twin, name), size) => {
            bus.call(GrowVolume { twin, name, size }).await.map(|grown| Some(grown.volume))
        }
        Step::RestoreSnapshot((twin, name), snapshot) => {
            bus.call(RestoreSnapshot { twin, name, snapshot }).await.map(|_| None)
        }
    }
}

/// Notes in the book that a step was done.
pub fn note(book: &mut Book, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::CreateVolume(key, _, _) => book.note_made(std::slice::from_ref(key)),
        Step::DeleteVolume(key) => book.note_removed(key),
        Step::RestoreSnapshot(key, snapshot) => book.note_restored(key, snapshot, None),
        Step::RemoveVm(_) | Step::GrowVolume(..) | Step::EnsureVm(..) => Ok(()),
    }
}

/// Notes that a step can't be done, if asking again is no use: what it was to bring back is kept as it is.
pub fn give_up(book: &mut Book, step: &Step, error: &CallError) -> Result<(), StoreError> {
    match (step, error) {
        (
            Step::RestoreSnapshot(key, snapshot),
            CallError::NotFound { detail } | CallError::Invalid { detail, .. },
        ) => book.note_restored(key, snapshot, Some(detail.clone())),
        _ => Ok(()),
    }
}

/// A step in words, for the log.
pub fn words(step: &Step) -> String {
    let (twin, name) = step.key();
    let verb = match step {
        Step::RemoveVm(_) => "remove VM",
        Step::DeleteVolume(_) => "delete volume",
        Step::CreateVolume(_, _, Content::Disk) => "create volume",
        Step::CreateVolume(_, _, Content::Share) => "create share",
        Step::GrowVolume(..) => "grow volume",
        Step::RestoreSnapshot(..) => "set back volume",
        Step::EnsureVm(..) => "ensure VM",
    };
    format!("{verb} {name} of {}", twin.short())
}
