//! What the keeper tells: disks with their roles and reasons, and faults.

use zos_host::block::Bus;
use zos_types::disk::{Disk, Partition, Role, Transport};
use zos_types::{Bytes, Fault};

use super::{Entry, Keeper, Look, Phase, Work};
use crate::disk::header::{Header, Stage};
use crate::disk::judge::Verdict;
use crate::pool;

impl Keeper {
    /// Every disk, by name.
    pub fn disks(&self) -> Vec<Disk> {
        self.entries.values().map(|entry| self.disk_report(entry)).collect()
    }

    /// What is wrong.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> =
            self.entries.values().filter_map(|entry| self.disk_fault(entry)).collect();
        for (pool, disk) in &self.gone {
            faults.push(Fault::new(
                format!("storage.disk-gone:{disk}"),
                format!("the disk went away while pool {pool} on it was in use; connect it again"),
            ));
        }
        faults.extend(self.copy_faults());
        let settled = self.settled.as_ref();
        if let (Phase::Settled { pool: None }, Some(settled)) = (&self.phase, settled) {
            faults.push(match &settled.identity_refusal {
                Some(refusal) => Fault::new(
                    "storage.state-in-memory",
                    format!("the node's state is lost with the next boot: {refusal}"),
                ),
                None => Fault::new("storage.no-disk", self.no_disk()),
            });
        }
        faults
    }

    fn no_disk(&self) -> String {
        let lost = "no disk keeps the node's state, which is lost with the next boot";
        if !self.settings.adopt {
            format!("{lost}: zos.disk.adopt=none forbids to take an empty one")
        } else if self.entries.is_empty() {
            format!("{lost}: there is no disk at all")
        } else if self.entries.values().filter_map(Entry::header).any(|header| header.state) {
            format!("{lost}; the disk that was adopted keeps it from the next boot on: boot again")
        } else {
            format!(
                "{lost}: none is empty; connect an empty one and boot again, or give one to the node with \
                 `zos disk adopt`"
            )
        }
    }

    pub(super) fn disk_report(&self, entry: &Entry) -> Disk {
        let (role, reason) = self.role(entry);
        let disk = &entry.disk;
        Disk {
            name: disk.name.clone(),
            id: disk.id.clone(),
            model: disk.model.clone().unwrap_or_default(),
            serial: disk.serial.clone().unwrap_or_default(),
            transport: transport(disk.bus),
            size: Bytes(disk.size),
            logical_block: disk.logical_block,
            physical_block: disk.physical_block,
            class: pool::class(disk),
            health: None,
            partitions: match &entry.marks {
                Look::Done(marks) => marks.partitions.iter().map(partition).collect(),
                _ => disk.partitions.iter().map(|at| partition(&(at.clone(), vec![]))).collect(),
            },
            signatures: match &entry.marks {
                Look::Done(marks) => marks.whole.clone(),
                _ => Vec::new(),
            },
            pool: match (&entry.verdict, role) {
                (Some(Verdict::Ours(header)), Role::Ours | Role::Leaving) => {
                    Some(header.pool.clone())
                }
                _ => None,
            },
            role,
            reason,
        }
    }

    fn role(&self, entry: &Entry) -> (Role, String) {
        if entry.boot_medium {
            return (Role::BootMedium, "the node was booted from it".to_owned());
        }
        match (&entry.verdict, &entry.work) {
            (_, Work::Adopting) => (Role::Empty, "it is being made a pool".to_owned()),
            (_, Work::Wiping) => (Role::Leaving, format!("it is being wiped{}", entry.far())),
            (None, _) => (Role::Foreign, "it is being read".to_owned()),
            (Some(Verdict::Ours(header)), work) => self.pool_role(entry, header, work),
            (Some(Verdict::Unfinished(header)), Work::None)
                if header.over.is_some() && !self.may_adopt(entry) =>
            {
                let begun = "a node was given it, and was cut short in making it a pool";
                (Role::Foreign, begun.to_owned())
            }
            (Some(Verdict::Empty | Verdict::Unfinished(_)), _) => (Role::Empty, self.waits(entry)),
            (Some(Verdict::Wiping(header)), work) => {
                let why = match work {
                    Work::Failed(what, error) => format!(", which failed to {what}: {error}"),
                    _ => ", by the node that had it".to_owned(),
                };
                (Role::Leaving, format!("pool {} was being wiped{why}", header.pool))
            }
            (Some(Verdict::Released(header)), work) => {
                let pool = &header.pool;
                let name = &entry.key.name;
                let failed = match work {
                    Work::Failed(what, error) => format!("; it failed to {what}: {error}"),
                    _ => String::new(),
                };
                let free = "it can be taken out, and is not taken again unasked";
                let again = format!("`zos disk adopt {name}` takes it");
                (Role::Empty, format!("released from pool {pool}: {free}; {again}{failed}"))
            }
            (Some(Verdict::Blank), _) => match entry.misfit() {
                Some(misfit) => (Role::Empty, misfit),
                None if !self.settings.adopt => (Role::Empty, self.waits(entry)),
                None => (Role::Empty, "its ends are empty; it is being looked through".to_owned()),
            },
            (Some(Verdict::Trace(what)), _) => (Role::Foreign, what.clone()),
            (Some(Verdict::Foreign(what)), _) => {
                (Role::Foreign, format!("it holds {}", entry.holdings(what)))
            }
            (Some(Verdict::Unreadable(error)), _) => {
                (Role::Failing, format!("it can't be read: {error}"))
            }
        }
    }

    fn pool_role(&self, entry: &Entry, header: &Header, work: &Work) -> (Role, String) {
        let pool = &header.pool;
        if self.is_other(entry, header) {
            let owner = header.owner.map_or("a node unknown".to_owned(), |o| format!("node {o}"));
            return (Role::OtherNode, format!("pool {pool} of {owner}"));
        }
        let state = if header.state { " with the node's state" } else { "" };
        if let (Stage::Leaving, Work::Open { .. }) = (header.stage, work) {
            return (Role::Leaving, format!("pool {pool} is being emptied{}", entry.far()));
        }
        let in_memory = matches!(self.phase, Phase::Settled { pool: None });
        let reason = match work {
            Work::Open { .. } if in_memory && header.owner.is_none() => {
                format!("pool {pool}{state}, in use from the next boot on: boot the node again")
            }
            Work::Open { .. } => format!("pool {pool}{state}"),
            Work::Failed(what, error) => format!("pool {pool}, which failed to {what}: {error}"),
            Work::Opening | Work::Owning => format!("pool {pool} is being opened"),
            _ => format!("pool {pool} waits for the node's identity"),
        };
        (Role::Ours, reason)
    }

    /// Whether a pool belongs to another node than this one, as far as is known.
    pub(super) fn is_other(&self, entry: &Entry, header: &Header) -> bool {
        let Phase::Settled { pool: state_pool } = &self.phase else { return false };
        let is_state = state_pool.as_ref() == Some(&header.pool) || self.is_copy(&header.pool);
        match (header.owner, self.node) {
            (Some(owner), Some((node, _))) => owner != node,
            // A state whose node is unknown, beside the state in use.
            (None, _) => header.state && !is_state && !matches!(entry.work, Work::Open { .. }),
            (Some(_), None) => false,
        }
    }

    fn waits(&self, entry: &Entry) -> String {
        if let Work::Failed(what, error) = &entry.work {
            return format!("it failed to {what}: {error}");
        }
        match (entry.misfit(), &self.phase) {
            (Some(misfit), _) => misfit,
            _ if !self.settings.adopt => "zos.disk.adopt=none forbids to take it".to_owned(),
            (_, Phase::Settled { pool: None }) => {
                "it is taken at the next boot: the state lies in memory now".to_owned()
            }
            (_, Phase::Settled { .. }) => "it waits for the node's identity".to_owned(),
            _ => "it waits for the disks to settle".to_owned(),
        }
    }

    fn disk_fault(&self, entry: &Entry) -> Option<Fault> {
        let name = &entry.key.name;
        let fault =
            |what: &str, detail: String| Some(Fault::new(format!("storage.{what}:{name}"), detail));
        if entry.boot_medium {
            return None;
        }
        if let Work::Failed(what, error) = &entry.work {
            return fault(&format!("{what}-failed"), format!("the disk is left alone: {error}"));
        }
        match &entry.verdict {
            Some(Verdict::Unreadable(error)) => fault(
                "unreadable",
                format!("reading it failed: {error}; it is tried again, and never written to"),
            ),
            Some(Verdict::Foreign(what)) => fault(
                "foreign-disk",
                format!(
                    "it holds {} and is left alone; `zos disk adopt {name}` shows what would be lost if the \
                     node took it",
                    entry.holdings(what)
                ),
            ),
            Some(Verdict::Trace(what)) => {
                fault("pool-unusable", format!("it is left alone: {what}"))
            }
            Some(Verdict::Ours(header)) => self.pool_fault(entry, header),
            Some(Verdict::Empty) if matches!(self.phase, Phase::Settled { pool: None }) => {
                fault("empty-disk-waits", self.waits(entry))
            }
            _ => None,
        }
    }

    fn pool_fault(&self, entry: &Entry, header: &Header) -> Option<Fault> {
        let name = &entry.key.name;
        let others: Vec<&str> = self
            .entries
            .values()
            .filter(|other| other.key != entry.key && other.holds(&header.pool))
            .map(|other| &*other.key.name)
            .collect();
        if !others.is_empty() {
            return Some(Fault::new(
                format!("storage.duplicate-pool:{name}"),
                format!(
                    "pool {} is also on {}; remove the copy and boot again",
                    header.pool,
                    others.join(", ")
                ),
            ));
        }
        if !self.is_other(entry, header) {
            return None;
        }
        let (here, go_on) = match self.node {
            Some((node, false)) => {
                (format!("this node is {node}"), format!("; to go on as {node}, remove the disk"))
            }
            Some((node, true)) => (format!("this node is {node} for this boot"), String::new()),
            None => ("this node is not known yet".to_owned(), String::new()),
        };
        let detail = match header.owner {
            Some(owner) => format!(
                "the disk belongs to node {owner}, and {here}. Nothing on it is used or changed. \
                 To be {owner} again, set zos.identity={owner} and boot{go_on}"
            ),
            None => format!(
                "the disk holds the state of a node that is not known, and {here}. Nothing on it \
                 is used or changed; remove it, or boot with it alone"
            ),
        };
        Some(Fault::new(format!("storage.identity-conflict:{name}"), detail))
    }
}

impl Entry {
    /// How far it is emptied or wiped.
    fn far(&self) -> String {
        if self.drain.told.is_empty() { String::new() } else { format!(": {}", self.drain.told) }
    }
}

fn transport(bus: Bus) -> Transport {
    match bus {
        Bus::Nvme => Transport::Nvme,
        Bus::Ata => Transport::Sata,
        Bus::Scsi => Transport::Sas,
        Bus::Usb => Transport::Usb,
        Bus::Virtio => Transport::Virtio,
        Bus::Mmc => Transport::Mmc,
        Bus::Other => Transport::Other,
    }
}

impl Entry {
    /// What is on a foreign disk, with what its partitions hold once they were looked at.
    fn holdings(&self, judged: &str) -> String {
        match &self.marks {
            Look::Done(marks) if !marks.partitions.is_empty() => marks.in_words(),
            _ => judged.to_owned(),
        }
    }
}

fn partition((partition, holds): &(zos_host::block::Partition, Vec<String>)) -> Partition {
    Partition {
        number: partition.number,
        start: partition.start,
        size: Bytes(partition.size),
        label: partition.label.clone(),
        holds: holds.clone(),
    }
}
