//! A hand inside a node under test: lines of commands on the second serial port, a line of JSON for each.
//!
//! ```text
//!  hello                      connect IP:PORT        kill NAME      pss        zombies
//!  cat PATH                   http IP:PORT PATH      run ["PROGRAM", "ARGUMENT", ..]
//!  write PATH TEXT            mkdir PATH             signal NAME|PID SIGNAL
//!  ls PATH                    freeze CGROUP 0|1      as UID ["PROGRAM", ..]
//!  udp start IP:PORT MILLIS   udp stop               spawn ["PROGRAM", ..]
//!  varlink SOCKET METHOD JSON                        watch SOCKET METHOD COUNT MILLIS JSON
//!  follow SOCKET METHOD JSON  ─▶ {"told": ..} for each reply, until the end
//!  relive NAME                (of the bench: kill its service, wait for the next start)
//!  ─▶ {"command": "...", "ok": ...}  or  {"command": "...", "error": "..."}
//! ```
//!
//! The same program plays bad services (`act`). It is root and has no lock on it: tests add it to an image; the image that we ship has none.
#![forbid(unsafe_code)]

mod act;
mod bench;
mod calls;
mod datagrams;
mod process;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use datagrams::Datagrams;
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

const PORT: &str = "/dev/ttyS1";
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        _ if std::process::id() == 1 && Path::new(bench::INIT).exists() => match bench::init()? {},
        ["./run", ..] => match bench::run()? {},
        [_, "stamp", name] => match bench::stamp(name)? {},
        [_, "go"] => return bench::go().map(|()| ExitCode::SUCCESS),
        [_, "act", ref part @ ..] => return act::act(part).map(ExitCode::from),
        [_, "shout", mib] => match bench::shout(mib)? {},
        _ => {}
    }
    if std::process::id() == 1 {
        // The init of the bench's guests: they end where others begin.
        tell_the_vmm();
        reboot(RebootCommand::Restart).context("ask for a reboot")?;
    }
    let mut port = File::options()
        .read(true)
        .write(true)
        .open(PORT)
        .with_context(|| format!("open {PORT}"))?;
    let mut modes = tcgetattr(&port).context("read the port's modes")?;
    modes.make_raw();
    tcsetattr(&port, OptionalActions::Now, &modes).context("make the port raw")?;
    // Where parts wait for their word.
    std::fs::create_dir_all("/run/act").context("make /run/act")?;
    let mut datagrams = Datagrams::default();
    for line in BufReader::new(port.try_clone().context("share the port")?).lines() {
        let Ok(line) = line else { continue };
        let command = line.trim();
        let mut answer = match obey(command, &port, &mut datagrams) {
            Ok(value) => json!({"ok": value}),
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        answer["command"] = command.into();
        writeln!(port, "{answer}").context("answer")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn obey(command: &str, port: &File, datagrams: &mut Datagrams) -> Result<Value> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    match verb {
        "hello" => Ok("hello".into()),
        "connect" => Ok(TcpStream::connect_timeout(&rest.parse()?, PATIENCE).is_ok().into()),
        "http" => {
            let (to, path) = rest.split_once(' ').context("http IP:PORT PATH")?;
            Ok(get(to.parse()?, path)?.into())
        }
        "cat" => {
            let bytes = std::fs::read(rest).with_context(|| format!("read {rest}"))?;
            Ok(String::from_utf8_lossy(&bytes).into())
        }
        "write" => {
            let (path, text) = rest.split_once(' ').context("write PATH TEXT")?;
            std::fs::write(path, text).with_context(|| format!("write {path}"))?;
            Ok(true.into())
        }
        "mkdir" => {
            std::fs::create_dir_all(rest).with_context(|| format!("make {rest}"))?;
            Ok(true.into())
        }
        "ls" => {
            let entries = std::fs::read_dir(rest).with_context(|| format!("read {rest}"))?;
            let mut names: Vec<String> = entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            Ok(names.into())
        }
        "freeze" => {
            let (group, state) = rest.split_once(' ').context("freeze CGROUP 0|1")?;
            let path = format!("/sys/fs/cgroup/{group}/cgroup.freeze");
            std::fs::write(&path, state).with_context(|| format!("write {path}"))?;
            Ok(true.into())
        }
        "kill" => process::signal(&format!("{rest} KILL")),
        "signal" => process::signal(rest),
        "udp" => datagrams.obey(rest),
        "varlink" => calls::call(rest),
        "watch" => calls::watch(rest),
        "follow" => calls::follow(rest, port.try_clone().context("share the port")?),
        "spawn" => process::spawn(rest),
        "as" => process::run_as(rest),
        "zombies" => process::zombies(),
        "pss" => process::all(),
        "run" => process::run(rest),
        "relive" => bench::relive(rest),
        _ => bail!("no such command"),
    }
}

fn get(to: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    // The other side may itself try a connection before it answers.
    stream.set_read_timeout(Some(4 * PATIENCE)).context("bound a read")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")
        .context("ask")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("read the answer")?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        other => bail!("status {}: {body}", other.unwrap_or("none")),
    }
}

/// Writes the mark of a running init, 0x60 to I/O port 0x80, where the guest has `/dev/port`. A VMM that
/// knows the mark notes the time.
fn tell_the_vmm() {
    use std::os::unix::fs::FileExt as _;
    let mounted = rustix::mount::mount(
        "dev",
        "/dev",
        "devtmpfs",
        rustix::mount::MountFlags::empty(),
        None::<&std::ffi::CStr>,
    );
    let port = File::options().write(true).open("/dev/port");
    if let (Ok(()) | Err(rustix::io::Errno::BUSY), Ok(port)) = (mounted, port) {
        port.write_all_at(&[0x60], 0x80).ok();
    }
}
