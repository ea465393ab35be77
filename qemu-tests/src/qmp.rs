//! QEMU's machine protocol: JSON lines over a Unix socket (QEMU's `qmp-spec`), blocking, every wait with an end.
//!
//! ```text
//!  greeting ─▶ qmp_capabilities ─▶ { execute ─▶ return | error }*   with events between the lines, kept in order
//! ```

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    partial: Vec<u8>,
    log: File,
    events: Vec<Value>,
}

impl Qmp {
    /// Waits for the socket, greets, and keeps what is said in `log`.
    pub fn connect(socket: &Path, log: &Path, patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error).context("connect to QEMU's QMP socket"),
            }
        };
        let log = File::create(log).context("make the QMP log")?;
        let mut qmp =
            Self { reader: BufReader::new(stream), partial: Vec::new(), log, events: Vec::new() };
        qmp.line(end)?.context("QEMU sent no greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives its `return`.
    #[allow(clippy::needless_pass_by_value)] // a literal at each call
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        writeln!(self.log, "> {text}").ok();
        writeln!(self.reader.get_mut(), "{text}")
            .with_context(|| format!("send {command} to QEMU"))?;
        let end = Instant::now() + COMMAND;
        loop {
            let line = self
                .line(end)?
                .with_context(|| format!("no answer to {command} in {COMMAND:?}"))?;
            if let Some(value) = line.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = line.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or_default());
            }
        }
    }

    /// Waits for an event by name, or finds it among those that came before.
    pub fn wait_event(&mut self, name: &str, patience: Duration) -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.iter().find(|event| event["event"] == name) {
                return Ok(event.clone());
            }
            self.line(end)?.with_context(|| format!("no event {name} in {patience:?}"))?;
        }
    }

    /// Waits for an event that fits, and takes it out of those that came: the next wait is for the next one.
    pub fn take_event(
        &mut self,
        fits: impl Fn(&Value) -> bool,
        patience: Duration,
    ) -> Result<Value> {
        let end = Instant::now() + patience;
        loop {
            if let Some(at) = self.events.iter().position(&fits) {
                return Ok(self.events.remove(at));
            }
            self.line(end)?.with_context(|| format!("no such event in {patience:?}"))?;
        }
    }

    /// The events so far, oldest first, with those that wait in the socket.
    pub fn events(&mut self) -> &[Value] {
        while let Ok(Some(_)) = self.line(Instant::now() + Duration::from_millis(20)) {}
        &self.events
    }

    /// The next line, or none when the time is up. Events are kept on the way.
    fn line(&mut self, end: Instant) -> Result<Option<Value>> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.reader.get_ref().set_read_timeout(Some(left)).context("bound a read")?;
        match self.reader.read_until(b'\n', &mut self.partial) {
            Ok(0) => Err(anyhow!("QEMU has closed its QMP socket")),
            Ok(_) => {
                let line = std::mem::take(&mut self.partial);
                writeln!(self.log, "< {}", String::from_utf8_lossy(&line).trim_end()).ok();
                let value: Value = serde_json::from_slice(&line).context("read a line of QMP")?;
                if value.get("event").is_some() {
                    self.events.push(value.clone());
                }
                Ok(Some(value))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error).context("read from QEMU's QMP socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A QEMU that says these lines, each after it has heard one (but the first).
    fn said(lines: &'static [&'static str]) -> (tempfile::TempDir, Qmp) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = BufReader::new(stream.try_clone().unwrap()).lines();
            for (number, line) in lines.iter().enumerate() {
                if number > 0 && heard.next().is_none() {
                    return;
                }
                stream.write_all(line.as_bytes()).unwrap();
            }
            std::thread::sleep(Duration::from_secs(5));
        });
        let qmp = Qmp::connect(&socket, &dir.path().join("log"), Duration::from_secs(5)).unwrap();
        (dir, qmp)
    }

    #[test]
    fn events_between_an_answer_are_kept() {
        let (_dir, mut qmp) = said(&[
            "{\"QMP\": {}}\n",
            "{\"return\": {}}\n",
            "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\"}}\n",
        ]);
        assert_eq!(qmp.execute("query-status", json!({})).unwrap()["status"], "running");
        qmp.wait_event("RESUME", Duration::from_millis(10)).unwrap();
        let late = qmp.wait_event("SHUTDOWN", Duration::from_millis(10)).unwrap_err();
        assert!(late.to_string().contains("SHUTDOWN"), "{late}");
    }

    #[test]
    fn a_refusal_says_why() {
        let (_dir, mut qmp) = said(&[
            "{\"QMP\": {}}\n",
            "{\"return\": {}}\n",
            "{\"error\": {\"desc\": \"no such device\"}}\n",
        ]);
        let error = qmp.execute("device_del", json!({"id": "x"})).unwrap_err().to_string();
        assert_eq!(error, "QEMU refuses device_del: no such device");
    }
}
