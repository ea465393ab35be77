//! What the bench of PID 1 runs: the same programs under each supervisor.
//!
//! ```text
//!  init        as PID 1, where /bench/init is: mounts what programs expect, then becomes the words of that file
//!  ./run       a service of s6 or runit: becomes the words of ./exec
//!  stamp NAME  notes its pid and when it started in /run/bench/NAME, and sleeps
//!  shout MIB   waits for `go`, prints so much as fast as it can, notes how many milliseconds that took, and sleeps
//! ```

use std::convert::Infallible;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// The words that the first process becomes.
pub(crate) const INIT: &str = "/bench/init";
/// Where services note their starts.
const NOTES: &str = "/run/bench";
/// How long a killed service may take to come again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts and folders, then the supervisor in this process's place.
pub(crate) fn init() -> Result<Infallible> {
    for (target, kind) in
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs"), ("/run", "tmpfs")]
    {
        let nothing = None::<&std::ffi::CStr>;
        // The kernel may have mounted /dev by itself.
        mount(kind, target, kind, MountFlags::empty(), nothing).ok();
    }
    for entry in std::fs::read_dir("/service").context("read /service")?.flatten() {
        let logs = Path::new("/run/log").join(entry.file_name());
        std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        for run in [entry.path().join("run"), entry.path().join("log/run")] {
            symlink("/bin/zos-probe", &run).with_context(|| format!("make {}", run.display()))?;
        }
    }
    note("init", &now().to_string())?;
    become_words_of(INIT)
}

/// A service directory's `run`.
pub(crate) fn run() -> Result<Infallible> {
    become_words_of("exec")
}

fn become_words_of(file: &str) -> Result<Infallible> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let mut words = text.split_whitespace();
    let program = words.next().with_context(|| format!("{file} is empty"))?;
    let error = Command::new(program).args(words).env("PATH", "/usr/bin:/bin").exec();
    Err(error).with_context(|| format!("become {program}"))
}

/// Notes this start, and sleeps until it is killed.
pub(crate) fn stamp(name: &str) -> Result<Infallible> {
    note(name, &format!("{} {}", std::process::id(), now()))?;
    sleep()
}

/// Lets `shout` begin.
pub(crate) fn go() -> Result<()> {
    note("go", "")
}

/// Prints lines as a chatty service does, once it is let, and notes the time that its supervisor let it take.
pub(crate) fn shout(mib: &str) -> Result<Infallible> {
    let bytes = mib.parse::<usize>().context("shout MIB")? << 20;
    let line =
        "<6>a line of a usual length, as daemons print them all day: 0123456789 0123456789\n";
    // A buffer of one page, as a C library has it for a pipe.
    let block = line.repeat(4096 / line.len());
    while !Path::new(NOTES).join("go").exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (start, mut written) = (Instant::now(), 0);
    let mut out = std::io::stdout().lock();
    while written < bytes {
        out.write_all(block.as_bytes()).context("shout")?;
        written += block.len();
    }
    drop(out);
    note("shout", &start.elapsed().as_millis().to_string())?;
    sleep()
}

/// Kills a service and waits for its next start: microseconds between the two.
pub(crate) fn relive(name: &str) -> Result<Value> {
    let (pid, _) = read(name)?;
    let killed = now();
    kill_process(Pid::from_raw(pid).context("a pid")?, Signal::KILL).context("kill it")?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // While it is written anew, the note is empty.
        if let Ok((next, started)) = read(name)
            && next != pid
        {
            return Ok((started.saturating_sub(killed) / 1000).into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    bail!("{name} does not come again")
}

fn note(name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(NOTES).context("make the folder of notes")?;
    let path = Path::new(NOTES).join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn read(name: &str) -> Result<(i32, u64)> {
    let text = std::fs::read_to_string(Path::new(NOTES).join(name)).context("read its note")?;
    let (pid, time) = text.split_once(' ').context("its note is not written yet")?;
    Ok((pid.parse()?, time.parse()?))
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
