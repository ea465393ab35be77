//! A process and the connection that it belongs to.
//!
//! ```text
//!  host ─ Stdin ──▶ feeder ──▶ stdin ┐
//!       ─ Signal ─▶ its group        │ process
//!       ◀ Stdout, Stderr ─ copiers ◀─┘
//!       ◀ Exit ── when it has ended, and its outputs (a second later at the latest)
//!  the host hangs up: SIGHUP, ten seconds later SIGKILL
//! ```
//!
//! A process that reads no input holds up what the host says after it, signals too; hanging up helps.

use super::processes::pid_of;
use super::{Processes, serve};
use crate::launch;
use nix::pty::openpty;
use nix::sys::signal::Signal;
use rustix::net::{Shutdown, shutdown};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use zos_agent::{Answer, Decoder, Exec, Frame, LONGEST};

/// What of its outputs comes within this time after its end is still sent.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long it has after SIGHUP.
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// Pieces of input that wait for a process to read.
const AHEAD: usize = 4;
const STACK: usize = 64 << 10;

/// Our end of a pipe, and what bytes that come out of it are to the host.
type Output = (File, fn(Vec<u8>) -> Frame);

/// A process that runs, with its ends of our pipes.
pub(super) struct Process {
    pid: i32,
    stdin: Option<File>,
    outputs: Vec<Output>,
    terminal: Option<File>,
}

/// Starts it.
pub(super) fn start(exec: &Exec, processes: &Processes) -> Result<Process, String> {
    let program = exec.arguments.first().ok_or("which program? there are no arguments")?;
    let failed = |error: io::Error| format!("start {program}: {error}");
    let mut command = launch::command(exec).map_err(failed)?;
    match exec.terminal {
        Some(terminal) => {
            let size = size(terminal.rows, terminal.columns);
            let pair = openpty(None, None).map_err(|error| failed(error.into()))?;
            let _ = tcsetwinsize(&pair.master, size);
            let end = |fd: &OwnedFd| fd.try_clone().map(Stdio::from).map_err(failed);
            command.stdin(end(&pair.slave)?).stdout(end(&pair.slave)?).stderr(pair.slave);
            let child = processes.spawn(&mut command).map_err(failed)?;
            let master = File::from(pair.master);
            let clone = || master.try_clone().map_err(failed);
            Ok(Process {
                pid: pid_of(&child),
                stdin: Some(clone()?),
                outputs: vec![(clone()?, Frame::Stdout)],
                terminal: Some(master),
            })
        }
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            Ok(piped(processes.spawn(&mut command).map_err(failed)?))
        }
    }
}

fn piped(mut child: Child) -> Process {
    let mut outputs: Vec<Output> = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        outputs.push((File::from(OwnedFd::from(stdout)), Frame::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push((File::from(OwnedFd::from(stderr)), Frame::Stderr));
    }
    let stdin = child.stdin.take().map(|stdin| File::from(OwnedFd::from(stdin)));
    Process { pid: pid_of(&child), stdin, outputs, terminal: None }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The way to the host: a frame is written whole.
#[derive(Clone)]
struct Host(Arc<Mutex<File>>);

impl Host {
    fn send(&self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode().map_err(io::Error::other)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}

/// Runs the session; ends when the process has ended.
pub(super) fn run(
    process: Process,
    connection: &File,
    decoder: Decoder,
    processes: &Arc<Processes>,
) {
    let Process { pid, stdin, outputs, terminal } = process;
    let Ok(ours) = connection.try_clone() else { return end(processes, pid) };
    let host = Host(Arc::new(Mutex::new(ours)));
    let (ended, still) = channel::<()>();
    let copies = outputs.into_iter().map(|(output, frame)| {
        let (host, ended) = (host.clone(), ended.clone());
        spawn("output", move || {
            copy(output, frame, &host);
            drop(ended);
        })
    });
    let (input, fed) = sync_channel(AHEAD);
    // The answer goes first, so the copiers start behind it.
    let begun = host.send(&Frame::Answer(Answer::Done)).is_ok()
        && copies.collect::<io::Result<()>>().is_ok()
        && stdin.is_some_and(|stdin| spawn("input", move || feed(stdin, &fed)).is_ok());
    drop(ended);
    let waiter = {
        let (host, processes) = (host, processes.clone());
        let connection = connection.try_clone();
        move || {
            let exit = processes.wait(pid);
            // Told by the last output that its sender is gone, which is an error, too.
            let _ = still.recv_timeout(LAST_WORDS);
            let _ = host.send(&Frame::Exit(exit));
            if let Ok(connection) = connection {
                let _ = shutdown(&connection, Shutdown::Both);
            }
        }
    };
    if !begun || spawn("waiter", waiter).is_err() {
        processes.signal(pid, Signal::SIGKILL);
        return;
    }
    listen(connection, decoder, pid, input, terminal.as_ref(), processes);
    end(processes, pid);
}

/// Hears the host until it hangs up, or the waiter has hung up for it.
fn listen(
    connection: &File,
    mut decoder: Decoder,
    pid: i32,
    input: SyncSender<Vec<u8>>,
    terminal: Option<&File>,
    processes: &Processes,
) {
    let mut input = Some(input);
    while let Some(frame) = serve::read(connection, &mut decoder) {
        match frame {
            // The sender's end is the end of input; a terminal is told by a character.
            Frame::Stdin(bytes) if bytes.is_empty() && terminal.is_none() => input = None,
            Frame::Stdin(bytes) => {
                let bytes = if bytes.is_empty() { vec![END_OF_TRANSMISSION] } else { bytes };
                // A process that closed its input needs none.
                let _ = input.as_ref().map(|input| input.send(bytes));
            }
            Frame::Signal(number) => {
                if let Ok(signal) = Signal::try_from(i32::from(number)) {
                    processes.signal(pid, signal);
                }
            }
            Frame::Resize { rows, columns } => {
                let _ = terminal.map(|terminal| tcsetwinsize(terminal, size(rows, columns)));
            }
            // Nothing that a host says: it is no host.
            _ => return,
        }
    }
}

/// Ctrl-D.
const END_OF_TRANSMISSION: u8 = 4;

/// The host is gone: a process that still runs is told, then made to end.
fn end(processes: &Processes, pid: i32) {
    processes.signal(pid, Signal::SIGHUP);
    let begin = Instant::now();
    while processes.runs(pid) {
        if begin.elapsed() > GRACE {
            return processes.signal(pid, Signal::SIGKILL);
        }
        thread::sleep(LOOK);
    }
}

fn copy(mut from: File, frame: fn(Vec<u8>) -> Frame, host: &Host) {
    let mut piece = vec![0; LONGEST / 4];
    loop {
        match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal whose last user has gone reads as an error.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if host.send(&frame(piece[..count].to_vec())).is_err() {
                    return;
                }
            }
        }
    }
}

fn feed(mut to: File, pieces: &Receiver<Vec<u8>>) {
    while let Ok(bytes) = pieces.recv() {
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}
