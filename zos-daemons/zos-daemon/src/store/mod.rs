//! A daemon's state: redb files, values as JSON, each write durable when it returns.
//!
//! ```text
//!  Copies ─ look at each place ─ lead (the rule) ─▶ create, renew, migrate ─▶ Store
//!
//!  write ─▶ to each copy, numbered ─▶ all have it ────────────────────────▶ durable
//!                                 └─▶ one failed ─▶ storaged notes the loss ┘
//! ```
//! With two disks each store lies on both. A store that can't be read is never replaced by a fresh
//! one: another copy mends it, and what lay there is kept beside it; or it is left as it is.

mod copies;
mod error;
mod file;
pub mod files;
pub mod lead;
mod opening;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use copies::{Copies, Follow, Place, State, Witness};
pub use error::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zos_api::local::CallError;

use self::file::File;
use self::lead::{Found, Plan, Written};

/// Steps from schema 1 to 2, from 2 to 3 and so on: a daemon's schema is one more than it has steps.
pub type Migrations = &'static [fn(&mut Migration<'_>) -> Result<(), StoreError>];

/// An open store. Clones are the same.
#[derive(Clone, Debug)]
pub struct Store {
    name: String,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    sequence: u64,
    copies: Vec<Copy>,
    witness: Arc<dyn Witness>,
    repaired: Vec<PathBuf>,
}

/// A copy in use.
#[derive(Debug)]
struct Copy {
    place: Place,
    /// None: it failed, and storaged has yet to note it.
    file: Option<File>,
}

/// A row that is set, or taken away.
#[derive(Debug)]
struct Op {
    table: String,
    key: String,
    value: Option<Vec<u8>>,
}

/// A write under way.
#[derive(Debug)]
pub struct Write {
    path: PathBuf,
    ops: Vec<Op>,
}

/// A step to the next schema under way: it reads the old rows, and writes as a [`Write`] does.
#[derive(Debug)]
pub struct Migration<'a> {
    file: &'a File,
    /// What is written.
    pub write: Write,
}

impl Store {
    /// Opens `NAME.redb` in each place, or makes it. `migrations` lead from older schemas.
    pub fn open(
        copies: impl Into<Copies>,
        name: &str,
        migrations: Migrations,
    ) -> Result<Self, StoreError> {
        let Copies { places, witness } = copies.into();
        let schema = u32::try_from(migrations.len()).unwrap_or(u32::MAX).saturating_add(1);
        let (current, joining): (Vec<_>, Vec<_>) = places.into_iter().partition(|p| p.current);
        let mut inner = Inner { sequence: 0, copies: Vec::new(), witness, repaired: Vec::new() };
        inner.open(current, name, schema)?;
        inner.migrate(name, schema, migrations)?;
        let store = Self { name: name.to_owned(), inner: Arc::new(Mutex::new(inner)) };
        let mut inner = store.lock();
        for place in joining {
            inner.join(place, &store.name)?;
        }
        drop(inner);
        Ok(store)
    }

    /// What could not be read when the store was opened, and was kept beside what replaced it.
    pub fn repaired(&self) -> Vec<PathBuf> {
        self.lock().repaired.clone()
    }

    /// A value, if it is there.
    pub fn get<T: DeserializeOwned>(
        &self,
        table: &str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let inner = self.lock();
        let (path, bytes) = inner.read(|file| file.get(table, key))?;
        bytes.map(|bytes| parse(&path, table, key, &bytes)).transpose()
    }

    /// Every key and value of a table, by key.
    pub fn list<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        let inner = self.lock();
        let (path, rows) = inner.read(|file| file.list(table))?;
        rows.into_iter()
            .map(|(key, bytes)| parse(&path, table, &key, &bytes).map(|value| (key, value)))
            .collect()
    }

    /// Writes all that `f` asks for, or nothing; durable in every copy when it returns. After an
    /// error it may be there or not, and can be asked for again.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Write) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut inner = self.lock();
        let mut write = Write { path: inner.path(), ops: Vec::new() };
        let result = f(&mut write)?;
        inner.commit(&write.ops)?;
        Ok(result)
    }

    /// Nobody leaves a store half-changed: a panic in between has changed the files as a whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follow for Store {
    fn follow(&self, copies: &Copies) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let told = |place: &Place| {
            copies.places.iter().any(|p| p.pool == place.pool && p.coming == place.coming)
        };
        // What storaged no longer counts is lost, whoever saw it. The last is never let go of.
        if inner.copies.iter().any(|copy| copy.file.is_some() && told(&copy.place)) {
            inner.copies.retain(|copy| told(&copy.place));
        }
        for place in &copies.places {
            let held = |copy: &&mut Copy| {
                copy.place.pool == place.pool && copy.place.coming == place.coming
            };
            match inner.copies.iter_mut().find(held) {
                Some(copy) => copy.place = place.clone(),
                None => inner.join(place.clone(), &self.name)?,
            }
        }
        let joined: Vec<Place> = inner
            .copies
            .iter()
            .filter(|copy| copy.file.is_some() && !copy.place.current)
            .map(|copy| copy.place.clone())
            .collect();
        let witness = Arc::clone(&inner.witness);
        // It is held and gets every write: now it may be said.
        drop(inner);
        for place in joined {
            if let Err(error) = witness.joined(&place) {
                tracing::warn!("join the copy on pool {}: {error}", place.pool);
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Opens the current copies, the rule says how.
    fn open(&mut self, places: Vec<Place>, name: &str, schema: u32) -> Result<(), StoreError> {
        let mut looks = Vec::new();
        for place in &places {
            looks.push(file::look(&place.folder, name)?);
        }
        let found: Vec<Found> = looks.iter().map(|look| look.found).collect();
        let (lead, renew) = match lead::lead(&found, schema) {
            Plan::Create => {
                for place in places {
                    match file::create(&place.folder, name, schema) {
                        Ok(file) => self.copies.push(Copy { place, file: Some(file) }),
                        Err(error) => self.failed(place, error)?,
                    }
                }
                return self.settle_losses();
            }
            Plan::Newer(index) => {
                let path = file::place(&places[index].folder, name);
                let newer = match found[index] {
                    Found::Whole { schema, .. } => schema,
                    Found::Missing | Found::Unreadable => 0,
                };
                return Err(StoreError::Schema { path, found: newer, wanted: schema });
            }
            Plan::Unreadable => {
                let all = looks.into_iter().zip(&places);
                let worst = all.filter_map(|(look, place)| Some((look.error?, place))).next();
                let nothing = || StoreError::Unreadable {
                    path: name.into(),
                    source: Box::new(StoreError::File {
                        path: name.into(),
                        source: io::Error::from(io::ErrorKind::NotFound),
                    }),
                };
                return Err(worst.map_or_else(nothing, |(error, place)| StoreError::Unreadable {
                    path: file::place(&place.folder, name),
                    source: Box::new(error),
                }));
            }
            Plan::Lead { lead, renew } => (lead, renew),
        };
        if let Found::Whole { sequence, schema: of } = found[lead] {
            if of == 0 {
                let path = file::place(&places[lead].folder, name);
                return Err(StoreError::Schema { path, found: 0, wanted: schema });
            }
            self.sequence = sequence;
        }
        let mut files: Vec<Option<File>> = looks.into_iter().map(|look| look.file).collect();
        let leading = files[lead].take();
        let mut others = Vec::new();
        for (index, place) in places.iter().enumerate().filter(|(index, _)| *index != lead) {
            let file = match (&leading, renew.contains(&index)) {
                (Some(leading), true) => {
                    files[index] = None;
                    let unreadable = found[index] == Found::Unreadable;
                    match file::renew(leading, &place.folder, name, unreadable) {
                        Ok((file, kept)) => {
                            let said = kept.as_ref().map_or(String::new(), |kept| {
                                format!("; what could not be read is kept as {}", kept.display())
                            });
                            tracing::warn!(
                                "the store in {} is renewed{said}",
                                place.folder.display()
                            );
                            self.repaired.extend(kept);
                            Some(file)
                        }
                        Err(error) => {
                            tracing::error!("{}", CallError::failed(&error));
                            None
                        }
                    }
                }
                _ => files[index].take(),
            };
            others.push(Copy { place: place.clone(), file });
        }
        self.copies.push(Copy { place: places[lead].clone(), file: leading });
        self.copies.extend(others);
        self.settle_losses()
    }

    /// A copy that could not be made stands there as failed.
    fn failed(&mut self, place: Place, error: StoreError) -> Result<(), StoreError> {
        if place.pool.is_empty() {
            return Err(error);
        }
        tracing::error!("{}", CallError::failed(&error));
        self.copies.push(Copy { place, file: None });
        Ok(())
    }

    /// Has storaged note each copy that failed: only then is what the others have durable.
    fn settle_losses(&mut self) -> Result<(), StoreError> {
        while let Some(index) = self.copies.iter().position(|copy| copy.file.is_none()) {
            let place = &self.copies[index].place;
            let noted = self.witness.lose(place, "it could not be written to");
            if let Err(source) = noted {
                let (path, pool) = (place.folder.clone(), place.pool.clone());
                return Err(StoreError::Doubt { path, pool, source });
            }
            tracing::error!("the state's copy on pool {} is lost", place.pool);
            self.copies.remove(index);
        }
        Ok(())
    }

    /// Copies all of it to a new place; it gets each write from then on.
    fn join(&mut self, place: Place, name: &str) -> Result<(), StoreError> {
        let Some(from) = self.copies.iter().find_map(|copy| copy.file.as_ref()) else {
            return Ok(());
        };
        let file = match file::renew(from, &place.folder, name, false) {
            Ok((file, _)) => Some(file),
            Err(error) => {
                tracing::error!("{}", CallError::failed(&error));
                None
            }
        };
        self.copies.push(Copy { place, file });
        self.settle_losses()
    }

    fn migrate(&mut self, name: &str, schema: u32, steps: Migrations) -> Result<(), StoreError> {
        let Some(file) = self.copies.iter().find_map(|copy| copy.file.as_ref()) else {
            return Ok(());
        };
        let found = file.found().map_err(|error| file::database(&file.path, error))?;
        let Found::Whole { schema: mut old, .. } = found else { return Ok(()) };
        while old < schema {
            let Some(file) = self.copies.iter().find_map(|copy| copy.file.as_ref()) else { break };
            let write = Write { path: file.path.clone(), ops: Vec::new() };
            let mut migration = Migration { file, write };
            let step = steps[old as usize - 1];
            step(&mut migration)?;
            let ops = migration.write.ops;
            old += 1;
            tracing::info!("store {name}: from schema {} to {old}", old - 1);
            self.write(&ops, Some(old))?;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        let file = self.copies.iter().find_map(|copy| copy.file.as_ref());
        file.map(|file| file.path.clone()).unwrap_or_default()
    }

    /// Reads from the first copy that can be read.
    fn read<T>(
        &self,
        read: impl Fn(&File) -> Result<T, redb::Error>,
    ) -> Result<(PathBuf, T), StoreError> {
        let mut failed = None;
        for file in self.copies.iter().filter_map(|copy| copy.file.as_ref()) {
            match read(file) {
                Ok(value) => return Ok((file.path.clone(), value)),
                Err(error) => failed = failed.or(Some(file::database(&file.path, error))),
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::File {
            path: PathBuf::new(),
            source: io::Error::from(io::ErrorKind::NotFound),
        }))
    }

    fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        self.write(ops, None)
    }

    /// To each copy in turn; an error is told after every copy was tried. One that is being filled gets only what a
    /// current one has: else it would hold what was never acknowledged, under the number of what will be.
    fn write(&mut self, ops: &[Op], schema: Option<u32>) -> Result<(), StoreError> {
        let next = self.sequence + 1;
        let mut first = None;
        let mut places = Vec::new();
        self.copies.sort_by_key(|copy| !copy.place.current);
        for copy in &self.copies {
            let led = copy.place.current || places.contains(&(true, true));
            let written = match copy
                .file
                .as_ref()
                .filter(|_| led)
                .map(|file| (file, file.apply(ops, next, schema)))
            {
                None => false,
                Some((_, Ok(()))) => true,
                Some((file, Err(error))) => {
                    let error = file::database(&file.path, error);
                    tracing::error!("{}", CallError::failed(&error));
                    first = first.or(Some(error));
                    false
                }
            };
            places.push((copy.place.current, written));
        }
        match lead::judge(&places) {
            Written::Nowhere => Err(first.unwrap_or_else(|| StoreError::File {
                path: self.path(),
                source: io::Error::other("no copy of the state can be written"),
            })),
            Written::Durable(lost) => {
                self.sequence = next;
                for index in lost {
                    self.copies[index].file = None;
                }
                self.settle_losses()
            }
        }
    }
}

impl Write {
    /// Sets a value.
    pub fn put<T: Serialize>(&mut self, table: &str, key: &str, new: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(new).map_err(|e| value(&self.path, table, key, e))?;
        self.ops.push(Op { table: table.into(), key: key.into(), value: Some(bytes) });
        Ok(())
    }

    /// Takes a value away. Done also when there is none.
    pub fn delete(&mut self, table: &str, key: &str) -> Result<(), StoreError> {
        self.ops.push(Op { table: table.into(), key: key.into(), value: None });
        Ok(())
    }
}

impl Migration<'_> {
    /// The rows of the older schema, by key.
    pub fn rows(&self, table: &str) -> Result<Vec<(String, Value)>, StoreError> {
        let path = &self.file.path;
        let rows = self.file.list(table).map_err(|error| file::database(path, error))?;
        rows.into_iter()
            .map(|(key, bytes)| parse(path, table, &key, &bytes).map(|value| (key, value)))
            .collect()
    }
}

fn parse<T: DeserializeOwned>(
    path: &std::path::Path,
    table: &str,
    key: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| value(path, table, key, source))
}

fn value(path: &std::path::Path, table: &str, key: &str, source: serde_json::Error) -> StoreError {
    StoreError::Value { path: path.to_owned(), table: table.into(), key: key.into(), source }
}

#[cfg(test)]
mod rot_tests;
#[cfg(test)]
mod tests;
