//! Services that behave badly, for units of the tests: `zos-probe act WHAT ..`.
//!
//! ```text
//!  when NAME WHAT ..         the same, once the test says so (`/run/act/NAME`)
//!  sleep                     is ready at once (where that is asked) and stays
//!  exit CODE                 ends at once
//!  fork                      leaves a child behind and ends
//!  deaf                      ready, and ends by no signal that can be ignored
//!  flood MIB                 prints so much, then stays
//!  eat                       takes memory until it is killed
//!  zombies COUNT PROGRAM     starts so many programs, waits for none, ends
//!  fail TIMES FILE           fails so often, counted in a file, then succeeds
//!  hammer SOCKET COUNT SEED  connects so often at once, writes what no protocol is, and stays a while
//!  try (VERB PATH)..         tells of each whether it can: read, write, list, run, mount
//! ```
//!
//! What they print goes where the log of any service goes.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::SigSet;

/// Where the test says that a part may begin.
const WORDS: &str = "/run/act";
/// How long `hammer` holds its connections.
const HOLD: Duration = Duration::from_secs(2);

/// Plays a part; gives the exit code.
pub(crate) fn act(words: &[&str]) -> Result<u8> {
    match words {
        ["when", name, rest @ ..] => {
            let word = Path::new(WORDS).join(name);
            while !word.exists() {
                std::thread::sleep(Duration::from_millis(50));
            }
            return act(rest);
        }
        ["sleep"] => {
            ready()?;
            sleep()
        }
        ["exit", code] => return code.parse().context("exit CODE"),
        ["fork"] => {
            let me = std::env::current_exe().context("find this program")?;
            let child = Command::new(me).args(["act", "sleep"]).spawn().context("leave a child")?;
            println!("<5>left {}", child.id());
        }
        ["deaf"] => {
            SigSet::all().thread_block().context("block signals")?;
            ready()?;
            sleep()
        }
        ["flood", mib] => flood(mib.parse().context("flood MIB")?)?,
        ["eat"] => eat(),
        ["zombies", count, program] => zombies(count.parse().context("zombies COUNT")?, program)?,
        ["fail", times, file] => return fail(times.parse().context("fail TIMES")?, file),
        ["hammer", socket, count, seed] => {
            hammer(socket, count.parse().context("COUNT")?, seed.parse().context("SEED")?)?;
        }
        ["try", tries @ ..] => {
            for one in tries.chunks(2) {
                let [verb, path] = one else { bail!("try what: {one:?}") };
                match attempt(verb, path) {
                    Ok(()) => println!("{verb} {path}: yes"),
                    Err(error) => println!("{verb} {path}: {:?}", error.kind()),
                }
            }
        }
        _ => bail!("there is no such part: {words:?}"),
    }
    Ok(0)
}

/// Does one thing to a path, as far as its fence lets it.
fn attempt(verb: &str, path: &str) -> std::io::Result<()> {
    match verb {
        "read" => std::fs::read(path).map(drop),
        "write" => std::fs::write(path, "words"),
        "list" => match std::fs::read_dir(path)?.next() {
            Some(_) => Ok(()),
            None => Err(ErrorKind::NotFound.into()),
        },
        "run" => Command::new(path).stdin(Stdio::null()).spawn()?.wait().map(drop),
        "mount" => {
            let none = rustix::mount::MountFlags::empty();
            Ok(rustix::mount::mount("none", path, "tmpfs", none, None)?)
        }
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

/// Says that the service is ready, where PID 1 listens for that.
fn ready() -> Result<()> {
    let Ok(fd) = std::env::var("ZOS_READY_FD") else { return Ok(()) };
    let mut pipe = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .context("open the pipe of readiness")?;
    pipe.write_all(b"\n").context("say that we are ready")
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Numbered lines of 100 bytes, in writes as large as a pipe takes.
fn flood(mib: usize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let start = Instant::now();
    let mut number = 0;
    for _ in 0..(mib << 20) / (100 * 160) {
        let mut block = String::with_capacity(16_000);
        for _ in 0..160 {
            block += &format!("<6>flood {number:>10} {}\n", "x".repeat(79));
            number += 1;
        }
        out.write_all(block.as_bytes()).context("flood")?;
    }
    // The last word must be there when all before is long gone.
    writeln!(out, "<5>flooded: {number} lines in {} ms", start.elapsed().as_millis())?;
    ready()?;
    sleep()
}

/// Takes memory and touches it, 4 MiB at a time.
fn eat() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 4 << 20]);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn zombies(count: u32, program: &str) -> Result<()> {
    let start = Instant::now();
    let breed = |count: u32| -> Result<()> {
        for number in 0..count {
            // Never waited for: it stays a zombie until we end and PID 1 inherits it.
            let child = Command::new(program).stdin(Stdio::null()).spawn();
            drop(child.with_context(|| format!("start number {number}"))?);
        }
        Ok(())
    };
    // On two cores at once: what takes long is the emulated start of a program.
    std::thread::scope(|threads| -> Result<()> {
        let other = threads.spawn(|| breed(count / 2));
        breed(count - count / 2)?;
        other.join().ok().context("a thread panicked")?
    })?;
    println!("<5>left {count} zombies in {} ms", start.elapsed().as_millis());
    Ok(())
}

fn fail(times: u32, file: &str) -> Result<u8> {
    let before = std::fs::read_to_string(file).unwrap_or_default().len();
    if before >= times as usize {
        return Ok(0);
    }
    let mut notes = File::options().append(true).create(true).open(file).context("open notes")?;
    notes.write_all(b".").context("note a failure")?;
    println!("<4>failure {} of {times}", before + 1);
    Ok(7)
}

/// What is written to a socket: no protocol, or nearly the right one.
fn garbage(random: &mut u64) -> Vec<u8> {
    // xorshift64 (Marsaglia, 2003): the same seed writes the same bytes.
    let mut next = || {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    };
    let list = "{\"method\":\"org.zos.Init.ListUnits\",\"more\":true}\0";
    match next() % 8 {
        0 => Vec::new(),
        1 => (0..next() % 9000).map(|_| next().to_le_bytes()[0]).collect(),
        2 => vec![0; 5000],
        3 => "[".repeat(100_000).into_bytes(),
        4 => vec![b'a'; 3 << 20],
        5 => list.repeat(50).into_bytes(),
        6 => b"{\"method\":\"org.zos.Init.WatchUnits\",\"more\":true,\"parameters\":{}}\0".to_vec(),
        _ => format!("{{\"method\":{},\"parameters\":[{{}}]}}\0{{\"met", next()).into_bytes(),
    }
}

/// Prints how many connections were made, and how many of them the other side has closed.
fn hammer(socket: &str, count: usize, seed: u64) -> Result<()> {
    let mut random = seed | 1;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..count {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream.set_nonblocking(true).context("set up a connection")?;
                open.push(stream);
            }
            Err(_) => refused += 1,
        }
        if let Some(stream) = open.last_mut() {
            // As much as it takes now; it may be closed already.
            let _ = stream.write(&garbage(&mut random));
        }
    }
    std::thread::sleep(HOLD);
    let mut closed = 0;
    for stream in &mut open {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    closed += 1;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    closed += 1;
                    break;
                }
            }
        }
    }
    println!("{{\"opened\":{},\"refused\":{refused},\"closed\":{closed}}}", open.len());
    Ok(())
}
