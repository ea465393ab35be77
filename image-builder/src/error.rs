//! What can go wrong while an image is built, said so that a person knows what to do next.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One step failed; the text names the step and the object, `source` keeps the cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried: "read", "write", "make the folder" ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of ours or of a package that doesn't have the form it should have.
    #[error("{what}: {why}")]
    Form {
        /// The file or field.
        what: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Programs or headers that this machine lacks.
    #[error("{}", missing_text(.0))]
    Missing(Vec<crate::tool::Need>),
    /// A program that ended with an error.
    #[error("{program} failed ({status}){}", indent(.output))]
    Program {
        /// With the arguments that tell it apart.
        program: String,
        /// As the system reports it.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// A pinned version is no longer served.
    #[error(
        "{name} {version} has left the Debian mirror ({suite}).{} Move the pin with: image-builder update {name}",
        newest.as_ref().map(|v| format!(" The newest of its line is {v}.")).unwrap_or_default()
    )]
    Gone {
        /// Package.
        name: String,
        /// The version in `inputs.lock`.
        version: String,
        /// The suite that it came from.
        suite: String,
        /// What could replace it.
        newest: Option<String>,
    },
    /// Bytes that aren't the ones that `inputs.lock` names.
    #[error(
        "{name} {version} from the mirror isn't what inputs.lock names: SHA-256 is {found}, not {wanted}"
    )]
    Hash {
        /// Package.
        name: String,
        /// Version.
        version: String,
        /// What came.
        found: String,
        /// What was pinned.
        wanted: String,
    },
    /// Something is needed from the network, and `--offline` was given.
    #[error(
        "{0} isn't in the cache, and --offline forbids to fetch it; run once without --offline"
    )]
    Offline(String),
    /// Options that didn't survive Kconfig.
    #[error("kernel {kernel}: {} of the options asked for did not survive:{}", lost.len(), lines(lost))]
    Options {
        /// "node x86_64".
        kernel: String,
        /// A line for each: option, asked for, found.
        lost: Vec<String>,
    },
    /// Drivers and blobs that don't fit together.
    #[error("kernel-config/firmware.toml doesn't fit the kernel:{}", lines(.0))]
    Firmware(Vec<String>),
    /// An image that grew too large.
    #[error("too large:{}", lines(.0))]
    Size(Vec<String>),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A broken rule of form.
    pub fn form(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Form { what: what.into(), why: why.into() }
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

/// Makes a folder with its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("make the folder", path))
}

/// Writes a file beside its place and moves it there: a reader sees all of it or nothing. Leaves a file
/// that has these bytes already untouched, with its time.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let same_size = path.metadata().is_ok_and(|m| m.len() == bytes.len() as u64);
    if same_size && std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    make_dir(dir)?;
    let mut part = tempfile::NamedTempFile::new_in(dir).map_err(Error::io("write in", dir))?;
    io::Write::write_all(&mut part, bytes).map_err(Error::io("write", path))?;
    publish(part, path)
}

/// Gives a finished temporary file its name, readable by all.
pub(crate) fn publish(part: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o644);
    part.as_file().set_permissions(mode).map_err(Error::io("set the mode of", path))?;
    part.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    Ok(())
}

fn lines(items: &[String]) -> String {
    items.iter().fold(String::new(), |mut text, item| {
        let _ = write!(text, "\n  {item}");
        text
    })
}

fn indent(output: &str) -> String {
    output.lines().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n  | {line}");
        text
    })
}

fn missing_text(needs: &[crate::tool::Need]) -> String {
    let mut packages: Vec<&str> = needs.iter().map(|n| n.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let names: Vec<&str> = needs.iter().map(|n| n.name).collect();
    format!(
        "this machine lacks {}; install with: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    )
}
