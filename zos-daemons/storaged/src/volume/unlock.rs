//! Volumes that wait for their twin's key.
//!
//! ```text
//!  locked ── unlock: judge ▸ first? its check, durable ▸ device ──▶ open ── close, a boot ──▶ locked
//! ```
//! An open device is all that says that a volume is unlocked, so a storaged that was started again asks the kernel.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zos_daemon::CallError;
use zos_types::deployment::KeyHolder;
use zos_types::volume::{VolumeCondition, VolumeKey, VolumeState};
use zos_types::{TwinId, WorkloadName};

use super::record::Record;
use super::twin_key::{Judged, TwinKey};
use super::{Entry, Held, Id, Volumes, blocking, device, not_found};

impl Volumes {
    /// What is known of a volume's key.
    pub async fn describe_key(
        &self,
        twin: TwinId,
        name: WorkloadName,
    ) -> Result<VolumeKey, CallError> {
        let id = (twin, name);
        let (record, unlocked) = {
            let table = self.table();
            let entry = table.entries.get(&id).filter(|entry| !entry.making);
            let found = entry.and_then(|entry| Some((entry.record()?.clone(), entry.unlocked)));
            found.ok_or_else(|| not_found(&id))?
        };
        if record.key == KeyHolder::Node {
            let holder = KeyHolder::Node;
            return Ok(VolumeKey { holder, salt: None, given: false, locked: false });
        }
        let TwinKey { salt, check } = self.read_twin_key(&id, &record).await?;
        let salt = Some(BASE64_STANDARD.encode(salt));
        Ok(VolumeKey { holder: KeyHolder::Twin, salt, given: check.is_some(), locked: !unlocked })
    }

    /// Opens a volume with its twin's key.
    pub async fn unlock(
        &self,
        twin: TwinId,
        name: WorkloadName,
        key: &[u8],
    ) -> Result<(), CallError> {
        let id = (twin, name);
        let mut held = self.hold(&id).await?;
        if held.record.key == KeyHolder::Node {
            let detail = format!("the node holds the key of volume {}", id.1);
            return Err(CallError::invalid(detail));
        }
        self.finish(&mut held).await?;
        let judged = self.twin_key(&held).await?.judge(&id.1.to_string(), key)?;
        if self.is_mapped(&id).await? {
            return Ok(());
        }
        self.ready_legs(&mut held).await?;
        if let Judged::First(kept) = judged {
            let (places, kept) = (self.files(&id, &held.record.legs), kept.kept()?);
            blocking("keep what tells the key of", &id, move || {
                places.iter().try_for_each(|(_, files)| files.write_key(&kept.bytes))
            })
            .await?;
        }
        let (devices, stack) = (Arc::clone(&self.devices), self.stack(&held.record));
        let key = zeroize::Zeroizing::new(key.to_vec());
        let fd = blocking("open", &id, move || devices.map(&stack, &key)).await?;
        drop(fd);
        self.note_unlocked(&id, true);
        tracing::info!("volume {} of {} is open", id.1, id.0.short());
        Ok(())
    }

    /// What is kept of the key that a volume's twin holds.
    pub(super) async fn twin_key(&self, held: &Held) -> Result<TwinKey, CallError> {
        self.read_twin_key(&held.id, &held.record).await
    }

    async fn read_twin_key(&self, id: &Id, record: &Record) -> Result<TwinKey, CallError> {
        let places = self.files(id, &record.legs);
        blocking("read what is known of the key of", id, move || {
            TwinKey::of(places.iter().map(|(_, files)| files.read_key()))
        })
        .await
    }

    async fn is_mapped(&self, id: &Id) -> Result<bool, CallError> {
        let (devices, name) = (Arc::clone(&self.devices), device::name(&id.0, &id.1));
        let mapped = blocking("find", id, move || devices.find(&name).map(|fd| fd.is_some()));
        let mapped = mapped.await?;
        self.note_unlocked(id, mapped);
        Ok(mapped)
    }

    pub(super) fn note_unlocked(&self, id: &Id, unlocked: bool) {
        if let Some(entry) = self.table().entries.get_mut(id) {
            entry.unlocked = unlocked;
        }
    }
}

/// Why a volume that waits for its key can't be used.
pub(super) fn locked(id: &Id) -> CallError {
    CallError::busy(format!("volume {}: {}", id.1, reason(&id.1)))
}

fn reason(name: &WorkloadName) -> String {
    format!("it waits for its twin's key: `zos unlock {name}`")
}

/// How a volume does, if it may wait for its key; what can't be used for another reason can't be unlocked.
pub(super) fn or_locked(
    condition: VolumeCondition,
    entry: &Entry,
    record: &Record,
) -> VolumeCondition {
    let waits = record.key == KeyHolder::Twin && !entry.unlocked;
    if !waits || condition.state == VolumeState::Broken {
        return condition;
    }
    VolumeCondition { state: VolumeState::Locked, reason: reason(&record.name) }
}
