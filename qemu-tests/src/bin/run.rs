//! `make run`: a node on this computer, started from the network as in a farm, with a twin's VM on it.
//!
//! ```text
//!  iPXE over HTTP ─▶ console ─▶ zos capacity ─▶ zos service list ─▶ zos apply hello.toml ─▶ zos logs -f
//!                                               (as its farmer)       └ Ctrl-C: power button, off ┘
//! ```
//!
//! The node's disk and the keys of twin and farmer stay in `target/run/`: the next run starts the same node again, its
//! VM too.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use qemu_tests::accel::Accel;
use qemu_tests::disk::{self, Disk};
use qemu_tests::qemu::Qemu;
use qemu_tests::twin::Twin;
use qemu_tests::{Boot, Firmware, GIB, Machine, Node, Scene, image};

/// How long an orderly stop may take, before the power is cut.
const STOP: Duration = Duration::from_secs(60);
/// How long a press of the power button is waited for.
const PRESS_AGAIN: Duration = Duration::from_secs(4);

/// Boots a node in QEMU by iPXE, shows its console and what it has, and runs a sample deployment on it.
///
/// Ctrl-C switches the node off orderly; a second one cuts its power.
#[derive(Debug, Parser)]
#[command(name = "run")]
struct Arguments {
    /// End by itself after some lines of the VM's log.
    #[arg(long)]
    once: bool,
    /// How many lines of the VM's log end a run with --once.
    #[arg(long, default_value_t = 36)]
    lines: usize,
    /// Memory of the node, in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u64,
    /// Start by UEFI instead of BIOS.
    #[arg(long)]
    uefi: bool,
    /// Forget the node, its disk and the keys of earlier runs.
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let stop = on_signals()?;
    let dir = image::project().join("target/run");
    let mut scene = if arguments.fresh { Scene::new(&dir)? } else { Scene::keep(&dir)? };
    let node = Node {
        memory: arguments.memory,
        boot: Boot::Ipxe,
        firmware: if arguments.uefi { Firmware::Uefi } else { Firmware::Bios },
        disks: vec![disk(&dir.join("disk.img"))?],
        settings: vec!["zos.farm=home".into()],
        farmer: true,
        reboots: true,
        ..Node::default()
    };
    let how = if Accel::probe()? == Accel::Kvm {
        "KVM"
    } else {
        "emulation: KVM can't run Linux guests here"
    };
    say(&format!("starting a node by iPXE over HTTP (QEMU {}, {how})", Qemu::find()?.version));
    let mut machine = scene.start(&node)?;
    let console = Console::follow(&machine);
    let outcome = serve(&mut machine, &dir, arguments, &stop);
    say("switching the node off");
    let off = switch_off(&mut machine, &stop);
    console.end();
    outcome.and(off)
}

/// From the node's answer to the end that was asked for.
fn serve(machine: &mut Machine, dir: &Path, arguments: &Arguments, stop: &Stop) -> Result<()> {
    let end = Instant::now() + qemu_tests::machine::BOOT;
    let found = loop {
        match machine.wait_node("answer", Duration::from_secs(1), |_| true) {
            Ok(found) => break found,
            Err(_) if stop.wanted() => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            // It boots still, unless it is gone.
            Err(_) => machine.check_alive()?,
        }
    };
    let seconds = machine.started().elapsed().as_secs_f32();
    say(&format!(
        "the node answers after {seconds:.1} s: {}@127.0.0.1:{}",
        found.id,
        machine.api_port()
    ));
    let twin = Twin::at(dir.join("twin.pem"))?;
    show(&twin, machine, &["capacity"], stop)?;
    let farmer = machine.farmer()?.clone();
    show(&farmer, machine, &["service", "list"], stop)?;
    say("as the farmer, from another terminal:");
    for words in [&["service", "list"][..], &["service", "logs", "vmd", "-f"], &["node", "reboot"]]
    {
        println!("    {}", typed(&farmer.zos(machine, words)?));
    }
    show(&twin, machine, &["apply", "-f", "docs/examples/hello.toml", "--wait"], stop)?;
    if stop.wanted() {
        return Ok(());
    }
    say("zos logs -f hello/hello          (Ctrl-C ends)");
    let mut log = twin.zos(machine, &["logs", "-f", "hello/hello"])?;
    let mut log =
        log.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start zos logs")?;
    let result = follow(&mut log, arguments, stop, machine);
    log.kill().ok();
    log.wait().ok();
    result
}

/// Runs `zos` on the terminal.
fn show(twin: &Twin, machine: &Machine, words: &[&str], stop: &Stop) -> Result<()> {
    if stop.wanted() {
        return Ok(());
    }
    say(&format!("zos {}", words.join(" ")));
    let status =
        twin.zos(machine, words)?.current_dir(image::project()).stdin(Stdio::null()).status();
    let status = status.context("start zos")?;
    ensure!(status.success() || stop.wanted(), "zos {} ends with {status}", words.join(" "));
    Ok(())
}

/// A command as one types it; our paths have no spaces to quote.
fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Shows the VM's log until there is enough of it.
fn follow(
    log: &mut Child,
    arguments: &Arguments,
    stop: &Stop,
    machine: &mut Machine,
) -> Result<()> {
    let output = log.stdout.take().context("the log is a pipe")?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let end = Instant::now() + qemu_tests::machine::BOOT;
    let mut seen = 0;
    loop {
        if stop.wanted() || (arguments.once && seen >= arguments.lines) {
            return Ok(());
        }
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                println!("\x1b[32mvm   │\x1b[0m {}", plain(&line));
                seen += 1;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => machine.check_alive()?,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => bail!("zos logs has ended"),
        }
        ensure!(!arguments.once || Instant::now() < end, "the VM said only {seen} lines");
    }
}

fn switch_off(machine: &mut Machine, stop: &Stop) -> Result<()> {
    if machine.check_alive().is_err() {
        return Ok(());
    }
    let (end, so_far) = (Instant::now() + STOP, stop.count());
    while Instant::now() < end && stop.count() == so_far {
        // A node that still boots misses the button: it is pressed again.
        machine.press_power_button()?;
        if let Ok(reason) = machine.wait_off(PRESS_AGAIN) {
            ensure!(reason == "guest-shutdown", "the node ended by {reason}");
            say("the node is off");
            return Ok(());
        }
    }
    bail!("the node was still running; its power was cut")
}

/// A 16 GiB NVMe disk that takes no space until it is used, from this run or an earlier one.
fn disk(path: &Path) -> Result<Disk> {
    if !path.exists() {
        disk::create(path, 16 * GIB)?;
    }
    Ok(Disk::new("nvme0", path.to_owned()))
}

fn say(text: &str) {
    println!("\x1b[1m==> {text}\x1b[0m");
}

/// A line without control sequences: the terminal is ours.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // ECMA-48, 5.4: a control sequence ends with a character from @ to ~.
            if characters.next_if_eq(&'[').is_some() {
                while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            } else {
                characters.next();
            }
        } else if !character.is_control() || character == '\t' {
            text.push(character);
        }
    }
    text
}

/// The node's serial port on our terminal.
struct Console {
    thread: std::thread::JoinHandle<()>,
    done: Arc<AtomicBool>,
}

impl Console {
    fn follow(machine: &Machine) -> Self {
        let path = machine.serial().path().to_owned();
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        let thread = std::thread::spawn(move || {
            let (mut at, mut rest) = (0, Vec::new());
            loop {
                let last = flag.load(Ordering::Relaxed);
                if let Ok(mut file) = std::fs::File::open(&path)
                    && file.seek(SeekFrom::Start(at)).is_ok()
                {
                    at += file.read_to_end(&mut rest).unwrap_or(0) as u64;
                }
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = plain(&String::from_utf8_lossy(&line));
                    if !line.trim().is_empty() {
                        println!("\x1b[36mnode │\x1b[0m {line}");
                    }
                }
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { thread, done }
    }

    fn end(self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().ok();
    }
}

/// How often an end was asked for, by Ctrl-C or SIGTERM.
#[derive(Clone)]
struct Stop(Arc<std::sync::atomic::AtomicU32>);

impl Stop {
    fn wanted(&self) -> bool {
        self.count() > 0
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

fn on_signals() -> Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Stop(Arc::default());
    let counted = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let (mut interrupt, mut terminate) = {
        let _in_it = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                counted.0.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_left_out() {
        assert_eq!(plain("\x1b[2J\x1b[1;32mok\x1b[0m\tdone\r"), "ok\tdone");
    }
}
