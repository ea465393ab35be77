//! Cleans up behind a developer's VMM, however it ends: the terminal becomes a usual one again, and
//! the sockets that we bound are removed.
//!
//! ```text
//!  VMM ── fork ──▶ keeper: waits until the pipe's other end is gone ──▶ cleans up, ends
//!   └─ holds the pipe; its end, a panic or a signal closes it
//! ```
//!
//! A process of its own, since the VMM has given up paths and most system calls by then, and may
//! be killed. In the jail there's nothing to clean up, and no keeper.
#![allow(unsafe_code)]

use crate::sockets::Bound;
use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::OwnedFd;

/// What has to be cleaned up: by a keeper, or when this is dropped before one has it.
#[derive(Debug, Default)]
pub struct Remains {
    /// Socket files.
    pub sockets: Vec<Bound>,
    /// A terminal, and how it was.
    pub terminal: Option<Terminal>,
}

/// A terminal that was made raw: every key goes to the guest.
#[derive(Debug)]
pub struct Terminal {
    tty: OwnedFd,
    before: Termios,
}

/// Cleans up when it is dropped, and waits for that; or when the process ends.
#[derive(Debug)]
pub struct Keeper {
    life: Option<OwnedFd>,
    done: OwnedFd,
}

impl Terminal {
    /// Makes it raw.
    ///
    /// # Errors
    /// It isn't a terminal.
    pub fn make_raw(tty: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&tty)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&tty, OptionalActions::Now, &raw)?;
        Ok(Self { tty, before })
    }

    fn restore(&self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.tty, OptionalActions::Flush, &self.before);
    }
}

impl Remains {
    fn clean_up(&self) {
        self.terminal.iter().for_each(Terminal::restore);
        self.sockets.iter().for_each(Bound::remove);
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.clean_up();
    }
}

impl Keeper {
    /// Starts one, if there is anything to clean up, and gives it that.
    ///
    /// # Errors
    /// No process or descriptor left.
    pub fn start(remains: &mut Remains) -> io::Result<Option<Self>> {
        if remains.sockets.is_empty() && remains.terminal.is_none() {
            return Ok(None);
        }
        let keeper = Self::fork(remains)?;
        (remains.sockets, remains.terminal) = (Vec::new(), None);
        Ok(Some(keeper))
    }

    fn fork(remains: &Remains) -> io::Result<Self> {
        let (watch, life) = pipe_with(PipeFlags::CLOEXEC)?;
        let (done, end) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child makes system calls and allocates paths; it runs alone in its copy of
        // the process, and the C library keeps the allocator usable over a fork.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                waitpid(child, None)?;
                Ok(Self { life: Some(life), done })
            }
            ForkResult::Child => {
                drop((life, done));
                // Neither Ctrl-C nor a terminal that hangs up ends it before its time.
                let _ = SigSet::all().thread_block();
                // SAFETY: as above. The keeper is nobody's child that we would have to bury: by the
                // time that it ends we may not ask for it.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    wait(&watch);
                    remains.clean_up();
                    drop(end);
                }
                // SAFETY: ends the process at once; nothing of the parent's is flushed twice.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.life.take());
        wait(&self.done);
    }
}

/// Returns when the other end is closed.
fn wait(pipe: &OwnedFd) {
    loop {
        match rustix::io::read(pipe, &mut [0; 1]) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets;
    use nix::pty::openpty;
    use rustix::termios::LocalModes;

    #[test]
    fn terminal_and_sockets_are_as_before() {
        let pty = openpty(None, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let echoes = || tcgetattr(&pty.slave).unwrap().local_modes.contains(LocalModes::ECHO);
        let (_listener, bound) = sockets::bind(&path).unwrap();
        assert!(echoes());
        let terminal = Terminal::make_raw(pty.slave.try_clone().unwrap()).unwrap();
        assert!(!echoes());
        let mut remains = Remains { sockets: vec![bound], terminal: Some(terminal) };
        let keeper = Keeper::start(&mut remains).unwrap();
        drop(remains);
        assert!(!echoes() && path.exists());
        drop(keeper);
        assert!(echoes() && !path.exists());
    }

    #[test]
    fn nothing_to_keep_needs_no_keeper() {
        assert!(Keeper::start(&mut Remains::default()).unwrap().is_none());
    }
}
