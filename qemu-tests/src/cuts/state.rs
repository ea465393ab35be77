//! The daemons' stores on a pool, opened by their own code.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use identityd::key;
use provisiond::book::Book;
use serde_json::Value;
use storaged::pool::Pool;
use zos_types::NodeId;

use super::check::Found;
use super::facts::About;

/// Opens what the state's pool keeps; gives the node's key.
pub(super) fn look(pools: &[&Pool], found: &mut Found) -> Result<Option<SigningKey>> {
    let Some(pool) = pools.iter().find(|pool| pool.header.state) else { return Ok(None) };
    let state = pool.root.join("@state");
    readable(&state, &mut found.wrong)?;
    last_run(&state.join("storage/last-run.json"), found)?;
    if state.join("provision").is_dir() {
        book(&state.join("provision"), found);
    }
    Ok(match key::read(&state.join("identity")) {
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

fn book(folder: &Path, found: &mut Found) {
    match Book::open(folder) {
        Ok((book, faults)) => {
            found.wrong.extend(faults.into_iter().map(|fault| fault.detail));
            for ((twin, name), deployment) in book.current() {
                let about = About::Deployment(*twin, name.clone());
                found.is.insert(about, deployment.version.to_string());
            }
        }
        Err(error) => found.wrong.push(format!("the book: {:#}", anyhow::Error::from(error))),
    }
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
