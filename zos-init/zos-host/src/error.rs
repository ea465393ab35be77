//! One error for the whole floor: the operation, the object, and the kernel's reason as `source`.

use std::fmt::Display;
use std::io;

/// What was tried, on which object; the cause is the `source`.
///
/// Shown with its cause by anyhow's `{:#}`: `mount /state: No such device (os error 19)`.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct Error {
    operation: &'static str,
    object: String,
    source: io::Error,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `operation` on `object`.
    pub fn new(
        operation: &'static str,
        object: impl Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { operation, object: object.to_string(), source: source.into() }
    }

    /// The same for input that makes no sense, where no system call failed.
    pub fn invalid(operation: &'static str, object: impl Display, why: impl Display) -> Self {
        Self::new(operation, object, io::Error::new(io::ErrorKind::InvalidData, why.to_string()))
    }

    /// What kind of failure the cause is.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number, if the kernel said no.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Operation, object and cause in one line, for logs without an error chain.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// Names the operation and the object of a failed call.
pub trait Context<T> {
    /// `open(path).during("open", path)`.
    fn during(self, operation: &'static str, object: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn during(self, operation: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|source| Error::new(operation, object, source))
    }
}
