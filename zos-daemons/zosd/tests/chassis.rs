//! The program as PID 1 runs it: a socket and a pipe passed by number, SIGTERM at the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Passes standard input on as descriptor 3 and standard output as 4, as PID 1 numbers them.
const PASS: &str =
    r#"LISTEN_PID=$$ LISTEN_FDS=1 ZOS_READY_FD=4 exec "$0" "$1" 3<&0 4>&1 </dev/null >/dev/null"#;

struct Daemon {
    process: Child,
    pipe: std::io::PipeReader,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start(name: &str, watchdog_ms: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("test.sock");
        let listener = OwnedFd::from(UnixListener::bind(&socket).unwrap());
        let (pipe, end) = std::io::pipe().unwrap();
        let process = Command::new("/bin/sh")
            .args(["-c", PASS, env!("CARGO_BIN_EXE_zosd"), name])
            .env("ZOS_WATCHDOG_MS", watchdog_ms.to_string())
            .stdin(listener)
            .stdout(end)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, pipe, socket, _folder: folder }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn newline(&mut self) {
        let mut byte = [0; 1];
        self.pipe.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"\n");
    }

    fn call(&self, method: &str) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(format!("{}\0", json!({ "method": method })).as_bytes()).unwrap();
        let mut answer = Vec::new();
        BufReader::new(stream).read_until(0, &mut answer).unwrap();
        serde_json::from_slice::<Value>(&answer[..answer.len() - 1]).unwrap()["parameters"].take()
    }

    /// The exit code, and the lines that it wrote.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let lines = BufReader::new(self.process.stderr.take().unwrap()).lines();
        let lines = lines.map(Result::unwrap).collect();
        (self.process.wait().unwrap().code(), lines)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_daemon_is_ready_feeds_its_watchdog_answers_and_ends_when_told() {
    let mut daemon = Daemon::start("capacityd", 150);
    daemon.newline();
    let begun = Instant::now();
    (0..4).for_each(|_| daemon.newline());
    // Every third of the watchdog's time.
    let took = begun.elapsed();
    assert!((Duration::from_millis(150)..Duration::from_secs(60)).contains(&took), "{took:?}");
    let info = daemon.call("org.varlink.service.GetInfo");
    assert_eq!(info["product"], "org.zos.Capacity");
    let metrics = daemon.call("org.zos.Service.ReadMetrics");
    let text = metrics["text"].as_str().unwrap();
    assert!(text.contains("\nzos_capacityd_process_resident_memory_bytes "), "{text}");
    assert_eq!(daemon.call("org.zos.Service.ListFaults")["faults"], json!([]));
    let told = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), (Some(0), Vec::new()));
    assert!(told.elapsed() < Duration::from_secs(60), "{:?}", told.elapsed());
}

#[test]
fn a_daemon_without_what_pid_1_passes_says_so_in_a_line_like_others() {
    let out = Command::new(env!("CARGO_BIN_EXE_zosd")).arg("capacityd").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let stderr = String::from_utf8(out.stderr).unwrap();
    let json = stderr.strip_prefix("<3>").expect(&stderr);
    let line: Value = serde_json::from_str(json).unwrap();
    assert_eq!(line["target"], "capacityd");
    assert!(line["msg"].as_str().unwrap().contains("LISTEN_FDS"), "{line}");
}
