//! Admission: whether the node has room for a deployment. Pure.
//!
//! | Resource | Room |
//! |----------|------|
//! | cru      | 4 virtual CPUs for each thread; one VM at most all threads |
//! | mru      | what is offered, once; a VM is charged for its VMM too ([`Vm::charged`]) |
//! | sru, hru | what storaged can still give, once, whatever it makes first ([`Space`]) |
//!
//! A resource of which a new version takes no more than the old one is always admitted: a node
//! that has shrunk must not keep a twin from taking less.

use std::collections::BTreeMap;

use zos_types::capacity::Resources;
use zos_types::deployment::Vm;
use zos_types::{Bytes, Capacity, Deployment, FieldError, Name, Workload};

use crate::space::{Need, Space};

/// Virtual CPUs for each thread.
pub const CPU_OVERCOMMIT: u64 = 4;

/// What is taken already, without the deployment that is judged.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    /// What all other deployments are charged.
    pub others: Resources,
    /// What the version before this one is charged.
    pub own: Resources,
    /// The pools, with what is promised of them to others.
    pub space: Space,
    /// What this deployment's volumes need of them: those that are new, and those that grow.
    pub needs: BTreeMap<Name, Need>,
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
        if let Workload::Vm(vm) = workload {
            room.take_vm(name, vm, capacity.cru.offered());
        }
        if let Some(need) = ledger.needs.get(name) {
            room.take_space(name, need);
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
    space: Space,
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
            space: ledger.space.clone(),
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

    fn take_space(&mut self, name: &Name, need: &Need) {
        if let Err(missing) = self.space.promise(need.clone()) {
            let field = if self.space.has(need.class) { "size" } else { "class" };
            self.refuse(name, field, missing);
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
