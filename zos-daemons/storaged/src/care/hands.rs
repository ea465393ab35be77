//! Care's hands on a node: smartctl and btrfs as programs, sysfs, and one ioctl.
//!
//! ```text
//!  ask   smartctl -n standby,5 ─▶ JSON ─▶ smart     30 s, then it is ended: a sick disk may hold it for ever
//!  rest  smartctl -s standby,now
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use zos_host::block::{Bus, Disk};
use zos_host::btrfs::{self, Scrubbed};
use zos_host::process::idle_at_disks;
use zos_types::disk::Health;

use super::look::{self, Look};
use super::port::Hands;
use super::{images, smart};
use crate::Places;

/// A disk answers within seconds, also one whose motor must start first.
const ANSWER: Duration = Duration::from_secs(30);
/// Moving what chunks hold takes its time.
const BALANCE: Duration = Duration::from_secs(3600);

/// The node's.
#[derive(Debug)]
pub struct Node(pub Places);

/// How a program ended.
struct Ended {
    output: Vec<u8>,
    error: Vec<u8>,
    /// None: by a signal.
    exit: Option<i32>,
}

impl Node {
    fn smartctl(&self, arguments: &[&str], disk: &Disk) -> Result<Ended, String> {
        let mut command = Command::new(&self.0.smartctl);
        command.arg("--json=c").args(arguments).arg(disk.path());
        run(&mut command, ANSWER)
    }

    fn ask_by(&self, way: &[&str], disk: &Disk) -> Result<Ended, String> {
        let standby = format!("standby,{}", smart::ASLEEP);
        let mut arguments = vec!["-n", &standby, "-i", "-H", "-A", "-l", "ssd"];
        arguments.extend(way);
        self.smartctl(&arguments, disk)
    }
}

impl Hands for Node {
    fn ask(&self, disk: &Disk) -> Result<Health, String> {
        let said = self.ask_by(&[], disk)?;
        if disk.bus == Bus::Usb && smart::is_unknown_bridge(&said.output) {
            // Most bridges that are in no list pass ATA's commands on all the same.
            let said = self.ask_by(&["-d", "sat"], disk)?;
            return Ok(smart::read(&said.output, said.exit).unwrap_or_else(|_| smart::unknown()));
        }
        smart::read(&said.output, said.exit).map_err(|error| error.to_string())
    }

    fn look(&self, disk: &Disk) -> Look {
        look::look(&self.0.root, &disk.name)
    }

    fn scrub(&self, root: &Path, device: u64, from: u64, to: u64) -> Result<Scrubbed, String> {
        let root = root.to_path_buf();
        // In a thread of its own, whose priority at disks ends with it.
        let scrub = move || {
            if let Err(error) = idle_at_disks() {
                tracing::debug!("scrubbing with everybody's priority: {error}");
            }
            let folder = File::open(&root).map_err(|error| error.to_string())?;
            btrfs::scrub(&folder, device, from, to).map_err(|error| in_words(&error))
        };
        thread::spawn(scrub).join().unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    fn collect(&self, root: &Path, wanted: u64) -> Result<u64, String> {
        images::collect(root, wanted).map_err(|error| error.to_string())
    }

    fn balance(&self, root: &Path, filled: u8) -> Result<(), String> {
        let mut command = Command::new(&self.0.btrfs);
        command.args(["balance", "start", &format!("-dusage={filled}")]).arg(root);
        told(&run(&mut command, BALANCE)?)
    }

    fn rest(&self, disk: &Disk) -> Result<(), String> {
        let said = self.smartctl(&["-s", "standby,now"], disk)?;
        match said.exit {
            Some(0) => Ok(()),
            _ => Err(format!("smartctl ended with {:?}", said.exit)),
        }
    }
}

fn told(ended: &Ended) -> Result<(), String> {
    let said = String::from_utf8_lossy(&ended.error);
    let said: Vec<&str> = said.split_whitespace().collect();
    match ended.exit {
        Some(0) => Ok(()),
        _ => Err(said.join(" ").chars().take(300).collect()),
    }
}

fn in_words(error: &dyn std::error::Error) -> String {
    zos_daemon::CallError::failed(error).to_string()
}

/// Runs a program to its end, or ends it after a time. One that the kernel can't end is left to itself: a
/// thread waits for it.
fn run(command: &mut Command, limit: Duration) -> Result<Ended, String> {
    let program = PathBuf::from(command.get_program());
    let failed = |what: &str| format!("{}: {what}", program.display());
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| failed(&error.to_string()))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let handle = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let (ended, wait) = mpsc::channel();
    thread::spawn(move || {
        let errors = child.stderr.take().map(|pipe| thread::spawn(move || bounded(pipe)));
        let output = child.stdout.take().map(bounded).unwrap_or_default();
        let error = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let exit = child.wait().ok().and_then(|status| status.code());
        let _ = ended.send(Ended { output, error, exit });
    });
    match wait.recv_timeout(limit) {
        Ok(ended) => Ok(ended),
        Err(RecvTimeoutError::Disconnected) => Err(failed("it was lost")),
        Err(RecvTimeoutError::Timeout) => {
            if let Some(handle) = handle {
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
            Err(failed(&format!("no answer within {} s", limit.as_secs())))
        }
    }
}

/// What a program says, read to its end so that it never waits for us, and kept up to a bound.
fn bounded(mut pipe: impl Read) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 8192]);
    while let Ok(length) = pipe.read(&mut piece) {
        if length == 0 {
            break;
        }
        let room = smart::LONGEST.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..length.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: u64) -> Result<Ended, String> {
        run(Command::new("/bin/sh").args(["-c", script]), Duration::from_secs(limit))
    }

    #[test]
    fn programs_are_run_to_their_end_or_ended() {
        let ended = shell("echo out; echo err >&2; exit 5", 60).unwrap();
        assert_eq!((&ended.output[..], ended.exit), (&b"out\n"[..], Some(5)));
        assert_eq!(told(&ended).unwrap_err(), "err");
        // More than a pipe holds on both, and more than is kept.
        let ended = shell("head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2", 60).unwrap();
        assert_eq!(
            (ended.output.len(), ended.error.len(), ended.exit),
            (1 << 20, 300_000, Some(0))
        );
        assert_eq!(shell("kill -9 $$", 60).unwrap().exit, None);
        assert_eq!(shell("exec sleep 600", 1).err().unwrap(), "/bin/sh: no answer within 1 s");
        let missing = run(&mut Command::new("/nonexistent/x"), Duration::from_secs(1));
        assert!(missing.err().unwrap().starts_with("/nonexistent/x: "));
    }
}
