//! The children of PID 1: ours are waited for by name, all others are reaped as they end.
//!
//! ```text
//!  spawn ─ lock: fork, note the pid ─▶ running ─▶ ended(exit) ─▶ taken by who waits
//!  reaper: somebody ended ─ lock: kill what is left of its group, reap; noted? tell : forget
//! ```
//!
//! A pid is signalled under the lock and only while it is noted as running, so it is never another's.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use zos_agent::Exit;

/// How long the reaper sleeps when there is nobody to reap.
const NOBODY: Duration = Duration::from_secs(1);

/// Processes that were started here: none while they run, else how they ended.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    noted: Mutex<BTreeMap<i32, Option<Exit>>>,
    changed: Condvar,
}

impl Processes {
    /// With its reaper. Nobody else may wait for children of this process.
    pub(crate) fn with_reaper() -> io::Result<Arc<Self>> {
        let processes = Arc::new(Self::default());
        let ours = processes.clone();
        thread::Builder::new().name("reaper".into()).spawn(move || ours.reap())?;
        Ok(processes)
    }

    /// Starts a process that leads a group of its own; it has to be waited for.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut noted = self.lock();
        let child = command.spawn()?;
        noted.insert(pid_of(&child), None);
        self.changed.notify_all();
        Ok(child)
    }

    /// Waits for its end.
    pub(super) fn wait(&self, pid: i32) -> Exit {
        let mut noted = self.lock();
        loop {
            match noted.get(&pid) {
                Some(None) => {
                    noted = self.changed.wait(noted).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Some(exit)) => {
                    let exit = *exit;
                    noted.remove(&pid);
                    return exit;
                }
                // Taken already, which nobody does twice.
                None => return Exit::Code(0),
            }
        }
    }

    /// Signals it with its whole group, if it runs.
    pub(super) fn signal(&self, pid: i32, signal: Signal) {
        let noted = self.lock();
        if noted.get(&pid) == Some(&None) {
            // Before it leads a group, it is signalled alone.
            if killpg(Pid::from_raw(pid), signal).is_err() {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Whether it has not ended.
    pub(super) fn runs(&self, pid: i32) -> bool {
        self.lock().get(&pid) == Some(&None)
    }

    fn reap(&self) {
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.take(pid);
                    }
                }
                Err(Errno::ECHILD) => {
                    let noted = self.lock();
                    let _ = self.changed.wait_timeout(noted, NOBODY);
                }
                Err(_) => {}
            }
        }
    }

    fn take(&self, pid: Pid) {
        let mut noted = self.lock();
        let place = noted.get_mut(&pid.as_raw());
        if place.is_some() {
            // As long as its leader isn't reaped the group's number is nobody else's.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let exit = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(255)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                Exit::Signal(u8::try_from(signal as i32).unwrap_or(0))
            }
            _ => return,
        };
        if let Some(place) = place {
            *place = Some(exit);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Option<Exit>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}
