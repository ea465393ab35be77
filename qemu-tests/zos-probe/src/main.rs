//! A hand inside a node under test: lines of commands on the second serial port, a line of JSON for each.
//!
//! ```text
//!  hello                      connect IP:PORT        kill NAME      pss        zombies        beside PID
//!  cat PATH                   http IP:PORT PATH      run ["PROGRAM", "ARGUMENT", ..]
//!  write PATH TEXT            mkdir PATH             signal NAME|PID SIGNAL
//!  ls PATH                    freeze CGROUP 0|1      as UID ["PROGRAM", ..]
//!  udp start IP:PORT MILLIS   udp stop               spawn ["PROGRAM", ..]
//!  copy PATH PATH
//!  many SOCKET METHOD COUNT JSON
//!  varlink SOCKET METHOD JSON                        watch SOCKET METHOD COUNT MILLIS JSON
//!  follow SOCKET METHOD JSON  ─▶ {"told": ..} for each reply, until the end
//!  start NAME ["PROGRAM", ..]   ended NAME MILLIS   until NAME MILLIS TEXT   tail NAME BYTES
//!  relive NAME                (of the bench: kill its service, wait for the next start)
//!  ─▶ {"command": "...", "ok": ...}  or  {"command": "...", "error": "..."}
//! ```
//!
//! The same program plays bad services (`act`), and is the init of the bench's guests (`guest`). It is root and has no lock on it: tests add it to an image; the image that we ship has none.
#![forbid(unsafe_code)]

mod act;
mod bench;
mod calls;
mod datagrams;
mod guest;
mod process;
mod programs;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use datagrams::Datagrams;
use programs::Programs;
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
        [_, "speed", disk, seconds] => {
            return guest::speed(disk, seconds).map(|()| ExitCode::SUCCESS);
        }
        [_, "serve"] => return guest::net::serve().map(|()| ExitCode::SUCCESS),
        [_, "shout", mib] => match bench::shout(mib)? {},
        _ => {}
    }
    if std::process::id() == 1 {
        match guest::init()? {}
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
    let mut programs = Programs::default();
    for line in BufReader::new(port.try_clone().context("share the port")?).lines() {
        let Ok(line) = line else { continue };
        let command = line.trim();
        let mut answer = match obey(command, &port, &mut datagrams, &mut programs) {
            Ok(value) => json!({"ok": value}),
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        answer["command"] = command.into();
        writeln!(port, "{answer}").context("answer")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn obey(
    command: &str,
    port: &File,
    datagrams: &mut Datagrams,
    programs: &mut Programs,
) -> Result<Value> {
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
        "copy" => {
            let (from, to) = rest.split_once(' ').context("copy PATH PATH")?;
            let bytes = std::fs::copy(from, to).with_context(|| format!("copy {from} to {to}"))?;
            Ok(bytes.into())
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
        "many" => calls::many(rest),
        "watch" => calls::watch(rest),
        "follow" => calls::follow(rest, port.try_clone().context("share the port")?),
        "spawn" => process::spawn(rest),
        "start" => programs.start(rest),
        "ended" => programs.ended(rest),
        "until" => programs::until(rest),
        "tail" => programs::tail(rest),
        "as" => process::run_as(rest),
        "zombies" => process::zombies(),
        "pss" => process::all(),
        "beside" => process::beside(rest),
        "run" => process::run(rest),
        "answers" => process::answers(rest),
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
