//! The last steps before a program: done in its own process, by this program started as `launch`.
//!
//! ```text
//!  agent ─ fork, exec ourselves ─▶ session, terminal ─▶ root ─▶ folder ─▶ user ─▶ exec the program
//! ```
//!
//! So nothing has to be done between fork and exec, where hardly anything may be done. What fails is told
//! on the process' stderr; the exit code is 127 when there is no such program, else 126.

use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{chdir, chroot, ioctl_tiocsctty, setsid};
use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use zos_agent::Exec;

/// Our first argument in that part.
pub(crate) const WORD: &str = "launch";
const CANT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The command that starts ourselves in that part.
pub(crate) fn command(exec: &Exec) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.env_clear().arg0("zos-guest").arg(WORD).arg(serde_json::to_string(exec)?);
    Ok(command)
}

/// Plays that part; returns the exit code when it fails.
pub(crate) fn run(exec: &str) -> u8 {
    let Err((code, why)) = try_run(exec);
    eprintln!("zos-guest: {why}");
    code
}

fn try_run(exec: &str) -> Result<Infallible, (u8, String)> {
    let failed = |what: &str, error: &dyn std::fmt::Display| (CANT_RUN, format!("{what}: {error}"));
    let exec: Exec = serde_json::from_str(exec).map_err(|e| failed("understand the order", &e))?;
    SigSet::empty().thread_set_mask().map_err(|e| failed("unblock signals", &e))?;
    setsid().map_err(|e| failed("begin a session", &e))?;
    if exec.terminal.is_some() {
        ioctl_tiocsctty(io::stdin()).map_err(|e| failed("take the terminal", &e))?;
    }
    if let Some(root) = &exec.root {
        chroot(root).map_err(|e| failed(&format!("enter the root {root}"), &e))?;
    }
    let folder = exec.folder.as_deref().unwrap_or("/");
    chdir(folder).map_err(|e| failed(&format!("enter the folder {folder}"), &e))?;
    if let Some(user) = &exec.user {
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(|e| failed("set the groups", &e))?;
        setgid(Gid::from_raw(user.gid)).map_err(|e| failed("set the group", &e))?;
        setuid(Uid::from_raw(user.uid)).map_err(|e| failed("set the user", &e))?;
    }
    let [program, arguments @ ..] = &exec.arguments[..] else {
        return Err((CANT_RUN, "no program".to_owned()));
    };
    let variables = exec.environment.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let error = Command::new(program).args(arguments).env_clear().envs(variables).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANT_RUN };
    Err((code, format!("{program}: {error}")))
}
