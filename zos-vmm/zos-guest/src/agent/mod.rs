//! The agent: does in this machine what its host asks for (the crate `zos-agent` has the words).
//!
//! ```text
//!  vsock port 1024 ─▶ accept ─▶ a thread for each connection ─▶ one request
//!                                  ├─ most: done, answered, over
//!                                  └─ exec: session, until the process ends
//!  processes: started under one lock, reaped by one thread (orphans, too: we are PID 1)
//! ```
//!
//! For developers it listens on a Unix socket, in any process: `zos-guest agent PATH`.

mod mounts;
mod processes;
mod serve;
mod session;
mod stats;

pub(crate) use processes::Processes;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};
use rustix::net::{SocketFlags, accept_with};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connections at a time; one more is closed at once.
const MOST: usize = 64;
const STACK: usize = 128 << 10;
/// `VMADDR_CID_ANY`.
const ANY: u32 = u32::MAX;

/// Starts the agent of this machine. Without a vsock device there is none.
pub(crate) fn spawn(processes: Arc<Processes>) -> io::Result<()> {
    let listener = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &VsockAddr::new(ANY, zos_agent::PORT))?;
    listen(&listener, Backlog::new(16)?)?;
    thread::Builder::new().name("agent".into()).spawn(move || accept(&listener, &processes))?;
    Ok(())
}

/// The agent of a developer, on a Unix socket; never ends.
pub(crate) fn on_socket(path: &Path, processes: &Arc<Processes>) -> io::Result<()> {
    let listener = OwnedFd::from(UnixListener::bind(path)?);
    accept(&listener, processes);
    Ok(())
}

fn accept(listener: &OwnedFd, processes: &Arc<Processes>) {
    let served = Arc::new(AtomicUsize::new(0));
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => {
                let place = Place::take(&served);
                let processes = processes.clone();
                let serve = move || {
                    // Closed at once when there is no place.
                    if place.is_some() {
                        serve::serve(&File::from(connection), &processes);
                    }
                };
                let thread = thread::Builder::new().name("call".into()).stack_size(STACK);
                let _ = thread.spawn(serve);
            }
            // Out of descriptors or memory: others have to end first.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// One of the connections that are served at a time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(served: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(served.clone());
        (served.fetch_add(1, Ordering::Relaxed) < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
