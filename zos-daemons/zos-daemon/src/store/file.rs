//! One copy of a store: a redb file.
//!
//! ```text
//!  absent ──create──▶ NAME.redb.new ──fsync, rename──▶ NAME.redb ──open──▶ File
//!                                         ▲                │ unreadable, and another copy leads
//!                  copy of another's rows ┘                └─ link ─▶ NAME.redb.unreadable-N
//! ```
//! The file is made under another name and renamed when it is whole, so that an empty file can't
//! pass for an empty store, and a copy can't pass for a whole one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle};

use super::lead::Found;
use super::opening::{self, Deadly, Opening};
use super::{Op, StoreError};

/// A table of ours beside the daemon's own; their names do not begin with `_`.
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("_store");
const SCHEMA: &str = "schema";
/// The newest transaction's number. A store of an older program has none: 0.
const COUNT: TableDefinition<'_, &str, u64> = TableDefinition::new("_sequence");
const SEQUENCE: &str = "sequence";

type Rows<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

/// An open copy.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    database: Database,
}

/// What a look at a place gave: what lies there, the open file, and why it can't be read.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) found: Found,
    pub(super) file: Option<File>,
    pub(super) error: Option<StoreError>,
}

/// Looks at a place. An error is what has nothing to do with the content: somebody else has it open.
pub(super) fn look(folder: &Path, name: &str) -> Result<Look, StoreError> {
    let path = place(folder, name);
    let there = path.try_exists().map_err(|source| StoreError::File { path: path.clone(), source });
    let there = match there {
        Ok(there) => there,
        Err(error) => return Ok(unreadable(error)),
    };
    if !there {
        let aside = aside(folder, name).next().is_some();
        let found = if aside { Found::Unreadable } else { Found::Missing };
        let error = aside.then(|| StoreError::File {
            path,
            source: io::Error::new(io::ErrorKind::NotFound, "only what was put aside is there"),
        });
        return Ok(Look { found, file: None, error });
    }
    let opening = match Opening::begin(&path) {
        Ok(opening) => opening,
        Err(Deadly(times)) => return Ok(unreadable(StoreError::Deadly { path, times })),
    };
    let opened = open(&path);
    drop(opening);
    match opened {
        Ok((file, found)) => Ok(Look { found, file: Some(file), error: None }),
        Err(redb::Error::DatabaseAlreadyOpen) => {
            Err(database(&path, redb::Error::DatabaseAlreadyOpen))
        }
        Err(error) => Ok(unreadable(database(&path, error))),
    }
}

fn unreadable(error: StoreError) -> Look {
    Look { found: Found::Unreadable, file: None, error: Some(error) }
}

fn open(path: &Path) -> Result<(File, Found), redb::Error> {
    // redb panics at some rot. Where panics unwind this tells of it at once; where they end the program, the mark does.
    let opened = std::panic::catch_unwind(|| open_sound(path));
    opened.unwrap_or_else(|_| Err(redb::Error::Corrupted("redb panicked".to_owned())))
}

fn open_sound(path: &Path) -> Result<(File, Found), redb::Error> {
    let mut database = Database::open(path)?;
    // A page that rotted is found now, while the other copy can still mend it.
    database.check_integrity()?;
    let file = File { path: path.to_owned(), database };
    let found = file.found()?;
    Ok((file, found))
}

/// Makes an empty store.
pub(super) fn create(folder: &Path, name: &str, schema: u32) -> Result<File, StoreError> {
    place_whole(folder, name, |transaction| {
        transaction.open_table(META)?.insert(SCHEMA, schema)?;
        transaction.open_table(COUNT)?.insert(SEQUENCE, 0)?;
        Ok(())
    })
}

/// Puts a copy of `from` in a place. What lay there and can't be read is kept beside it; its path.
pub(super) fn renew(
    from: &File,
    folder: &Path,
    name: &str,
    keep: bool,
) -> Result<(File, Option<PathBuf>), StoreError> {
    let path = place(folder, name);
    let kept = match keep && path.exists() {
        true => Some(keep_aside(folder, name, &path)?),
        false => None,
    };
    let copied = place_whole(folder, name, |transaction| from.copy_to(transaction))?;
    Ok((copied, kept))
}

/// A second name for what lies there, so that it stays when the first is given away.
fn keep_aside(folder: &Path, name: &str, path: &Path) -> Result<PathBuf, StoreError> {
    let file = |source| StoreError::File { path: path.to_owned(), source };
    let last = aside(folder, name).max().unwrap_or(0);
    let kept = folder.join(format!("{name}.redb.unreadable-{}", last + 1));
    fs::hard_link(path, &kept).map_err(file)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(file)?;
    Ok(kept)
}

/// The numbers of what was put aside.
fn aside(folder: &Path, name: &str) -> impl Iterator<Item = u32> {
    let prefix = format!("{name}.redb.unreadable-");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
}

fn place_whole(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<File, StoreError> {
    let path = place(folder, name);
    let fresh = folder.join(format!("{name}.redb.new"));
    let file = |source| StoreError::File { path: fresh.clone(), source };
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let write = || -> Result<(), redb::Error> {
        let database = Database::create(&fresh)?;
        let transaction = database.begin_write()?;
        fill(&transaction)?;
        Ok(transaction.commit()?)
    };
    write().map_err(|e| database(&fresh, e))?;
    fs::File::open(&fresh).and_then(|f| f.sync_all()).map_err(file)?;
    fs::rename(&fresh, &path).map_err(file)?;
    opening::replaced(&path);
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(file)?;
    let opened = Database::open(&path).map_err(|e| database(&path, e))?;
    Ok(File { path, database: opened })
}

impl File {
    /// What it is.
    pub(super) fn found(&self) -> Result<Found, redb::Error> {
        let read = self.database.begin_read()?;
        let schema = read.open_table(META)?.get(SCHEMA)?.map_or(0, |value| value.value());
        let sequence = match read.open_table(COUNT) {
            Ok(table) => table.get(SEQUENCE)?.map_or(0, |value| value.value()),
            Err(TableError::TableDoesNotExist(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(Found::Whole { schema, sequence })
    }

    /// A row.
    pub(super) fn get(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        match self.database.begin_read()?.open_table(definition) {
            Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All rows of a table, by key.
    pub(super) fn list(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        match self.database.begin_read()?.open_table(definition) {
            Ok(table) => table
                .iter()?
                .map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())))
                .map(|row| row.map_err(Into::into))
                .collect(),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a transaction with its number, and the schema if it changes; durable when it returns.
    pub(super) fn apply(
        &self,
        ops: &[Op],
        sequence: u64,
        schema: Option<u32>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        for op in ops {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(&op.table);
            let mut table = transaction.open_table(definition)?;
            match &op.value {
                Some(bytes) => drop(table.insert(&*op.key, bytes.as_slice())?),
                None => drop(table.remove(&*op.key)?),
            }
        }
        if let Some(schema) = schema {
            transaction.open_table(META)?.insert(SCHEMA, schema)?;
        }
        transaction.open_table(COUNT)?.insert(SEQUENCE, sequence)?;
        Ok(transaction.commit()?)
    }

    /// Copies every row, table by table.
    fn copy_to(&self, to: &redb::WriteTransaction) -> Result<(), redb::Error> {
        let read = self.database.begin_read()?;
        let Found::Whole { schema, sequence } = self.found()? else {
            return Err(redb::Error::Corrupted("an open store is whole".to_owned()));
        };
        for handle in read.list_tables()? {
            let name = handle.name();
            if name == META.name() || name == COUNT.name() {
                continue;
            }
            let definition: Rows<'_> = TableDefinition::new(name);
            let (from, mut to) = (read.open_table(definition)?, to.open_table(definition)?);
            for row in from.iter()? {
                let (key, value) = row?;
                to.insert(key.value(), value.value())?;
            }
        }
        to.open_table(META)?.insert(SCHEMA, schema)?;
        to.open_table(COUNT)?.insert(SEQUENCE, sequence)?;
        Ok(())
    }
}

/// Where a store lies in a folder.
pub(super) fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.redb"))
}

pub(super) fn database(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_owned(), source: Box::new(error.into()) }
}
