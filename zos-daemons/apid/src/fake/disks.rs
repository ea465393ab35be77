//! The fake's disks: one with somebody's photographs, one with a pool. A plan's hash is over what is on the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use zos_api::local::CallError;
use zos_types::Bytes;
use zos_types::deployment::Class;
use zos_types::disk::{Disk, DiskPlan, Pool, PoolState, Role, Scrub, Transport};
use zos_types::unit::GIB;

use super::FakeNode;
use crate::backend::{Answer, DiskChange, Disks};

/// The disks, each with how often something on it changed, and the pools that were scrubbed.
#[derive(Debug)]
pub(super) struct FakeDisks(Mutex<Vec<(Disk, u32)>>, Mutex<Vec<String>>);

impl Default for FakeDisks {
    fn default() -> Self {
        let sda = disk("sda", Role::Foreign, "it holds ext2/3/4");
        let pool = Disk {
            pool: Some("00000000000000aa".into()),
            ..disk("nvme0n1", Role::Ours, "pool 00000000000000aa")
        };
        Self(Mutex::new(vec![(pool, 0), (sda, 0)]), Mutex::default())
    }
}

fn disk(name: &str, role: Role, reason: &str) -> Disk {
    Disk {
        name: name.into(),
        id: format!("wwn-{name}"),
        model: "Fake Disk".into(),
        serial: format!("FAKE-{name}"),
        transport: Transport::Sata,
        size: Bytes(100 * GIB),
        logical_block: 512,
        physical_block: 4096,
        class: Class::Ssd,
        health: None,
        partitions: Vec::new(),
        signatures: Vec::new(),
        role,
        reason: reason.into(),
        pool: None,
    }
}

impl FakeDisks {
    fn all(&self) -> MutexGuard<'_, Vec<(Disk, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, name: &str, change: DiskChange) -> Result<DiskPlan, CallError> {
        let all = self.all();
        let found = all.iter().find(|(disk, _)| disk.name == name || disk.id == name);
        let (disk, changes) =
            found.ok_or_else(|| CallError::not_found(format!("there is no disk {name}")))?;
        let refused = |detail: String| Err(CallError::Conflict { detail, next_version: None });
        let (does, loses) = match (change, disk.role) {
            (DiskChange::Adopt, Role::Foreign | Role::Empty) => {
                ("the whole disk becomes a pool", vec!["a Linux file system “photos”".to_owned()])
            }
            (DiskChange::Release, Role::Ours) => ("the disk is wiped", Vec::new()),
            _ => return refused(format!("{name}: {}", disk.reason)),
        };
        let hash = format!("{changes:032x}");
        Ok(DiskPlan { disk: disk.clone(), does: vec![does.into()], loses, hash })
    }

    fn confirm(&self, name: &str, change: DiskChange, plan: &str) -> Result<(), CallError> {
        let now = self.plan(name, change)?;
        if now.hash != plan {
            let detail = format!("{name} has changed since that plan: {}", now.hash);
            return Err(CallError::Conflict { detail, next_version: None });
        }
        let mut all = self.all();
        for (disk, changes) in all.iter_mut().filter(|(disk, _)| disk.name == now.disk.name) {
            (disk.role, disk.reason) = match change {
                DiskChange::Adopt => (Role::Ours, "pool 00000000000000bb".into()),
                DiskChange::Release => (Role::Leaving, "it is being emptied".into()),
            };
            *changes += 1;
        }
        Ok(())
    }
}

impl FakeNode {
    /// Changes something on a disk.
    pub fn touch_disk(&self, name: &str) {
        let mut all = self.disks.all();
        all.iter_mut().filter(|(disk, _)| disk.name == name).for_each(|(_, changes)| *changes += 1);
    }

    /// What a disk is to the node from now on.
    pub fn set_disk(&self, name: &str, role: Role, reason: &str) {
        for (disk, _) in self.disks.all().iter_mut().filter(|(disk, _)| disk.name == name) {
            (disk.role, disk.reason) = (role, reason.to_owned());
        }
    }
}

impl Disks for FakeNode {
    fn disks(&self) -> Answer<'_, Vec<Disk>> {
        Box::pin(async { Ok(self.disks.all().iter().map(|(disk, _)| disk.clone()).collect()) })
    }

    fn pools(&self) -> Answer<'_, Vec<Pool>> {
        let scrubbed = self.disks.1.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pools = move |disks: &FakeDisks| {
            let all = disks.all();
            let held = all.iter().filter_map(|(disk, _)| Some((disk, disk.pool.clone()?)));
            held.map(|(disk, id)| Pool {
                disk: disk.name.clone(),
                class: disk.class,
                size: Bytes(95 * GIB),
                free: Bytes(90 * GIB),
                state: true,
                condition: PoolState::Ready,
                reasons: Vec::new(),
                id: id.clone(),
                scrub: scrubbed.contains(&id).then_some(Scrub {
                    began: Timestamp::UNIX_EPOCH,
                    ended: None,
                    read: Bytes(GIB),
                    repaired: 0,
                    unrepaired: 0,
                }),
            })
            .collect()
        };
        Box::pin(async move { Ok(pools(&self.disks)) })
    }

    fn scrub(&self, pool: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let known = self.disks.all().iter().any(|(disk, _)| disk.pool.as_ref() == Some(&pool));
            if !known {
                return Err(CallError::not_found(format!("there is no pool {pool}")));
            }
            self.disks.1.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
            Ok(())
        })
    }

    fn plan(&self, disk: String, change: DiskChange) -> Answer<'_, DiskPlan> {
        Box::pin(async move { self.disks.plan(&disk, change) })
    }

    fn confirm(&self, disk: String, change: DiskChange, plan: String) -> Answer<'_, ()> {
        let disks = Arc::clone(&self.disks);
        Box::pin(async move { disks.confirm(&disk, change, &plan) })
    }
}
