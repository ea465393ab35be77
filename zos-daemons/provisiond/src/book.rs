//! The book of deployments: what twins want, durable before it is acknowledged.
//!
//! ```text
//!  table          key                      value
//!  deployments    <twin>/<name>            highest version, what is wanted now (body, evidence), or
//!                                          the evidence of its deletion
//!  made           <twin>/<name>/<volume>   once made: never made anew over its data
//!  removals       <twin>/<name>/<volume>   taken away by its twin, to be destroyed
//!  restores       <twin>/<name>/<volume>   the snapshot that it is to be set back to, and the evidence; or
//!                                          why it could not be
//! ```
//! A row of `deployments` is never deleted, so a version never returns.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use zos_api::local::provision::Evidence;
use zos_daemon::store::{Copies, Migrations, Store, StoreError};
use zos_types::capacity::Resources;
use zos_types::{Deployment, Fault, Name, TwinId, WorkloadName};

use crate::plan::{Desired, Key};

const DEPLOYMENTS: &str = "deployments";
const MADE: &str = "made";
const REMOVALS: &str = "removals";
const RESTORES: &str = "restores";
/// None yet: what is written is schema 1.
const MIGRATIONS: Migrations = &[];
/// What the book holds at most. Keys are free, so the node as a whole has limits too.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// Names that one twin has used, deletions included: each keeps its version for good.
    pub const TWIN_NAMES: usize = 1024;
    /// Names that all twins have used.
    pub const NODE_NAMES: usize = 65_536;
    /// Bytes of one twin's bodies.
    pub const TWIN_BYTES: usize = 4 << 20;
    /// Bytes of all bodies.
    pub const NODE_BYTES: usize = 32 << 20;
}

/// Whose deployment, and which.
pub type Owner = (TwinId, Name);

/// The version rule's word on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The name is not in use: it was never, or its deployment was deleted.
    Create,
    /// It replaces the version before it.
    Update,
    /// It is what is wanted already, byte for byte.
    Same,
    /// This version would be taken.
    Conflict(u64),
}

/// A name that was used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The highest version ever taken.
    pub highest: u64,
    /// What is wanted; none: it was deleted.
    pub current: Option<Current>,
}

/// What is wanted under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Current {
    /// The request's body, as signed.
    pub body: Vec<u8>,
    /// What it says.
    pub deployment: Deployment,
}

#[derive(Serialize, Deserialize)]
struct Row {
    highest: u64,
    /// The body in base64; none: deleted.
    body: Option<String>,
    /// The twin's signature, over the body or over the deletion.
    evidence: Evidence,
}

/// A twin's wish to have a volume set back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// To this snapshot.
    pub snapshot: Name,
    /// Why it could not be, and is not tried again.
    pub error: Option<String>,
    /// The twin's signature over it.
    evidence: Evidence,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    store: Store,
    entries: BTreeMap<Owner, Entry>,
    made: BTreeSet<Key>,
    removals: BTreeSet<Key>,
    restores: BTreeMap<Key, Restore>,
}

impl Book {
    /// Opens the book, or begins one. A row that this version can't read is a fault and is left as
    /// it is; what it holds is not destroyed.
    pub fn open(copies: impl Into<Copies>) -> Result<(Self, Vec<Fault>), StoreError> {
        let store = Store::open(copies, "provision", MIGRATIONS)?;
        let (mut entries, mut faults) = (BTreeMap::new(), Vec::new());
        for kept in store.repaired() {
            let detail = format!(
                "a copy of the book of deployments could not be read and was renewed from the other; \
                 what lay there is kept as {}",
                kept.display()
            );
            faults.push(Fault::new(format!("provision.unreadable:{}", kept.display()), detail));
        }
        for (key, row) in store.list::<Row>(DEPLOYMENTS)? {
            match (owner(&key), row.body.as_deref().map(read).transpose()) {
                (Some(owner), Ok(current)) => {
                    entries.insert(owner, Entry { highest: row.highest, current });
                }
                (owner, _) => {
                    let detail = format!(
                        "deployment {key} can't be read; it is left as it is, and does not run"
                    );
                    faults.push(Fault::new(format!("provision.unreadable:{key}"), detail));
                    if let Some(owner) = owner {
                        entries.insert(owner, Entry { highest: row.highest, current: None });
                    }
                }
            }
        }
        let keys = |table| -> Result<BTreeSet<Key>, StoreError> {
            Ok(store.list::<()>(table)?.into_iter().filter_map(|(text, ())| key(&text)).collect())
        };
        let (made, removals) = (keys(MADE)?, keys(REMOVALS)?);
        let restores = store.list::<Restore>(RESTORES)?.into_iter();
        let restores = restores.filter_map(|(text, restore)| Some((key(&text)?, restore)));
        let restores = restores.collect();
        Ok((Self { store, entries, made, removals, restores }, faults))
    }

    /// The store, for what keeps it in each of the state's places.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// A name that was used.
    pub fn get(&self, owner: &Owner) -> Option<&Entry> {
        self.entries.get(owner)
    }

    /// What is wanted, deployment by deployment.
    pub fn current(&self) -> impl Iterator<Item = (&Owner, &Deployment)> {
        let current =
            |(owner, entry)| Some((owner, &Option::as_ref(Entry::current(entry))?.deployment));
        self.entries.iter().filter_map(current)
    }

    /// The version rule: 1 for a name never used, else the highest ever taken + 1.
    pub fn judge(&self, owner: &Owner, version: u64, body: &[u8]) -> Verdict {
        let Some(entry) = self.entries.get(owner) else {
            return if version == 1 { Verdict::Create } else { Verdict::Conflict(1) };
        };
        let next = entry.highest.saturating_add(1);
        match &entry.current {
            Some(current) if version == entry.highest && current.body == body => Verdict::Same,
            Some(_) if version == next => Verdict::Update,
            None if version == next => Verdict::Create,
            _ => Verdict::Conflict(next),
        }
    }

    /// Which limit a body under a name would break, in words.
    pub fn refusal(&self, owner: &Owner, body: &[u8]) -> Option<&'static str> {
        let others = || self.entries.iter().filter(|(other, _)| *other != owner);
        let bytes = |entry: &Entry| entry.current.as_ref().map_or(0, |current| current.body.len());
        let (mut names, mut size) = (1, body.len());
        for (_, entry) in others().filter(|((twin, _), _)| *twin == owner.0) {
            (names, size) = (names + 1, size + bytes(entry));
        }
        let total = body.len() + others().map(|(_, entry)| bytes(entry)).sum::<usize>();
        let new = !self.entries.contains_key(owner);
        if new && names > Limits::TWIN_NAMES {
            Some("this twin has used 1024 names on this node; use one of them again")
        } else if new && self.entries.len() >= Limits::NODE_NAMES {
            Some("the node's book of deployments is full")
        } else if size > Limits::TWIN_BYTES {
            Some("this twin's deployments have 4 MiB on this node; delete some")
        } else if total > Limits::NODE_BYTES {
            Some("the node's book of deployments is full")
        } else {
            None
        }
    }

    /// Takes a deployment that was judged and admitted. Durable when it returns. Volumes of the
    /// version before that it no longer has are taken away.
    pub fn put(
        &mut self,
        owner: &Owner,
        body: &[u8],
        deployment: &Deployment,
        evidence: Evidence,
    ) -> Result<(), StoreError> {
        let body_text = BASE64_STANDARD.encode(body);
        let row = Row { highest: deployment.version, body: Some(body_text), evidence };
        let current = Current { body: body.to_owned(), deployment: deployment.clone() };
        let entry = Entry { highest: deployment.version, current: Some(current) };
        self.replace(owner, &row, entry)
    }

    /// Takes a deployment away; gives the next version. Durable when it returns.
    pub fn delete(&mut self, owner: &Owner, evidence: Evidence) -> Result<u64, StoreError> {
        let highest = self.entries.get(owner).map_or(0, |entry| entry.highest);
        let row = Row { highest, body: None, evidence };
        self.replace(owner, &row, Entry { highest, current: None })?;
        Ok(highest.saturating_add(1))
    }

    fn replace(&mut self, owner: &Owner, row: &Row, entry: Entry) -> Result<(), StoreError> {
        let has = entry.current.as_ref().map(|current| &current.deployment);
        let had = self.entries.get(owner).and_then(|entry| entry.current.as_ref());
        let gone: Vec<Key> = had
            .into_iter()
            .flat_map(|current| volumes(owner, &current.deployment))
            .filter(|key| !has.is_some_and(|new| volumes(owner, new).any(|kept| kept == *key)))
            .collect();
        self.store.write(|write| {
            for key in &gone {
                write.put(REMOVALS, &text(key), &())?;
                write.delete(RESTORES, &text(key))?;
            }
            write.put(DEPLOYMENTS, &format!("{}/{}", owner.0, owner.1), row)
        })?;
        self.restores.retain(|key, _| !gone.contains(key));
        self.removals.extend(gone);
        self.entries.insert(owner.clone(), entry);
        Ok(())
    }

    /// Notes that volumes were made.
    pub fn note_made(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        let new: Vec<&Key> = keys.iter().filter(|key| !self.made.contains(key)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.store
            .write(|write| new.iter().try_for_each(|key| write.put(MADE, &text(key), &())))?;
        self.made.extend(new.into_iter().cloned().collect::<Vec<_>>());
        Ok(())
    }

    /// Notes that a volume was destroyed.
    pub fn note_removed(&mut self, key: &Key) -> Result<(), StoreError> {
        self.store.write(|write| {
            write.delete(REMOVALS, &text(key))?;
            write.delete(MADE, &text(key))
        })?;
        self.removals.remove(key);
        self.made.remove(key);
        Ok(())
    }

    /// Notes that a volume is to be set back to a snapshot. Durable when it returns.
    pub fn restore(
        &mut self,
        key: &Key,
        snapshot: Name,
        evidence: Evidence,
    ) -> Result<(), StoreError> {
        let restore = Restore { snapshot, error: None, evidence };
        self.store.write(|write| write.put(RESTORES, &text(key), &restore))?;
        self.restores.insert(key.clone(), restore);
        Ok(())
    }

    /// Each volume's last wish to be set back, unless it was done.
    pub fn restores(&self) -> &BTreeMap<Key, Restore> {
        &self.restores
    }

    /// Notes that a volume was set back, or why it can't be. A wish that came after is kept.
    pub fn note_restored(
        &mut self,
        key: &Key,
        snapshot: &Name,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        let Some(restore) = self.restores.get(key).filter(|r| r.snapshot == *snapshot) else {
            return Ok(());
        };
        let Some(error) = error else {
            self.store.write(|write| write.delete(RESTORES, &text(key)))?;
            self.restores.remove(key);
            return Ok(());
        };
        let failed = Restore { error: Some(error), ..restore.clone() };
        self.store.write(|write| write.put(RESTORES, &text(key), &failed))?;
        self.restores.insert(key.clone(), failed);
        Ok(())
    }

    /// All that is wanted, workload by workload.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired {
            made: self.made.clone(),
            removals: self.removals.clone(),
            restores: self
                .restores
                .iter()
                .filter(|(_, restore)| restore.error.is_none())
                .map(|(key, restore)| (key.clone(), restore.snapshot.clone()))
                .collect(),
            ..Desired::default()
        };
        for (owner, deployment) in self.current() {
            for (name, workload) in &deployment.workloads {
                let key = workload_key(owner, name);
                desired.want(key, workload);
            }
        }
        desired
    }

    /// What all deployments but one are charged.
    pub fn charged_without(&self, owner: Option<&Owner>) -> Resources {
        let others = self.current().filter(|(other, _)| Some(*other) != owner);
        others.map(|(_, deployment)| deployment.charged()).sum()
    }
}

impl Entry {
    fn current(&self) -> &Option<Current> {
        &self.current
    }
}

fn read(body: &str) -> Result<Current, ()> {
    let body = BASE64_STANDARD.decode(body).map_err(drop)?;
    let deployment = Deployment::from_json(&body).map_err(drop)?;
    Ok(Current { body, deployment })
}

/// A workload's key.
pub fn workload_key(owner: &Owner, workload: &Name) -> Key {
    let name = WorkloadName { deployment: owner.1.clone(), workload: workload.clone() };
    (owner.0, name)
}

fn volumes<'a>(owner: &'a Owner, deployment: &'a Deployment) -> impl Iterator<Item = Key> + 'a {
    let volumes = deployment.workloads.iter().filter(|(_, w)| w.volume().is_some());
    volumes.map(|(name, _)| workload_key(owner, name))
}

fn text((twin, name): &Key) -> String {
    format!("{twin}/{name}")
}

fn key(text: &str) -> Option<Key> {
    let (twin, name) = text.split_once('/')?;
    Some((twin.parse().ok()?, name.parse().ok()?))
}

fn owner(text: &str) -> Option<Owner> {
    let (twin, name) = text.split_once('/')?;
    Some((twin.parse().ok()?, name.parse().ok()?))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
