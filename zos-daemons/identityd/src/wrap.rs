//! Wrapping secrets: what volumes' keys are encrypted under on a machine with a TPM. Each lies in a file of the state,
//! sealed to the TPM that was there when it was made.
//!
//! ```text
//!  tpm-<id>.json ─▶ does this TPM open it? ─┬─ yes ─▶ Wraps::open
//!                                           └─ no ──▶ Wraps::shut, and a fault that says what to do
//!  no file, a TPM, a state that lasts ─▶ draw ─ seal ─ unseal, compare ─▶ a file ─▶ Wraps::open
//!  files, none of them opened ─▶ nothing is made, but with zos.tpm=new a further file
//! ```
//! A file is never overwritten and never removed: a TPM that comes back opens its own again.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;
use zos_api::local::CallError;
use zos_types::Fault;

use crate::key;
use crate::tpm::{Blob, Tpm, TpmError};

/// Files that hold one begin so.
const PREFIX: &str = "tpm-";
/// The version of the file that this code writes.
const VERSION: u32 = 1;
/// No file is longer, bytes.
const LONGEST: u64 = 64 << 10;

/// Volumes' keys are sealed to a TPM that this machine doesn't have.
pub const MISSING: &str = "identity.tpm-missing";
/// The machine's TPM isn't the one that they are sealed to.
pub const OTHER: &str = "identity.tpm-other";
/// The machine's TPM doesn't do its work.
pub const FAILED: &str = "identity.tpm-failed";
/// A file of a wrapping secret can't be read.
pub const UNREADABLE: &str = "identity.tpm-unreadable";

/// Tells one wrapping secret from another.
pub type Id = [u8; 8];
/// A wrapping secret.
pub type Secret = Zeroizing<[u8; 32]>;

/// The wrapping secrets of a node.
#[derive(Default)]
pub struct Wraps {
    /// Those that this TPM opened.
    pub open: Vec<(Id, Secret)>,
    /// Those that stay shut.
    pub shut: Vec<Id>,
    /// What is to be shown.
    pub faults: Vec<Fault>,
}

impl std::fmt::Debug for Wraps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wraps({} open, {} shut)", self.open.len(), self.shut.len())
    }
}

/// Whether a wrapping secret may be made and kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Make {
    /// Nothing lasts here.
    Never,
    /// The first one.
    First,
    /// Also beside others that this TPM doesn't open: the farmer says so.
    Further,
}

/// A sealed wrapping secret in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    #[serde(with = "hex::serde")]
    id: Id,
    #[serde(with = "hex::serde")]
    parent: Vec<u8>,
    #[serde(with = "hex::serde")]
    public: Vec<u8>,
    #[serde(with = "hex::serde")]
    private: Vec<u8>,
}

/// Opens what the folder holds, and makes the first one where there is none.
pub fn load(folder: &Path, tpm: io::Result<Option<Tpm>>, make: Make) -> Wraps {
    let mut wraps = Wraps::default();
    let mut kept = Vec::new();
    match list(folder) {
        Ok(files) => {
            for (name, read) in files {
                match read {
                    Ok(found) => kept.push(found),
                    Err(why) => {
                        wraps.fault(UNREADABLE, format!("{name}: {why}; it is left as it is"));
                    }
                }
            }
        }
        Err(error) => {
            wraps.fault(UNREADABLE, format!("list {}: {error}", folder.display()));
            return wraps;
        }
    }
    let nothing_kept = kept.is_empty() && wraps.faults.is_empty();
    let mut tpm = match tpm {
        Ok(Some(tpm)) => tpm,
        Ok(None) => {
            wraps.missing(&kept);
            return wraps;
        }
        Err(error) => {
            wraps.failed(&kept, &error);
            return wraps;
        }
    };
    let foreign = wraps.open(&mut tpm, kept);
    let make = match make {
        Make::Never => false,
        Make::First => nothing_kept,
        Make::Further => true,
    };
    if make && wraps.open.is_empty() {
        match create(folder, &mut tpm) {
            Ok(made) => wraps.open.push(made),
            Err(error) => wraps.failed(&[], &error),
        }
    }
    if foreign && wraps.open.is_empty() {
        wraps.other();
    }
    wraps
}

impl Wraps {
    fn fault(&mut self, id: &str, detail: String) {
        self.faults.push(Fault::new(id, detail));
    }

    /// Opens what this TPM opens; tells whether some were sealed to another one.
    fn open(&mut self, tpm: &mut Tpm, kept: Vec<Kept>) -> bool {
        let mut foreign = false;
        for Kept { id, parent, public, private, .. } in kept {
            let opened = tpm.unseal(&Blob { parent, public, private });
            match opened.map(|secret| <[u8; 32]>::try_from(&secret[..]).map(Zeroizing::new)) {
                Ok(Ok(secret)) => self.open.push((id, secret)),
                Ok(Err(_)) => {
                    self.shut.push(id);
                    let name = file(id);
                    self.fault(
                        UNREADABLE,
                        format!("{name} holds no wrapping secret; it is left as it is"),
                    );
                }
                Err(TpmError::OtherParent) => {
                    self.shut.push(id);
                    foreign = true;
                }
                Err(error) => {
                    self.shut.push(id);
                    self.failed(&[], &error);
                }
            }
        }
        foreign
    }

    fn other(&mut self) {
        self.fault(
            OTHER,
            "this machine's TPM is another than the one that keys of volumes are sealed to, or it was cleared since: \
             those volumes stay closed, and nothing of them is lost. Put the disks back into the machine with that \
             TPM, or the TPM back into this one. Keys of new volumes lie beside their data, until then or until \
             zos.tpm=new has them sealed to this TPM"
                .to_owned(),
        );
    }

    fn missing(&mut self, kept: &[Kept]) {
        self.shut.extend(kept.iter().map(|kept| kept.id));
        if !kept.is_empty() {
            self.fault(
                MISSING,
                "keys of volumes are sealed to a TPM, and this machine shows none: those volumes stay closed, and \
                 nothing of them is lost. Switch the TPM on in the firmware's setup, or put the disks back into the \
                 machine that they come from. Keys of new volumes lie beside their data until then"
                    .to_owned(),
            );
        }
    }

    fn failed(&mut self, kept: &[Kept], error: &dyn std::error::Error) {
        self.shut.extend(kept.iter().map(|kept| kept.id));
        let cause = CallError::failed(error);
        let closed =
            if self.shut.is_empty() { "" } else { ", and volumes sealed to it stay closed" };
        self.fault(
            FAILED,
            format!(
                "the TPM can't be used: {cause}. Keys of new volumes lie beside their data meanwhile{closed}. A \
                 password of its owner, set by another system, is taken away by clearing the TPM in the firmware's \
                 setup; what is sealed to it is lost then"
            ),
        );
    }
}

/// Draws a wrapping secret and keeps it; only what the TPM has given back once is relied on.
fn create(folder: &Path, tpm: &mut Tpm) -> Result<(Id, Secret), CreateError> {
    let (mut id, mut secret) = (Id::default(), Zeroizing::new([0; 32]));
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut *secret))
        .map_err(CreateError::Random)?;
    let blob = tpm.seal(&*secret).map_err(CreateError::Tpm)?;
    if tpm.unseal(&blob).map_err(CreateError::Tpm)?[..] != secret[..] {
        return Err(CreateError::Other);
    }
    let Blob { parent, public, private } = blob;
    let kept = Kept { version: VERSION, id, parent, public, private };
    let text = serde_json::to_vec_pretty(&kept).map_err(|e| CreateError::Write(e.into()))?;
    key::place(folder, &file(id), &text).map_err(CreateError::Write)?;
    tracing::info!("keys of new volumes are sealed to this machine's TPM ({})", file(id));
    Ok((id, secret))
}

/// Why no wrapping secret was made.
#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error("draw a wrapping secret")]
    Random(#[source] getrandom::Error),
    #[error("seal a wrapping secret")]
    Tpm(#[source] TpmError),
    #[error("it gave something else back than what it had sealed")]
    Other,
    #[error("keep a wrapping secret")]
    Write(#[source] io::Error),
}

fn file(id: Id) -> String {
    format!("{PREFIX}{}.json", hex::encode(id))
}

/// A file's name, and what is in it or why that can't be told.
type Listed = (String, Result<Kept, String>);

/// Every wrapping secret that a folder holds. A folder that isn't there holds none.
fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(".json") {
            let read = read(folder, &name);
            found.push((name, read));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn read(folder: &Path, name: &str) -> Result<Kept, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let path = folder.join(name);
    let size = fs::metadata(&path).map_err(|error| error.to_string())?.len();
    if size > LONGEST {
        return Err(format!("{size} bytes are too many"));
    }
    let text = fs::read(&path).map_err(|error| error.to_string())?;
    let Version { version } = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if version > VERSION {
        return Err(format!("written by a newer version of ZOS ({version})"));
    }
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if file(kept.id) == name { Ok(kept) } else { Err("it holds that of another file".to_owned()) }
}
