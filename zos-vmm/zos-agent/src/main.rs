//! zos-agent: a hand inside a micro-VM, for developers and tests.
//!
//! ```text
//!  VM's vsock socket ─▶ CONNECT 1024 ─▶ one call ─▶ its answer as JSON, or a process with our stdin,
//!                                                   stdout, stderr, signals' codes
//! ```
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stderr, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use zos_agent::{Answer, Event, Exec, Frame, Host, LONGEST, Power, Request, Terminal, User};

const EXAMPLES: &str = "\
Examples:
  zos-agent vm.vsock describe
  zos-agent vm.vsock exec -- cat /proc/meminfo
  zos-agent vm.vsock exec --terminal --env TERM=xterm -- sh
  zos-agent vm.vsock call '{\"mount\":{\"source\":\"home\",\"target\":\"/mnt\",\"kind\":\"virtiofs\"}}'

The exit code of exec is the process' own, 128 + N when signal N ended it, 255 when there was none.";

/// Speaks to zos-guest, PID 1 of a micro-VM.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// Unix socket of the VM's vsock device.
    socket: PathBuf,
    /// The socket is the agent's own (`zos-guest agent PATH`).
    #[arg(long)]
    direct: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Who it is.
    Describe,
    /// How it fares.
    Stats,
    /// Run a process.
    Exec {
        /// On a terminal; ours is raw meanwhile.
        #[arg(long, short)]
        terminal: bool,
        /// As whom.
        #[arg(long, value_name = "UID[:GID]", value_parser = user)]
        user: Option<User>,
        /// Working folder.
        #[arg(long, value_name = "DIR")]
        folder: Option<String>,
        /// A variable; may be given again.
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Program and arguments.
        #[arg(required = true, last = true)]
        arguments: Vec<String>,
    },
    /// Any other call, as JSON.
    Call {
        /// The request.
        request: String,
    },
    /// End the machine.
    PowerOff,
    /// Start it anew.
    Reboot,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("zos-agent: {error:#}");
            255.into()
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    let mut host = connect(&cli.socket, cli.direct)?;
    let request = match cli.command {
        Command::Describe => Request::Describe,
        Command::Stats => Request::Stats,
        Command::PowerOff => Request::Power(Power::Off),
        Command::Reboot => Request::Power(Power::Reboot),
        Command::Call { request } => {
            serde_json::from_str(&request).context("understand the request")?
        }
        Command::Exec { terminal, user, folder, env, arguments } => {
            let terminal = if terminal { Some(dimensions()?) } else { None };
            let exec = Exec { arguments, environment: env, folder, user, root: None, terminal };
            return process(host, exec);
        }
    };
    match host.call(request)? {
        Answer::Done => {}
        answer => println!("{}", serde_json::to_string_pretty(&answer)?),
    }
    Ok(0)
}

fn connect(socket: &Path, direct: bool) -> Result<Host<UnixStream>> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    if direct { Ok(Host::new(stream)) } else { Ok(Host::connect(stream)?) }
}

/// Runs it with our ends of its pipes; gives its code.
fn process(mut host: Host<UnixStream>, exec: Exec) -> Result<u8> {
    let _raw = exec.terminal.map(|_| Raw::enter()).transpose()?;
    host.exec(exec)?;
    let input = host.stream().try_clone().context("speak and listen at once")?;
    // Ends with us: nobody can wait for a terminal's input to end.
    thread::spawn(move || feed(input));
    loop {
        match host.event()? {
            Event::Stdout(bytes) => {
                stdout().write_all(&bytes)?;
                stdout().flush()?;
            }
            Event::Stderr(bytes) => stderr().write_all(&bytes)?,
            Event::Exit(exit) => return Ok(exit.code()),
        }
    }
}

fn feed(mut to: UnixStream) {
    let mut piece = vec![0; LONGEST / 4];
    loop {
        // The end of our input, and an error, is the end of the process' input.
        let count = stdin().read(&mut piece).unwrap_or(0);
        let Ok(bytes) = Frame::Stdin(piece[..count].to_vec()).encode() else { return };
        if to.write_all(&bytes).is_err() || count == 0 {
            return;
        }
    }
}

fn dimensions() -> Result<Terminal> {
    if !isatty(stdin()) {
        bail!("--terminal: our own input is no terminal");
    }
    let size = tcgetwinsize(stdin()).context("ask our terminal for its size")?;
    Ok(Terminal { rows: size.ws_row, columns: size.ws_col })
}

/// Our terminal hands on what is typed; as it was again at the end.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("ask our terminal for its mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("make our terminal raw")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

fn user(text: &str) -> Result<User, std::num::ParseIntError> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok(User { uid: uid.parse()?, gid: gid.parse()?, groups: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let found =
            Cli::try_parse_from(["zos-agent", "s", "exec", "--user", "1:2", "--", "ls", "-l"]);
        let Command::Exec { user, arguments, .. } = found.unwrap().command else { panic!() };
        assert_eq!(user, Some(User { uid: 1, gid: 2, groups: Vec::new() }));
        assert_eq!(arguments, ["ls", "-l"]);
        assert!(Cli::try_parse_from(["zos-agent", "s", "exec"]).is_err());
    }
}
