//! A daemon's state: one redb file, values as JSON, each write durable when it returns.
//!
//! ```text
//!  absent ──create──▶ NAME.redb.new ──fsync, rename──▶ NAME.redb ──open──▶ Store
//! ```
//!
//! The file is created under another name and renamed when it is whole, so that an empty file can't
//! pass for an empty store. A store that can't be read is an error and is left as it is: it is
//! never replaced by a fresh one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A table of ours beside the daemon's own; their names do not begin with `_`.
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("_store");
const SCHEMA: &str = "schema";

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no: a corrupt file, a full disk, a second opener.
    #[error("store {path}")]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The file system says no.
    #[error("store {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store was written by another version of the daemon.
    #[error("store {path} has schema {found}, this version reads {wanted}")]
    Schema {
        /// Which file.
        path: PathBuf,
        /// The schema that it was written with.
        found: u32,
        /// The schema that this program reads.
        wanted: u32,
    },
    /// A value does not fit its type.
    #[error("store {path}: {table}/{key}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: String,
        /// Which key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Database,
}

/// A write under way.
pub struct Write<'a> {
    path: &'a Path,
    transaction: WriteTransaction,
}

impl Store {
    /// Opens `dir/name.redb`, or makes it.
    pub fn open(dir: &Path, name: &str, schema: u32) -> Result<Self, StoreError> {
        let path = dir.join(format!("{name}.redb"));
        if !path.try_exists().map_err(|source| StoreError::File { path: path.clone(), source })? {
            create(dir, &path, schema)?;
        }
        let database = Database::open(&path).map_err(|e| database(&path, e))?;
        let store = Self { path, database };
        let found = store.schema()?;
        if found != schema {
            return Err(StoreError::Schema { path: store.path, found, wanted: schema });
        }
        Ok(store)
    }

    fn schema(&self) -> Result<u32, StoreError> {
        let read = || -> Result<u32, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            Ok(table.get(SCHEMA)?.map_or(0, |value| value.value()))
        };
        read().map_err(|e| database(&self.path, e))
    }

    /// A value, if it is there.
    pub fn get<T: DeserializeOwned>(
        &self,
        table: &str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
            match self.database.begin_read()?.open_table(definition) {
                Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let bytes = read().map_err(|e| database(&self.path, e))?;
        bytes.map(|bytes| self.value(table, key, &bytes)).transpose()
    }

    /// Every key and value of a table, by key.
    pub fn list<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
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
        };
        let rows = read().map_err(|e| database(&self.path, e))?;
        rows.into_iter()
            .map(|(key, bytes)| self.value(table, &key, &bytes).map(|value| (key, value)))
            .collect()
    }

    /// Writes all that `f` asks for, or nothing; durable when it returns.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.database.begin_write().map_err(|e| database(&self.path, e))?;
        let mut write = Write { path: &self.path, transaction };
        let result = f(&mut write)?;
        write.transaction.commit().map_err(|e| database(&self.path, e))?;
        Ok(result)
    }

    fn value<T: DeserializeOwned>(
        &self,
        table: &str,
        key: &str,
        bytes: &[u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| value(&self.path, table, key, source))
    }
}

impl Write<'_> {
    /// Sets a value.
    pub fn put<T: Serialize>(&mut self, table: &str, key: &str, new: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(new).map_err(|e| value(self.path, table, key, e))?;
        let write = || -> Result<(), redb::Error> {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
            self.transaction.open_table(definition)?.insert(key, bytes.as_slice())?;
            Ok(())
        };
        write().map_err(|e| database(self.path, e))
    }

    /// Takes a value away. Done also when there is none.
    pub fn delete(&mut self, table: &str, key: &str) -> Result<(), StoreError> {
        let write = || -> Result<(), redb::Error> {
            let definition: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
            self.transaction.open_table(definition)?.remove(key)?;
            Ok(())
        };
        write().map_err(|e| database(self.path, e))
    }
}

fn create(dir: &Path, path: &Path, schema: u32) -> Result<(), StoreError> {
    let fresh = path.with_extension("redb.new");
    let file = |source| StoreError::File { path: fresh.clone(), source };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let write = || -> Result<(), redb::Error> {
        let database = Database::create(&fresh)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(SCHEMA, schema)?;
        Ok(transaction.commit()?)
    };
    write().map_err(|e| database(&fresh, e))?;
    File::open(&fresh).and_then(|f| f.sync_all()).map_err(file)?;
    std::fs::rename(&fresh, path).map_err(file)?;
    File::open(dir).and_then(|f| f.sync_all()).map_err(file)
}

fn database(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_owned(), source: Box::new(error.into()) }
}

fn value(path: &Path, table: &str, key: &str, source: serde_json::Error) -> StoreError {
    StoreError::Value { path: path.to_owned(), table: table.into(), key: key.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "test", 1).unwrap();
        assert_eq!(store.get::<u32>("t", "a").unwrap(), None);
        assert!(store.list::<u32>("t").unwrap().is_empty());
        store
            .write(|w| {
                w.put("t", "a", &1)?;
                w.put("t", "b", &2)
            })
            .unwrap();
        store.write(|w| w.delete("t", "a")).unwrap();
        drop(store);
        let store = Store::open(dir.path(), "test", 1).unwrap();
        assert_eq!(store.list::<u32>("t").unwrap(), [("b".to_owned(), 2)]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "test", 1).unwrap();
        let failed = store.write(|w| {
            w.put("t", "a", &1)?;
            Err::<(), _>(StoreError::Schema { path: "x".into(), found: 0, wanted: 1 })
        });
        assert!(failed.is_err());
        assert_eq!(store.get::<u32>("t", "a").unwrap(), None);
    }

    #[test]
    fn what_is_no_store_of_ours_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.redb");
        for content in [&b""[..], b"not a database"] {
            std::fs::write(&path, content).unwrap();
            assert!(Store::open(dir.path(), "test", 1).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        drop(Store::open(dir.path(), "test", 1).unwrap());
        let other = Store::open(dir.path(), "test", 2).unwrap_err();
        assert!(matches!(other, StoreError::Schema { found: 1, wanted: 2, .. }));
    }
}
