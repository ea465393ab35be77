//! The Unix sockets of a VM. vmd binds them and passes them on listening, so that the VMM makes none;
//! they stay for as long as the VM is there, whoever of the two starts anew.
//!
//! ```text
//!  /run/zos/vm/<slot>/api       the VMM's interface: vmd asks it what went through the devices
//!  /run/zos/vm/<slot>/serial    the interactive console
//!  /run/zos/vm/<slot>/vsock     to the guest's own ports
//!  /run/zos/vm/<slot>/share     to the server of a share, until the VMM is connected to it
//! ```
//! The folder is vmd's user's alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// One of a VM's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// The VMM's interface.
    Api,
    /// The serial port.
    Serial,
    /// To the guest's ports.
    Vsock,
    /// To the server of a share.
    Share,
}

impl Socket {
    /// Where it lies in a VM's folder.
    pub fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Api => "api",
            Self::Serial => "serial",
            Self::Vsock => "vsock",
            Self::Share => "share",
        })
    }

    /// Binds it anew: what an earlier VMM listened to answers nobody.
    pub fn bind(self, folder: &Path) -> io::Result<UnixListener> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.path(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(path)
    }
}

/// Unlinks all of a VM's. Who is connected stays so.
pub fn unlink(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_bound_anew_and_unlinked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("7");
        let first = Socket::Api.bind(&folder).unwrap();
        let second = Socket::Api.bind(&folder).unwrap();
        let connected = UnixStream::connect(Socket::Api.path(&folder)).unwrap();
        second.set_nonblocking(true).unwrap();
        first.set_nonblocking(true).unwrap();
        assert!(second.accept().is_ok() && first.accept().is_err());
        Socket::Vsock.bind(&folder).unwrap();
        unlink(&folder).unwrap();
        assert!(!folder.exists());
        unlink(&folder).unwrap();
        drop(connected);
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Socket::Api.bind(&dir.path().join("a/b")).is_err());
    }
}
