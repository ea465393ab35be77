//! Admission: whether the node has room for a deployment. Pure.
//!
//! | Resource | Room |
//! |----------|------|
//! | cru      | 4 virtual CPUs for each thread; one VM at most all threads |
//! | mru      | what is offered, once; a VM is charged for its VMM too ([`Vm::charged`]) |
//! | sru, hru | what is offered, once; and a volume lies on one pool |
//!
//! A resource of which a new version takes no more than the old one is always admitted: a node
//! that has shrunk must not keep a twin from taking less.

use zos_types::capacity::Resources;
use zos_types::deployment::{Class, Vm, Volume};
use zos_types::{Bytes, Capacity, Deployment, FieldError, Name, Workload};

/// Virtual CPUs for each thread.
pub const CPU_OVERCOMMIT: u64 = 4;

/// What is taken already, without the deployment that is judged.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ledger {
    /// What all other deployments are charged.
    pub others: Resources,
    /// What the version before this one is charged.
    pub own: Resources,
    /// Volumes that this deployment has already.
    pub volumes: Vec<Name>,
    /// Each pool's class, and what may still be given to volumes there.
    pub pools: Vec<(Class, Bytes)>,
}

/// A deployment that has room. Holding one proves that nothing of the node is given twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// What it is charged.
    pub charged: Resources,
}

/// A deployment that has none, and where it is too large.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has no room: {}", list(.0))]
pub struct Rejection(pub Vec<FieldError>);

fn list(errors: &[FieldError]) -> String {
    let errors: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.pointer, e.rule)).collect();
    errors.join("; ")
}

/// Judges a deployment.
pub fn admit(
    capacity: &Capacity,
    ledger: &Ledger,
    deployment: &Deployment,
) -> Result<Admission, Rejection> {
    let mut room = Room::new(capacity, ledger, &deployment.charged());
    for (name, workload) in &deployment.workloads {
        match workload {
            Workload::Vm(vm) => room.take_vm(name, vm, capacity.cru.offered()),
            Workload::Volume(volume) | Workload::Share(volume) => {
                room.take_volume(name, volume, ledger.volumes.contains(name));
            }
        }
    }
    if room.errors.is_empty() {
        Ok(Admission { charged: deployment.charged() })
    } else {
        Err(Rejection(room.errors))
    }
}

/// What is left while one workload after the other takes its part; none: there is no need to look.
struct Room {
    cru: Option<u64>,
    mru: Option<u64>,
    sru: Option<u64>,
    hru: Option<u64>,
    pools: Vec<(Class, Bytes)>,
    errors: Vec<FieldError>,
}

impl Room {
    fn new(capacity: &Capacity, ledger: &Ledger, wanted: &Resources) -> Self {
        let (others, own) = (&ledger.others, &ledger.own);
        let left = |offered: u64, others: u64, own: u64, wanted: u64| {
            (wanted > own).then(|| offered.saturating_sub(others))
        };
        let cru = capacity.cru.offered().saturating_mul(CPU_OVERCOMMIT);
        Self {
            cru: left(cru, others.cru, own.cru, wanted.cru),
            mru: left(capacity.mru.offered(), others.mru.0, own.mru.0, wanted.mru.0),
            sru: left(capacity.sru.offered(), others.sru.0, own.sru.0, wanted.sru.0),
            hru: left(capacity.hru.offered(), others.hru.0, own.hru.0, wanted.hru.0),
            pools: ledger.pools.clone(),
            errors: Vec::new(),
        }
    }

    fn refuse(&mut self, name: &Name, field: &str, rule: String) {
        self.errors.push(FieldError::new(format!("/workloads/{name}/{field}"), rule));
    }

    fn take_vm(&mut self, name: &Name, vm: &Vm, threads: u64) {
        let cpu = u64::from(vm.cpu);
        if self.cru.is_some() && cpu > threads {
            self.refuse(name, "cpu", format!("at most {threads}, the node's threads"));
        } else if let Err(left) = take(&mut self.cru, cpu) {
            self.refuse(name, "cpu", format!("at most {left} are left on the node"));
        }
        let charged = vm.charged();
        if let Err(left) = take(&mut self.mru, charged.0) {
            let beside = charged - vm.memory;
            let left = Bytes(left);
            self.refuse(
                name,
                "memory",
                format!(
                    "{left} are left on the node; {charged} are needed, {beside} of them to run it"
                ),
            );
        }
    }

    fn take_volume(&mut self, name: &Name, volume: &Volume, exists: bool) {
        let (class, size) = (volume.class, volume.size);
        let room = match class {
            Class::Ssd => &mut self.sru,
            Class::Hdd => &mut self.hru,
        };
        if let Err(left) = take(room, size.0) {
            let left = Bytes(left);
            return self.refuse(name, "size", format!("{left} of {class} are left on the node"));
        }
        if exists {
            return;
        }
        let pools = self.pools.iter_mut().filter(|(of, _)| *of == class);
        match pools.max_by_key(|(_, free)| *free) {
            Some((_, free)) if *free >= size => *free = *free - size,
            Some(&mut (_, free)) => {
                self.refuse(
                    name,
                    "size",
                    format!(
                        "a volume lies on one disk, and {free} are left on the emptiest {class}"
                    ),
                );
            }
            None => self.refuse(name, "class", format!("the node has no {class}")),
        }
    }
}

/// Takes an amount of what is left, or tells how little that is.
fn take(room: &mut Option<u64>, amount: u64) -> Result<(), u64> {
    if let Some(left) = room {
        *left = left.checked_sub(amount).ok_or(*left)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
