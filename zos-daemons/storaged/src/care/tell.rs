//! What care tells: the health of disks, the condition of pools, faults with what to do.

use std::collections::BTreeMap;

use zos_types::Fault;
use zos_types::disk::{Disk, Health, Pool, PoolState, Scrub, Verdict};

use super::{Care, Drain, Ward};

/// What is shown of disks and pools.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// By the disk's name, once something is known.
    pub disks: BTreeMap<String, Health>,
    /// By the pool's id.
    pub pools: BTreeMap<String, Condition>,
}

/// How a pool does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// In a word.
    pub state: PoolState,
    /// Why.
    pub reasons: Vec<String>,
    /// The last scrub.
    pub scrub: Option<Scrub>,
}

impl Told {
    /// Adds to disks what is known of their health.
    pub fn dress_disks(&self, disks: &mut [Disk]) {
        for disk in disks {
            disk.health = self.disks.get(&disk.name).cloned();
        }
    }

    /// Adds to pools how they do. What the farmer decided stands.
    pub fn dress_pools(&self, pools: &mut [Pool]) {
        for pool in pools {
            let Some(condition) = self.pools.get(&pool.id) else { continue };
            if pool.condition == PoolState::Ready {
                pool.condition = condition.state;
            }
            let new = condition.reasons.iter().filter(|reason| !pool.reasons.contains(reason));
            let new: Vec<String> = new.cloned().collect();
            pool.reasons.extend(new);
            pool.scrub.clone_from(&condition.scrub);
        }
    }
}

impl Care {
    /// What is shown.
    pub fn told(&self) -> Told {
        let disks = self
            .patients
            .iter()
            .filter_map(|(key, patient)| Some((key.name.clone(), patient.history.health()?)));
        let pools = self.wards.iter().map(|(id, ward)| (id.clone(), self.condition(ward)));
        Told { disks: disks.collect(), pools: pools.collect() }
    }

    /// What is wrong, and what to do.
    pub fn faults(&self) -> Vec<Fault> {
        let wards = self.wards.values();
        let mut faults: Vec<Fault> = wards.flat_map(|ward| self.pool_faults(ward)).collect();
        for (key, patient) in &self.patients {
            let Some(health) = patient.history.health() else { continue };
            let (reasons, name) = (health.reasons.join(", "), &key.name);
            let pool = self.wards.values().find(|ward| &ward.key == key);
            // What it says once may be a slip.
            let verdict = match health.verdict {
                Verdict::Failing if !patient.history.is_failing() => Verdict::Warning,
                verdict => verdict,
            };
            faults.extend(match verdict {
                Verdict::Failing => Some(Fault::new(
                    format!("care.disk-failing:{name}"),
                    format!("disk {} fails: {reasons}. {}", self.describe(key), drained(pool)),
                )),
                Verdict::Warning => Some(Fault::new(
                    format!("care.disk-warns:{name}"),
                    format!(
                        "disk {} works, and warns: {reasons}. Have another one ready",
                        self.describe(key)
                    ),
                )),
                Verdict::Good | Verdict::Unknown => None,
            });
        }
        faults
    }

    fn condition(&self, ward: &Ward) -> Condition {
        let record = ward.record.as_ref();
        let scrub = record.and_then(|record| record.scrub.as_ref()).map(super::Progress::shown);
        let patient = self.patients.get(&ward.key);
        let failing = patient.filter(|patient| patient.history.is_failing());
        let (state, reasons) = if let Some(patient) = failing {
            let health = patient.history.health();
            (PoolState::AtRisk, health.map(|health| health.reasons).unwrap_or_default())
        } else if ward.pressure.is_full() {
            (PoolState::Full, vec!["its file system has no room left for itself".to_owned()])
        } else {
            (PoolState::Ready, Vec::new())
        };
        Condition { state, reasons, scrub }
    }

    fn pool_faults(&self, ward: &Ward) -> Vec<Fault> {
        let (id, disk) = (&ward.held.id, self.describe(&ward.key));
        let mut faults = Vec::new();
        let scrub = ward.record.as_ref().and_then(|record| record.scrub.as_ref());
        if let Some(scrub) = scrub.filter(|scrub| scrub.unrepaired > 0) {
            faults.push(Fault::new(
                format!("care.scrub:{id}"),
                format!(
                    "{} errors in pool {id} on disk {disk} could not be repaired (scrub of {}). Images \
                     are fetched again by themselves; if it comes back, replace the disk",
                    scrub.unrepaired,
                    scrub.began.strftime("%Y-%m-%d"),
                ),
            ));
        }
        if ward.pressure.is_full() {
            faults.push(Fault::new(
                format!("care.full:{id}"),
                format!(
                    "pool {id} on disk {disk} has almost no room left for its own file system, also \
                     without images: it takes no new volumes. Delete volumes or snapshots on it, or \
                     connect another disk"
                ),
            ));
        }
        faults
    }

    fn describe(&self, key: &crate::keeper::DiskKey) -> String {
        let disk = self.patients.get(key).map(|patient| &patient.disk);
        let about: Vec<&str> = disk
            .into_iter()
            .flat_map(|disk| [disk.model.as_deref(), disk.serial.as_deref()])
            .flatten()
            .collect();
        let name = &key.name;
        if about.is_empty() { name.clone() } else { format!("{name} ({})", about.join(", ")) }
    }
}

/// What becomes of the volumes of a failing disk.
fn drained(ward: Option<&Ward>) -> String {
    let Some(ward) = ward else { return "Replace it".to_owned() };
    let id = &ward.held.id;
    let on = format!("Pool {id} on it takes no new volumes");
    match &ward.drain {
        Drain::Waiting(left, _) if left.is_empty() => {
            format!("{on}, and those that it had are on other disks now. Replace the disk")
        }
        Drain::Waiting(left, _) => format!(
            "{on}; these could not be moved: {}. Connect another disk, or free room",
            left.join("; ")
        ),
        Drain::Moving | Drain::Idle => {
            format!("{on}, and those that it has are being moved to other disks")
        }
    }
}
