//! The daemons' stores in each copy of the state that leads, opened by their own code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use identityd::key;
use provisiond::book::Book;
use serde_json::Value;
use zos_api::local::CallError;
use zos_daemon::store::files::Files;
use zos_daemon::store::{Copies, Place, Store, StoreError, Witness};
use zos_types::NodeId;

use super::check::Found;
use super::facts::About;

/// A table beside the book's own, for what a boot writes that found one copy alone.
const TABLE: &str = "cuts";
const KEY: &str = "boots";

/// A copy that leads: its pool, and where it is shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) pool: String,
    pub(super) path: PathBuf,
}

/// Whoever can't write to a copy: nothing fails here, so a cut must not make it so.
#[derive(Debug)]
struct Nobody;

impl Witness for Nobody {
    fn lose(&self, place: &Place, reason: &str) -> Result<(), CallError> {
        Err(CallError::Failed { detail: format!("the copy on {} fails: {reason}", place.pool) })
    }

    fn joined(&self, _: &Place) -> Result<(), CallError> {
        Ok(())
    }
}

/// Opens what the copies keep, and writes how many boots there were; gives the node's key.
pub(super) fn look(shown: &[Shown], found: &mut Found) -> Result<Option<SigningKey>> {
    let Some(first) = shown.first() else { return Ok(None) };
    for copy in shown {
        readable(&copy.path, &mut found.wrong)?;
    }
    last_run(&first.path.join("storage/last-run.json"), found)?;
    book(copies(shown, "provision"), found);
    if let Err(error) = Store::open(copies(shown, "net"), "net", &[]) {
        found.wrong.push(format!("the network's store: {}", CallError::failed(&error)));
    }
    let files = Files::new(copies(shown, "identity"), key::is_sound);
    if let Err(error) = files.settle() {
        found.wrong.push(format!("the node's key: {}", CallError::failed(&error)));
    }
    found.wrong.extend(files.told());
    Ok(match key::read(&files.folder()) {
        key::Found::Missing => None,
        key::Found::Key(key) => {
            found.is.insert(About::Node, NodeId::from(&key.verifying_key()).to_string());
            Some(*key)
        }
        key::Found::Unreadable(why) => {
            found.wrong.push(format!("the node's key: {why}"));
            None
        }
    })
}

fn copies(shown: &[Shown], noun: &str) -> Copies {
    let place = |copy: &Shown| Place {
        pool: copy.pool.clone(),
        coming: String::new(),
        folder: copy.path.join(noun),
        current: true,
    };
    Copies { places: shown.iter().map(place).collect(), witness: Arc::new(Nobody) }
}

fn book(copies: Copies, found: &mut Found) {
    let opened = Book::open(copies).and_then(|(book, faults)| {
        let boots = count(&book.store())?;
        Ok((book, faults, boots))
    });
    match opened {
        Ok((book, faults, boots)) => {
            found.boots = boots;
            found.wrong.extend(faults.into_iter().map(|fault| fault.detail));
            for ((twin, name), deployment) in book.current() {
                let about = About::Deployment(*twin, name.clone());
                found.is.insert(about, deployment.version.to_string());
            }
        }
        Err(error) => found.wrong.push(format!("the book: {}", CallError::failed(&error))),
    }
}

/// Counts this boot, durable in each copy; gives those before it.
fn count(store: &Store) -> Result<u32, StoreError> {
    let before = store.get::<u32>(TABLE, KEY)?.unwrap_or(0);
    store.write(|write| write.put(TABLE, KEY, &(before + 1)))?;
    Ok(before)
}

/// The last run's record: there whole, or not at all.
fn last_run(path: &Path, found: &mut Found) -> Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.context("read the last run's record")?,
    };
    match serde_json::from_slice::<Value>(&text) {
        Ok(run) if run["boot"].is_string() => {
            if let Some(end) = run["end"].as_str() {
                found.is.insert(About::End, end.to_owned());
            }
        }
        _ => found.wrong.push("the last run's record is damaged".to_owned()),
    }
    Ok(())
}

/// Reads every file: what fails to be read is wrong, whosever it is.
fn readable(folder: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list a folder")?.path();
        if path.is_dir() {
            readable(&path, wrong)?;
        } else if let Err(error) = fs::read(&path) {
            wrong.push(format!("{}: {error}", path.display()));
        }
    }
    Ok(())
}
