//! Why a store can't be had.
//!
//! ```text
//!  File, Database, Deadly ── of one copy ─▶ another mends it, or Unreadable
//!  Schema, Unreadable     ── of all ──────▶ nothing is touched
//!  Doubt                  ── of a write ──▶ asked for again
//! ```

use std::io;
use std::path::PathBuf;

use zos_api::local::CallError;

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
    /// The store was written by a later version of the daemon. It is left as it is, and so is its other copy.
    #[error(
        "store {path} has schema {found}, this version reads {wanted}; a later version reads it"
    )]
    Schema {
        /// Which file.
        path: PathBuf,
        /// The schema that it was written with.
        found: u32,
        /// The schema that this program reads.
        wanted: u32,
    },
    /// Reading the file ended this program, so often in this boot. It is read again after the next boot.
    #[error(
        "store {path}: this program died {times} times in this boot while it read the file; it is read again at the next boot"
    )]
    Deadly {
        /// Which file.
        path: PathBuf,
        /// How often.
        times: u32,
    },
    /// Something was kept, and none of its copies can be read. Nothing is touched.
    #[error(
        "store {path} can't be read, nor any other copy of it; it is left as it is. \
         Connect the other state disk, or restore the file"
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// A copy failed, and that could not be noted: the write may be there or not.
    #[error("store {path}: the copy on pool {pool} failed, and storaged could not note it")]
    Doubt {
        /// Which file.
        path: PathBuf,
        /// The copy's pool.
        pool: String,
        /// storaged's word.
        #[source]
        source: CallError,
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
