//! Keys that twins hand over, with the real sealing: what storaged and identityd do, over a map.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use zos_api::handover::{self, KEY, Opener, SALT};
use zos_api::local::CallError;
use zos_api::local::identity::PublicSealingKey;
use zos_api::local::storage::{DescribeKey, UnlockVolume};
use zos_types::deployment::KeyHolder;
use zos_types::status::{DeploymentStatus, State};
use zos_types::volume::VolumeKey;
use zos_types::{Id, TwinId, Workload, WorkloadName};

use super::FakeNode;
use crate::backend::{Answer, Keys};

/// The keys of all volumes, by whose they are.
#[derive(Debug)]
pub(super) struct FakeKeys {
    root: SigningKey,
    opener: Opener,
    given: Mutex<BTreeMap<(TwinId, WorkloadName), Given>>,
}

/// A key that was given.
#[derive(Clone, Debug)]
struct Given {
    key: Vec<u8>,
    /// Whether it is in use.
    open: bool,
}

impl FakeKeys {
    pub(super) fn new(root: &SigningKey) -> Self {
        Self { root: root.clone(), opener: Opener::draw(root), given: Mutex::default() }
    }

    fn given(&self, twin: TwinId, name: &WorkloadName) -> Option<Given> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(&(twin, name.clone())).cloned()
    }

    /// A deployment with its locked volumes, and the VMs that wait for them.
    pub(super) fn shown(&self, twin: TwinId, status: &DeploymentStatus) -> DeploymentStatus {
        let mut status = status.clone();
        let locked = |workload: &zos_types::Name| {
            let held = status.deployment.workloads.get(workload);
            let by_twin = matches!(held, Some(Workload::Volume(v)) if v.key == KeyHolder::Twin);
            let name = WorkloadName { deployment: status.name.clone(), workload: workload.clone() };
            by_twin && self.given(twin, &name).is_none_or(|given| !given.open)
        };
        for (name, workload) in &mut status.workloads {
            let waits = match status.deployment.workloads.get(name) {
                Some(Workload::Vm(vm)) => vm.disks.iter().any(|disk| locked(&disk.volume)),
                _ => locked(name),
            };
            if waits {
                workload.state = State::Locked { reason: "it waits for its key".to_owned() };
            }
        }
        status
    }
}

impl FakeNode {
    /// Locks all volumes, as a reboot does.
    pub fn lock_volumes(&self) {
        let mut given = self.keys.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.values_mut().for_each(|given| given.open = false);
    }

    fn held_by_twin(&self, twin: TwinId, name: &WorkloadName) -> Result<bool, CallError> {
        let absent = || CallError::not_found(format!("no volume {name} of {twin}"));
        let status = self.find(twin, &name.deployment).map_err(|_| absent())?;
        match status.deployment.workloads.get(&name.workload) {
            Some(Workload::Volume(volume) | Workload::Share(volume)) => {
                Ok(volume.key == KeyHolder::Twin)
            }
            _ => Err(absent()),
        }
    }

    fn unlock_now(&self, unlock: &UnlockVolume) -> Result<(), CallError> {
        let UnlockVolume { twin, name, sealed } = unlock;
        if !self.held_by_twin(*twin, name)? {
            return Err(CallError::invalid("the node holds its key"));
        }
        let sealed = STANDARD.decode(sealed).map_err(|_| CallError::invalid("not base64"))?;
        let context = handover::context(&Id::from(&self.keys.root.verifying_key()), twin, name);
        let key = self.keys.opener.open(&context, &sealed);
        let key = key.map_err(|error| CallError::invalid(error.to_string()))?;
        if key.len() != KEY {
            return Err(CallError::invalid("a key has 64 bytes"));
        }
        let mut given = self.keys.given.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || Given { key: key.to_vec(), open: true };
        let kept = given.entry((*twin, name.clone())).or_insert_with(first);
        if kept.key[..] != key[..] {
            let detail = format!("it is not the key of volume {name}");
            return Err(CallError::Conflict { detail, next_version: None });
        }
        kept.open = true;
        Ok(())
    }
}

impl Keys for FakeNode {
    fn sealing_key(&self) -> Answer<'_, PublicSealingKey> {
        let Opener { public, signature, .. } = &self.keys.opener;
        let (key, signature) = (STANDARD.encode(public), STANDARD.encode(signature));
        Box::pin(async { Ok(PublicSealingKey { key, signature }) })
    }

    fn describe(&self, describe: DescribeKey) -> Answer<'_, VolumeKey> {
        Box::pin(async move {
            let DescribeKey { twin, name } = describe;
            if !self.held_by_twin(twin, &name)? {
                let holder = KeyHolder::Node;
                return Ok(VolumeKey { holder, salt: None, given: false, locked: false });
            }
            let given = self.keys.given(twin, &name);
            let locked = given.as_ref().is_none_or(|given| !given.open);
            let salt = Some(STANDARD.encode([7; SALT]));
            Ok(VolumeKey { holder: KeyHolder::Twin, salt, given: given.is_some(), locked })
        })
    }

    fn unlock(&self, unlock: UnlockVolume) -> Answer<'_, ()> {
        Box::pin(async move { self.unlock_now(&unlock) })
    }
}
