//! Unix sockets that we listen on: passed in the jail, bound by ourselves for developers.
//!
//! ```text
//!  path ─▶ nothing there            ─▶ bind
//!       ─▶ a socket, nobody answers ─▶ remove it, bind        (a VMM before us was killed)
//!       ─▶ a socket that answers    ─▶ refused
//!       ─▶ another kind of file     ─▶ refused
//! ```
//!
//! What was bound is removed at the end by the [`crate::keeper`]: we have given up every path by
//! then.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::sockopt::socket_acceptconn;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket's file that we made, and that nobody replaced since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    path: PathBuf,
    /// Device, inode, and time of the last change: an inode is soon used again.
    identity: (u64, u64, i64, i64),
}

/// Takes over a passed descriptor; it doesn't block afterwards.
///
/// # Errors
/// It doesn't listen.
pub fn adopt(fd: OwnedFd) -> io::Result<OwnedFd> {
    if !socket_acceptconn(&fd)? {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a listening socket"));
    }
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// Binds a path; the socket doesn't block.
///
/// # Errors
/// Somebody listens there, another kind of file is there, or the folder can't be written.
pub fn bind(path: &Path) -> io::Result<(OwnedFd, Bound)> {
    match path.symlink_metadata() {
        Ok(file) if file.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            _ => return Err(ErrorKind::AddrInUse.into()),
        },
        Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let file = path.symlink_metadata()?;
    let bound = Bound { path: std::path::absolute(path)?, identity: identity(&file) };
    Ok((listener.into(), bound))
}

fn identity(file: &Metadata) -> (u64, u64, i64, i64) {
    (file.dev(), file.ino(), file.ctime(), file.ctime_nsec())
}

impl Bound {
    /// Removes the file, if it still is the one that we made.
    pub fn remove(&self) {
        if self.path.symlink_metadata().is_ok_and(|file| identity(&file) == self.identity) {
            // Nobody is left to be told that it can't be removed; the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (first, bound) = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        let (_second, _) = bind(&path).unwrap();
        // The first one's end doesn't take the second one's file away, nor what isn't a socket.
        bound.remove();
        UnixStream::connect(&path).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn what_was_bound_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_listener, bound) = bind(&path).unwrap();
        bound.remove();
        assert!(!path.exists());
    }

    #[test]
    fn only_a_listening_socket_is_adopted() {
        let (one, _two) = UnixStream::pair().unwrap();
        assert_eq!(adopt(one.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(adopt(tempfile::tempfile().unwrap().into()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        adopt(listener.into()).unwrap();
    }
}
