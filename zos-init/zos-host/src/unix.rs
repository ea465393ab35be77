//! Unix stream sockets that keep nobody waiting.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as join, socket_with,
};

use crate::error::{Context, Result};

/// Connects to a listening socket now or not at all: one whose queue is full refuses. Reads and writes of the result
/// don't block either.
pub fn connect(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .during("make socket for", path.display())?;
    let address = SocketAddrUnix::new(path).during("connect", path.display())?;
    join(&socket, &address).during("connect", path.display())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_full_queue_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(connect(&path).is_err());
        let listener = UnixListener::bind(&path).unwrap();
        let mut taken = Vec::new();
        // More than any queue holds; a blocking connect would wait for ever here.
        while let Ok(socket) = connect(&path) {
            taken.push(socket);
            assert!(taken.len() < 100_000);
        }
        assert!(!taken.is_empty());
        drop(listener);
        assert!(connect(&path).is_err());
    }
}
