//! What a group counts, and the processes in it.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use super::Cgroup;
use crate::error::{Context, Error, Result};

/// What a group counts. What its kernel doesn't count is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Bytes of memory now.
    pub memory: u64,
    /// The most it ever had, bytes.
    pub memory_peak: u64,
    /// Microseconds of CPU time.
    pub cpu_usec: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

impl Cgroup {
    /// What it counts; `None`: it isn't there.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let number = |file: &str| {
            let text = fs::read_to_string(self.path().join(file)).ok();
            text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        self.path().join("cgroup.procs").exists().then(|| Usage {
            memory: number("memory.current"),
            memory_peak: number("memory.peak"),
            cpu_usec: self.event("cpu.stat", "usage_usec").unwrap_or(0),
            pids: number("pids.current"),
            oom_kills: self.oom_kills(),
        })
    }

    /// The processes in it, those below it left out.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let path = self.path().join("cgroup.procs");
        let text = fs::read_to_string(&path).during("read", path.display())?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends a signal to every process in it, and to no other that got the number of one meanwhile; gives how
    /// many there were. One that is born meanwhile may miss it.
    pub fn signal(&self, signal: i32) -> Result<usize> {
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Error::invalid("signal", self.path().display(), "no such signal"))?;
        let open = |pid: i32| {
            let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            Some((pid, fd))
        };
        let held: Vec<_> = self.processes()?.into_iter().filter_map(open).collect();
        // Who is still in the group is the one that the descriptor means.
        let still = self.processes()?;
        let mut reached = 0;
        for (pid, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(fd, signal) {
                Ok(()) => reached += 1,
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).during("signal", pid),
            }
        }
        Ok(reached)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let group = Cgroup::at(dir.path());
        (dir, group)
    }

    #[test]
    fn what_is_counted() {
        let (_dir, group) = group(&[
            ("cgroup.procs", "1\n"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 1\n"),
            ("cpu.stat", "usage_usec 1234\nuser_usec 1000\n"),
            ("pids.current", "7\n"),
        ]);
        let expect =
            Usage { memory: 4096, memory_peak: 8192, cpu_usec: 1234, pids: 7, oom_kills: 2 };
        assert_eq!(group.usage(), Some(expect));
        assert_eq!(Cgroup::at("/nowhere").usage(), None);
    }

    #[test]
    fn a_signal_reaches_those_in_the_group() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let (_dir, group) = group(&[("cgroup.procs", &format!("{}\n", sleeper.id()))]);
        assert_eq!(group.signal(15).unwrap(), 1);
        assert_eq!(sleeper.wait().unwrap().signal(), Some(15));
        // It is gone, and its number with it.
        assert_eq!(group.signal(15).unwrap(), 0);
        assert!(group.signal(0).is_err() && group.signal(900).is_err());
        assert!(Cgroup::at("/nowhere").signal(15).is_err());
    }
}
