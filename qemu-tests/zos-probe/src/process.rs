//! The node's processes, from `/proc`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Every process in user space with its memory in KiB: `pss` with its share of common pages, `private` without.
pub(crate) fn all() -> Result<Value> {
    let mut list = Vec::new();
    for (pid, words) in processes()? {
        let rollup =
            std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let private = field("Private_Clean:") + field("Private_Dirty:");
        list.push(
            json!({"pid": pid, "name": name(&words), "pss": field("Pss:"), "private": private}),
        );
    }
    Ok(list.into())
}

/// `PID`: KiB that a VMM's process holds beside its guest's memory, which is a memfd. Not `RssFile`: a program that lies in a
/// root of memory counts as shared memory, too.
pub(crate) fn beside(pid: &str) -> Result<Value> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).context("read its memory")?;
    Ok(beside_memfd(&maps).into())
}

/// `Rss` of all mappings but those of memfds (proc_pid_smaps(5)).
fn beside_memfd(maps: &str) -> u64 {
    let (mut counts, mut sum) = (true, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if counts => sum += words.next().and_then(|n| n.parse().ok()).unwrap_or(0),
            // A field ends in a colon; a mapping begins with its addresses.
            Some(first) if !first.ends_with(':') => counts = !line.contains("/memfd:"),
            _ => {}
        }
    }
    sum
}

/// `WHO SIGNAL`: to a process by its number, or to each of a name; how many that were.
pub(crate) fn signal(rest: &str) -> Result<Value> {
    let (who, signal) = rest.split_once(' ').context("signal WHO SIGNAL")?;
    let signal: Signal = format!("SIG{signal}").parse().context("no such signal")?;
    let mut told = 0;
    for (pid, words) in processes()? {
        if name(&words) == who || who.parse() == Ok(pid) {
            kill(Pid::from_raw(pid), signal).with_context(|| format!("signal {who}"))?;
            told += 1;
        }
    }
    Ok(told.into())
}

/// `UID WORDS`: runs a program as somebody else, to its end.
pub(crate) fn run_as(rest: &str) -> Result<Value> {
    use std::os::unix::process::CommandExt as _;
    let (uid, words) = rest.split_once(' ').context("as UID [\"PROGRAM\", ..]")?;
    let uid = uid.parse().context("UID")?;
    finish(words, |command| {
        command.uid(uid).gid(uid);
    })
}

/// Starts a program and leaves it alone: its number.
pub(crate) fn spawn(words: &str) -> Result<Value> {
    let words: Vec<String> = serde_json::from_str(words).context("spawn [\"PROGRAM\", ..]")?;
    let (program, arguments) = words.split_first().context("spawn [\"PROGRAM\", ..]")?;
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let pid = child.id();
    std::thread::spawn(move || child.wait());
    Ok(pid.into())
}

/// `["SOCKET", "WORDS", "PROGRAM", ..]`: microseconds from a program's start until its Unix socket has answered these words;
/// then it is killed.
pub(crate) fn answers(words: &str) -> Result<Value> {
    const FORM: &str = "answers [\"SOCKET\", \"WORDS\", \"PROGRAM\", ..]";
    let words: Vec<String> = serde_json::from_str(words).context(FORM)?;
    let [socket, question, program, arguments @ ..] = &words[..] else { bail!(FORM) };
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut heard = || -> Result<u128> {
        loop {
            if let Ok(mut stream) = UnixStream::connect(socket) {
                stream.write_all(question.as_bytes()).context("ask")?;
                ensure!(stream.read(&mut [0; 16]).context("hear")? > 0, "it hangs up");
                return Ok(start.elapsed().as_micros());
            }
            if let Some(end) = child.try_wait().context("look after it")? {
                bail!("{program} ended before it answered: {end}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    let micros = heard();
    let _ = child.kill();
    child.wait().with_context(|| format!("wait for {program}"))?;
    let _ = std::fs::remove_file(socket);
    Ok(u64::try_from(micros?).unwrap_or(u64::MAX).into())
}

/// Runs a program, given as a list of words, to its end.
pub(crate) fn run(words: &str) -> Result<Value> {
    finish(words, |_| {})
}

fn finish(words: &str, change: impl Fn(&mut Command)) -> Result<Value> {
    let words: Vec<String> = serde_json::from_str(words).context("run [\"PROGRAM\", ..]")?;
    let (program, arguments) = words.split_first().context("run [\"PROGRAM\", ..]")?;
    let start = Instant::now();
    let mut command = Command::new(program);
    change(command.args(arguments));
    let output = command.output().with_context(|| format!("run {program}"))?;
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let text = [output.stdout, output.stderr].concat();
    Ok(
        json!({"code": output.status.code(), "output": String::from_utf8_lossy(&text), "millis": millis}),
    )
}

/// How many processes are dead and not waited for.
pub(crate) fn zombies() -> Result<Value> {
    let mut dead = 0;
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        // proc_pid_stat(5): the state stands behind the name, which may hold anything.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        dead += u64::from(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
    }
    Ok(dead.into())
}

/// Processes that have a command line; threads of the kernel have none.
fn processes() -> Result<Vec<(i32, Vec<String>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may be gone by now.
        let bytes = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = bytes
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if !words[0].is_empty() {
            found.push((pid, words));
        }
    }
    found.sort();
    Ok(found)
}

/// `zosd storaged` is `storaged`; anything else is its file's name.
fn name(words: &[String]) -> &str {
    let program =
        Path::new(&words[0]).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match words.get(1) {
        Some(daemon) if program == "zosd" => daemon,
        _ => program,
    }
}

#[cfg(test)]
mod tests {
    use super::beside_memfd;

    #[test]
    fn a_guests_memory_is_not_its_vmms() {
        let maps = "00400000-00500000 r-xp 00000000 00:02 77 /bin/zos-vmm\nSize: 1024 kB\nRss: 600 kB\n\
            7f00-7f01 rw-s 00000000 00:01 5 /memfd:guest (deleted)\nRss: 131072 kB\n\
            7f02-7f03 rw-p 00000000 00:00 0\nRss: 40 kB\nVmFlags: rd wr\n";
        assert_eq!(beside_memfd(maps), 640);
    }
}
