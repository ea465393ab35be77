//! A simulated server of a share: what PID 1 starts from the template `virtiofsd` in place of `zos-virtiofsd`.
//! It has the folder, waits for its VM, and ends with it. The simulated guest looks into no folder.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use zos_api::local::init::Exit;

use super::Event;

/// A server that was handed all it needs.
#[derive(Debug)]
pub(crate) struct Server {
    socket: UnixListener,
    /// Held as long as it serves, as the real one does.
    _folder: File,
}

impl Server {
    /// Takes up what PID 1 passed.
    pub(crate) fn new(names: &[String], fds: Vec<OwnedFd>) -> io::Result<Self> {
        let (mut socket, mut folder) = (None, None);
        for (name, fd) in names.iter().zip(fds) {
            match name.as_str() {
                "socket" => socket = Some(std::os::unix::net::UnixListener::from(fd)),
                "folder" => folder = Some(File::from(fd)),
                _ => {
                    return Err(io::Error::other(format!(
                        "a descriptor named `{name}` was passed"
                    )));
                }
            }
        }
        let missing = || io::Error::other("the descriptors `socket` and `folder` are needed");
        let (socket, folder) = (socket.ok_or_else(missing)?, folder.ok_or_else(missing)?);
        if !folder.metadata()?.is_dir() {
            return Err(io::Error::other("`folder` is none"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixListener::from_std(socket)?, _folder: folder })
    }

    /// Serves until its VM is gone, or a signal comes.
    pub(crate) async fn run(self, mut events: mpsc::UnboundedReceiver<Event>) -> Exit {
        let serve = async {
            let Ok((mut vm, _)) = self.socket.accept().await else { return };
            let mut buffer = [0; 64];
            while vm.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        };
        let signal = async {
            loop {
                match events.recv().await {
                    Some(Event::Kill(signal)) => return signal,
                    // As SIGTERM ends the real one.
                    Some(Event::Button) => return 15,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = serve => Exit { code: Some(0), signal: None, oom: false },
            signal = signal => Exit { code: None, signal: Some(signal), oom: false },
        }
    }
}
