//! The hand inside a node: `zos-probe` on the second serial port, a line in, a line of JSON out.
//!
//! It is packed into an archive behind the image's own, with a service unit, and PID 1 starts it as any service. Nothing
//! of it is in the image that we ship.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use image_builder::cpio::Mode;
use serde_json::Value;

use crate::programs;

/// The service unit, as PID 1 reads it.
const UNIT: &str = include_str!("../zos-probe/probe.toml");
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// The files that an image with a probe has beside its own.
pub fn files() -> Result<Vec<(String, Mode, Vec<u8>)>> {
    let program = programs::probe()?;
    let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
    Ok(vec![
        ("bin/zos-probe".to_owned(), Mode::Program, bytes),
        ("etc/zos/units/probe.toml".to_owned(), Mode::File, UNIT.into()),
    ])
}

/// A line to the probe of one node.
#[derive(Debug)]
pub struct Probe {
    stream: BufReader<UnixStream>,
}

impl Probe {
    /// Connects, and waits until the probe answers.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connect to the probe's serial port")?;
        let mut probe = Self { stream: BufReader::new(stream) };
        let end = Instant::now() + patience;
        while Instant::now() < end {
            // Before it runs, the port swallows or echoes; ask until the answer is the probe's.
            if probe.ask("hello", Duration::from_secs(1)).is_ok_and(|answer| answer == "hello") {
                return Ok(probe);
            }
        }
        bail!("the probe does not answer in {} s", patience.as_secs())
    }

    /// Whether TCP connects from the node to an address.
    pub fn connects(&mut self, to: SocketAddr) -> Result<bool> {
        Ok(self.command(&format!("connect {to}"))?.as_bool() == Some(true))
    }

    /// `GET` from the node: the body.
    pub fn get(&mut self, from: SocketAddr, path: &str) -> Result<String> {
        self.text(&format!("http {from} {path}"))
    }

    /// Kills (SIGKILL) the daemon or program of a name; gives how many processes.
    pub fn kill(&mut self, name: &str) -> Result<u64> {
        self.command(&format!("kill {name}"))?.as_u64().context("the probe tells no number")
    }

    /// A file of the node.
    pub fn read(&mut self, path: &str) -> Result<String> {
        self.text(&format!("cat {path}"))
    }

    /// Writes a file of the node.
    pub fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.command(&format!("write {path} {text}")).map(drop)
    }

    /// Makes a folder of the node, with those above it.
    pub fn make_dir(&mut self, path: &str) -> Result<()> {
        self.command(&format!("mkdir {path}")).map(drop)
    }

    /// Copies a file of the node over another.
    pub fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        self.command(&format!("copy {from} {to}")).map(drop)
    }

    /// Gives a command whose answer may never come, since the node is gone by then. The line is of no use afterwards:
    /// [`crate::Machine::wait_reboot`] leads to the next one.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.stream.get_mut(), "{command}").context("write to the probe")
    }

    /// The names in a folder of the node.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>> {
        let names = self.command(&format!("ls {path}"))?;
        serde_json::from_value(names).context("the probe tells no names")
    }

    /// Sends a signal (`TERM`) to a process by its number, or to each of a name; gives how many.
    pub fn signal(&mut self, who: &str, signal: &str) -> Result<u64> {
        let told = self.command(&format!("signal {who} {signal}"))?;
        told.as_u64().context("the probe tells no number")
    }

    /// Freezes a cgroup (`node/vmd`), or lets it go on.
    pub fn freeze(&mut self, cgroup: &str, frozen: bool) -> Result<()> {
        self.command(&format!("freeze {cgroup} {}", u8::from(frozen))).map(drop)
    }

    /// Calls a method of a local interface (`init`, `org.zos.Init.ListUnits`) as root. A refusal is an error with its name.
    #[allow(clippy::needless_pass_by_value)] // a literal at each call
    pub fn varlink(&mut self, noun: &str, method: &str, parameters: Value) -> Result<Value> {
        self.command(&format!("varlink /run/zos/{noun}.sock {method} {parameters}"))
    }

    /// The same for a stream: so many replies, or those that come in the time.
    #[allow(clippy::needless_pass_by_value)] // a literal at each call
    pub fn watch(
        &mut self,
        noun: &str,
        method: &str,
        parameters: Value,
        (count, time): (usize, Duration),
    ) -> Result<Vec<Value>> {
        let millis = time.as_millis();
        let socket = format!("/run/zos/{noun}.sock");
        let command = format!("watch {socket} {method} {count} {millis} {parameters}");
        let replies = self.ask(&command, ANSWER + time).with_context(|| command.clone())?;
        replies.as_array().cloned().context("the probe tells no list")
    }

    /// Calls a method that streams, and lets the replies come until the node has gone; [`Probe::told`] reads them. Nothing
    /// else can be asked afterwards.
    #[allow(clippy::needless_pass_by_value)] // a literal at each call
    pub fn follow(&mut self, noun: &str, method: &str, parameters: Value) -> Result<()> {
        self.command(&format!("follow /run/zos/{noun}.sock {method} {parameters}")).map(drop)
    }

    /// What came since [`Probe::follow`], up to the end of the node.
    pub fn told(&mut self) -> Result<Vec<Value>> {
        self.stream.get_ref().set_read_timeout(Some(ANSWER)).context("bound a read")?;
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).context("read from the probe")?;
        let lines = bytes.split(|byte| *byte == b'\n');
        let replies = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        Ok(replies.map(|mut reply| reply["told"].take()).filter(|told| !told.is_null()).collect())
    }

    /// Begins to send numbered datagrams to a guest's echo, one in each of so many milliseconds.
    pub fn udp_start(&mut self, to: SocketAddr, millis: u64) -> Result<()> {
        self.command(&format!("udp start {to} {millis}")).map(drop)
    }

    /// Ends that: `{"sent", "lost", "first_lost", "unsent", "strange", "longest_ms"}`.
    pub fn udp_stop(&mut self) -> Result<Value> {
        self.command("udp stop")
    }

    /// Every process: `{"pid", "name", "pss", "private"}`, memory in KiB.
    pub fn processes(&mut self) -> Result<Vec<Value>> {
        self.command("pss")?.as_array().cloned().context("the probe tells no list")
    }

    /// KiB that a VMM's process holds beside its guest's memory.
    pub fn beside(&mut self, pid: u64) -> Result<u64> {
        self.command(&format!("beside {pid}"))?.as_u64().context("the probe tells no number")
    }

    /// Microseconds from a program's start until its Unix socket has answered these words; then it is killed.
    pub fn answers(&mut self, socket: &str, words: &str, program: &[String]) -> Result<u64> {
        let all = [&[socket.to_owned(), words.to_owned()], program].concat();
        let micros = self.command(&format!("answers {}", Value::from(all)))?;
        micros.as_u64().context("the probe tells no number")
    }

    /// How many processes are dead and not waited for.
    pub fn zombies(&mut self) -> Result<u64> {
        self.command("zombies")?.as_u64().context("the probe tells no number")
    }

    /// Runs a program of the node to its end: `{"code", "output", "millis"}`.
    pub fn run(&mut self, words: &[String]) -> Result<Value> {
        self.command(&format!("run {}", Value::from(words)))
    }

    /// The same with a program that takes its time.
    pub fn run_long(&mut self, words: &[&str], patience: Duration) -> Result<Value> {
        self.ask(&format!("run {}", Value::from(words)), patience)
    }

    /// Kills a service of the bench; microseconds until it has started again.
    pub fn relive(&mut self, name: &str) -> Result<u64> {
        self.command(&format!("relive {name}"))?.as_u64().context("the probe tells no number")
    }

    /// The same as another user.
    pub fn run_as(&mut self, uid: u32, words: &[&str]) -> Result<Value> {
        self.command(&format!("as {uid} {}", Value::from(words)))
    }

    /// Starts a program of the node, and leaves it alone: its process's number.
    pub fn spawn(&mut self, words: &[&str]) -> Result<u64> {
        let pid = self.command(&format!("spawn {}", Value::from(words)))?;
        pid.as_u64().context("the probe tells no number")
    }

    /// Calls a method so often, one call after another, `#` in the parameters being the call's number from 0: seconds
    /// of all.
    #[allow(clippy::needless_pass_by_value, clippy::cast_precision_loss)] // a literal; microseconds
    pub fn many(
        &mut self,
        noun: &str,
        method: &str,
        count: usize,
        parameters: Value,
        patience: Duration,
    ) -> Result<f64> {
        let command = format!("many /run/zos/{noun}.sock {method} {count} {parameters}");
        let micros = self.ask(&command, patience).with_context(|| command.clone())?;
        Ok(micros.as_u64().context("the probe tells no number")? as f64 / 1e6)
    }

    /// The device of a virtio or NVMe disk, by its serial number.
    pub fn disk(&mut self, serial: &str) -> Result<String> {
        for name in self.list("/sys/block")? {
            let place = match &name[..2.min(name.len())] {
                "vd" => "serial",
                "nv" => "device/serial",
                _ => continue,
            };
            if self.read(&format!("/sys/block/{name}/{place}"))?.trim() == serial {
                return Ok(format!("/dev/{name}"));
            }
        }
        bail!("the node has no disk {serial}")
    }

    /// Starts a program of the node under a name; what it says is kept.
    pub fn start(&mut self, name: &str, words: &[String]) -> Result<u64> {
        let pid = self.command(&format!("start {name} {}", Value::from(words)))?;
        pid.as_u64().context("the probe tells no number")
    }

    /// Waits until it has said a text, and gives the line. Its end comes first? Then that is the error.
    pub fn until(&mut self, name: &str, text: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            let ended = self.command(&format!("ended {name} 0"))? != false;
            let said =
                self.command(&format!("until {name} {} {text}", if ended { 0 } else { 2000 }))?;
            match said.as_str() {
                Some(line) => return Ok(line.to_owned()),
                None if ended => {
                    bail!("{name} ended without a word of {text}:\n{}", self.tail(name, 8192)?)
                }
                None if Instant::now() > end => {
                    let secs = patience.as_secs();
                    bail!("{name} didn't say {text} in {secs} s:\n{}", self.tail(name, 8192)?)
                }
                None => {}
            }
        }
    }

    /// Waits for its end; gives its exit code, none after a signal.
    pub fn ended(&mut self, name: &str, patience: Duration) -> Result<Option<i64>> {
        let end = Instant::now() + patience;
        loop {
            let ended = self.command(&format!("ended {name} 2000"))?;
            if ended != false {
                return Ok(ended["code"].as_i64());
            }
            if Instant::now() > end {
                bail!("{name} still runs:\n{}", self.tail(name, 8192)?);
            }
        }
    }

    /// The end of what it said.
    pub fn tail(&mut self, name: &str, bytes: usize) -> Result<String> {
        self.text(&format!("tail {name} {bytes}"))
    }

    fn text(&mut self, command: &str) -> Result<String> {
        Ok(self.command(command)?.as_str().context("the probe tells no text")?.to_owned())
    }

    fn command(&mut self, command: &str) -> Result<Value> {
        self.ask(command, ANSWER).with_context(|| format!("ask the probe: {command}"))
    }

    fn ask(&mut self, command: &str, patience: Duration) -> Result<Value> {
        let end = Instant::now() + patience;
        writeln!(self.stream.get_mut(), "{command}").context("write to the probe")?;
        let mut line = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.get_ref().set_read_timeout(Some(left)).context("bound a read")?;
            self.stream.read_until(b'\n', &mut line).context("read from the probe")?;
            let answer: Value = match serde_json::from_slice(&line) {
                Ok(answer @ Value::Object(_)) => answer,
                // An echo, or noise of the firmware.
                _ if line.ends_with(b"\n") => {
                    line.clear();
                    continue;
                }
                _ => bail!("the probe's line is cut off"),
            };
            if answer["command"] != command {
                line.clear();
                continue;
            }
            if let Some(error) = answer["error"].as_str() {
                bail!("{error}");
            }
            return Ok(answer["ok"].clone());
        }
    }
}
